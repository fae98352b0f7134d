"""A pool with a clock that the test moves."""

import pytest

from nexrl.config.schema import TrajectoryPoolConfig
from nexrl.pool import Ledger, LedgerReader, TrajectoryPool


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    """A pool of two prompts per batch, two samples each; keywords of TrajectoryPoolConfig."""
    ledger = Ledger(tmp_path, attempt=1)

    def make_pool(*, size=2, slots=2, **config):
        config = TrajectoryPoolConfig(**config)
        return TrajectoryPool(config, groups_per_batch=size, slots=slots, ledger=ledger, clock=clock)

    yield make_pool
    ledger.close()


@pytest.fixture
def audit(tmp_path):
    return lambda: LedgerReader(tmp_path).audit()
