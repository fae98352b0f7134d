"""Starting models, and a run that others are compared with."""

import pytest
from e2e_models import write_letters_model
from e2e_runs import STEPS, run


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The letters' model."""
    return write_letters_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def reference(model, tmp_path_factory):
    """A run with everything switched on, one process per role."""
    return run(
        tmp_path_factory.mktemp("reference") / "run",
        model,
        f"trainer.total_train_steps={STEPS}",
        "trainer.save_freq=4",
        "validate.validate_before_train=true",
        "validate.validate_at_end=true",
        "logger.backend=[console, tensorboard, wandb]",
    )
