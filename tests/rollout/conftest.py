import pytest
from rollout_parts import make_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()
