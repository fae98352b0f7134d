import pytest
import torch.distributed as dist
from training_parts import make_model_folder


@pytest.fixture(autouse=True, scope="module")
def _process_group_ends():
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return make_model_folder(tmp_path_factory.mktemp("models") / "tiny")
