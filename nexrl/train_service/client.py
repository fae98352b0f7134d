"""The trainer's side of a train service."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, ClassVar, TypedDict

from nexrl.comm import RpcServer
from nexrl.errors import CommError, NexRLError, TrainingError
from nexrl.train_service.records import (
    ExportRequest,
    LoadReply,
    LoadRequest,
    LogProbReply,
    LogProbRequest,
    SaveRequest,
    UpdateReply,
    WorkerInfo,
)
from nexrl.types import Batch


class UpdateResult(TypedDict):
    """What a training step reports."""

    metrics: dict[str, float]
    meta_info: dict[str, float]


class TrainServiceClient(ABC):
    """One train service. Calls block until every rank has answered; the first rank that fails, fails the call."""

    changes_weights: ClassVar[bool] = True
    """Whether an update makes new weights: where none are made, what engines serve stays version 0."""

    @property
    @abstractmethod
    def world_size(self) -> int:
        """Data-parallel ranks: shards of a batch."""

    @abstractmethod
    def initialize_worker(self) -> list[WorkerInfo]:
        """Make sure that all ranks answer and agree on who they are; sorted by rank."""

    @abstractmethod
    def init_model(self) -> None:
        """Load model and optimizer on every rank."""

    @abstractmethod
    def update_actor(self, batch: Batch) -> UpdateResult:
        """One training step: forward, backward, optimizer."""

    @abstractmethod
    def compute_log_prob(self, batch: Batch, *, reference: bool = False) -> LogProbReply:
        """Log-probs under the current weights, or those of the reference model; kept by the ranks for the update."""

    @abstractmethod
    def save_checkpoint(self, local_path: str, global_step: int = 0, save_weight_only: bool = False) -> "Future[None]":
        """Returns when weights may change again; the future is done when every rank's part is on disk."""

    @abstractmethod
    def load_checkpoint(self, path: str, load_weight_only: bool = False) -> LoadReply:
        """Continue from a checkpoint."""

    @abstractmethod
    def export_hf(self, path: str) -> None:
        """Write the current weights as a Hugging Face folder."""

    @abstractmethod
    def health_check(self) -> dict[str, Any]:
        """`status` (`healthy` or `unhealthy`), `workers_connected`, `total_workers`."""

    @abstractmethod
    def worker_info(self) -> list[WorkerInfo]:
        """Every rank, sorted."""

    @abstractmethod
    def destroy(self) -> None:
        """End the service."""


class ZmqTrainServiceClient(TrainServiceClient):
    """Drives the trainer ranks of this job, each named by its place in `ranks`."""

    def __init__(self, server: RpcServer, ranks: Sequence[str], timeout: float) -> None:
        """`timeout` in seconds is for one command on all ranks."""
        self._server = server
        self._ranks = tuple(ranks)
        self._timeout = timeout

    @property
    def world_size(self) -> int:
        return len(self._ranks)

    def initialize_worker(self) -> list[WorkerInfo]:
        infos: list[WorkerInfo] = self._all("initialize_worker", None, WorkerInfo).result()
        found = [(info.rank, info.world_size) for info in infos]
        needed = [(rank, self.world_size) for rank in range(self.world_size)]
        if found != needed:
            raise TrainingError(f"trainer ranks: found (rank, world size) {found}, needed {needed}")
        return infos

    def init_model(self) -> None:
        self._all("init_model", None, None).result()

    def update_actor(self, batch: Batch) -> UpdateResult:
        replies: list[UpdateReply] = self._each("update_actor", self._shards(batch), UpdateReply).result()
        return {"metrics": replies[0].metrics, "meta_info": replies[0].meta_info}

    def compute_log_prob(self, batch: Batch, *, reference: bool = False) -> LogProbReply:
        requests = [LogProbRequest(shard, reference) for shard in self._shards(batch)]
        replies: list[LogProbReply] = self._each("compute_log_prob", requests, LogProbReply).result()
        return LogProbReply(
            logprob_sums={name: value for reply in replies for name, value in reply.logprob_sums.items()},
            kl_sums={name: value for reply in replies for name, value in reply.kl_sums.items()},
        )

    def save_checkpoint(self, local_path: str, global_step: int = 0, save_weight_only: bool = False) -> "Future[None]":
        request = SaveRequest(local_path, global_step, save_weight_only)
        self._all("save_checkpoint", request, None).result()
        return self._all("checkpoint_written", None, None)

    def load_checkpoint(self, path: str, load_weight_only: bool = False) -> LoadReply:
        replies: list[LoadReply] = self._all("load_checkpoint", LoadRequest(path, load_weight_only), LoadReply).result()
        return replies[0]

    def export_hf(self, path: str) -> None:
        self._all("export_hf", ExportRequest(path), None).result()

    def health_check(self) -> dict[str, Any]:
        connected = len(set(self._ranks) & set(self._server.peers()))
        status = "healthy" if connected == self.world_size else "unhealthy"
        return {"status": status, "workers_connected": connected, "total_workers": self.world_size}

    def worker_info(self) -> list[WorkerInfo]:
        infos: list[WorkerInfo] = self._all("worker_info", None, WorkerInfo).result()
        return infos

    def destroy(self) -> None:
        self._all("destroy", None, None).result()

    def _shards(self, batch: Batch) -> Sequence[Any]:
        if len(batch.shards) != self.world_size:
            raise TrainingError(
                f"batch of step {batch.step}: found {len(batch.shards)} shards for {self.world_size} ranks"
            )
        return batch.shards

    def _all(self, method: str, request: Any, reply_type: Any) -> "Future[Any]":
        return self._each(method, [request] * self.world_size, reply_type)

    def _each(self, method: str, requests: Sequence[Any], reply_type: Any) -> "Future[Any]":
        """Ask every rank at once; a Future of the replies in the order of the ranks."""
        futures = [
            self._server.call(name, method, request, reply_type, timeout=self._timeout)
            for name, request in zip(self._ranks, requests, strict=True)
        ]
        return gather(futures, ranks=self._ranks, method=method)


def gather(futures: "Sequence[Future[Any]]", *, ranks: Sequence[str], method: str) -> "Future[Any]":
    """One Future of all results in order; the first failure is its failure, naming the rank."""
    whole: Future[Any] = Future()
    lock = threading.Lock()
    left = len(futures)

    def finished(index: int, done: "Future[Any]") -> None:
        nonlocal left
        error = CommError("cancelled") if done.cancelled() else done.exception()
        with lock:
            left -= 1
            if whole.done():
                return
            if error is not None:
                whole.set_exception(_named(error, ranks[index], method))
            elif left == 0:
                whole.set_result([future.result() for future in futures])

    for index, future in enumerate(futures):
        future.add_done_callback(partial(finished, index))
    return whole


def _named(error: BaseException, rank: str, method: str) -> BaseException:
    """The same kind of error, naming the rank."""
    if isinstance(error, NexRLError):
        return type(error)(f"{rank}: {method}: {error}")
    return CommError(f"{rank}: {method}: {type(error).__name__}: {error}")
