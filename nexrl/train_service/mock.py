"""A train service that trains nothing, for smoke tests of everything around it."""

from concurrent.futures import Future
from typing import Any

from nexrl.train_service.client import TrainServiceClient, UpdateResult
from nexrl.train_service.records import LoadReply, LogProbReply, WorkerInfo
from nexrl.types import Batch


class MockTrainServiceClient(TrainServiceClient):
    """Answers at once, always the same."""

    changes_weights = False

    def __init__(self, url: str = "mock://localhost") -> None:
        self.url = url

    @property
    def world_size(self) -> int:
        return 1

    def initialize_worker(self) -> list[WorkerInfo]:
        return []

    def init_model(self) -> None:
        """There is none."""

    def update_actor(self, batch: Batch | dict[str, Any]) -> UpdateResult:
        return {"metrics": {"loss": 0.5}, "meta_info": {}}

    def compute_log_prob(self, batch: Batch, *, reference: bool = False) -> LogProbReply:
        return LogProbReply(logprob_sums={}, kl_sums={})

    def save_checkpoint(self, local_path: str, global_step: int = 0, save_weight_only: bool = False) -> "Future[None]":
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def load_checkpoint(self, path: str, load_weight_only: bool = False) -> LoadReply:
        return LoadReply(global_step=-1)

    def export_hf(self, path: str) -> None:
        """There are no weights."""

    def health_check(self) -> dict[str, Any]:
        return {"status": "healthy", "workers_connected": 1, "total_workers": 1}

    def worker_info(self) -> list[WorkerInfo]:
        return []

    def destroy(self) -> None:
        """Nothing runs."""
