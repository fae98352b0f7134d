"""A rank's command loop: commands come in over the wire, and run one at a time on the thread that calls `run`."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nexrl.activity import ActivityTracker
from nexrl.comm import RpcClient
from nexrl.errors import NexRLError, TrainingError
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
from nexrl.train_service.worker import TrainWorker
from nexrl.types import Shard


@dataclass(frozen=True)
class _Command:
    method: str
    run: Callable[[Any], Any]
    request: Any
    reply: "Future[Any]"


class TrainService:
    """Serves a TrainWorker. torch.distributed wants one thread, so commands wait in a queue for it.

    A command's NexRLError is its reply. Anything else means that this rank cannot be trusted any longer: the reply is
    a TrainingError, and `run` raises it.
    """

    def __init__(self, worker: TrainWorker, rpc: RpcClient, *, tracker: ActivityTracker) -> None:
        """`tracker` is told of the command under way."""
        self._worker = worker
        self._tracker = tracker
        self._rpc = rpc
        self._queue: queue.SimpleQueue[_Command | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._open = True
        self.add("initialize_worker", None, lambda _: worker.worker_info())
        self.add("init_model", None, lambda _: worker.init_model())
        self.add("update_actor", Shard, self._update)
        self.add("compute_log_prob", LogProbRequest, self._log_prob)
        self.add("save_checkpoint", SaveRequest, self._save)
        self.add("checkpoint_written", None, lambda _: worker.checkpoint_written())
        self.add("load_checkpoint", LoadRequest, self._load)
        self.add("export_hf", ExportRequest, lambda request: worker.export_hf(Path(request.path)))
        self.add("worker_info", None, self._info)
        self.add("destroy", None, self._destroy)

    def add(self, method: str, request_type: Any, command: Callable[[Any], Any]) -> None:
        """Serve one more command, `command(request) -> reply` or a Future of it, on the same thread as all others."""
        self._rpc.expose(method, request_type, lambda _, request: self._enqueue(method, command, request))

    def run(self, stopped: threading.Event | None = None) -> None:
        """Serve until `stop`, `destroy` or `stopped`; the command under way is finished, waiting ones fail.

        Consumes commands of the controller; waits for the next one; unblocked by it or by `stop`.
        """
        if stopped is not None:
            threading.Thread(target=self._stop_when, args=(stopped,), daemon=True, name="train-service-stop").start()
        try:
            while (command := self._queue.get()) is not None:
                self._execute(command)
        finally:
            self._close()

    def stop(self) -> None:
        """End `run` after the command under way; may be called from any thread, and again."""
        self._queue.put(None)

    def _enqueue(self, method: str, command: Callable[[Any], Any], request: Any) -> "Future[Any]":
        with self._lock:
            if not self._open:
                raise TrainingError(f"{method}: this trainer rank has ended its service")
            reply: Future[Any] = Future()
            self._queue.put(_Command(method, command, request, reply))
            return reply

    def _execute(self, command: _Command) -> None:
        if not command.reply.set_running_or_notify_cancel():
            return
        try:
            with self._tracker.track(self._rpc.name, command.method, auto_report_errors=False):
                result = command.run(command.request)
        except NexRLError as error:
            command.reply.set_exception(error)
        except Exception as error:
            failure = TrainingError(f"{command.method}: {type(error).__name__}: {error}")
            command.reply.set_exception(failure)
            raise failure from error
        else:
            _resolve(command.reply, result)

    def _close(self) -> None:
        """Fail what still waits."""
        with self._lock:
            self._open = False
        while not self._queue.empty():
            command = self._queue.get()
            if command is not None and command.reply.set_running_or_notify_cancel():
                command.reply.set_exception(TrainingError(f"{command.method}: this trainer rank has ended its service"))

    def _stop_when(self, stopped: threading.Event) -> None:
        stopped.wait()
        self.stop()

    def _update(self, shard: Shard) -> UpdateReply:
        return self._worker.update_actor(shard)

    def _log_prob(self, request: LogProbRequest) -> LogProbReply:
        return self._worker.compute_log_prob(request.shard, reference=request.reference)

    def _save(self, request: SaveRequest) -> None:
        self._worker.save_checkpoint(
            Path(request.path), global_step=request.global_step, weight_only=request.weight_only
        )

    def _load(self, request: LoadRequest) -> LoadReply:
        return self._worker.load_checkpoint(Path(request.path), weight_only=request.weight_only)

    def _info(self, _: None) -> WorkerInfo:
        return self._worker.worker_info()

    def _destroy(self, _: None) -> None:
        self._worker.destroy()
        self.stop()


def _resolve(reply: "Future[Any]", result: Any) -> None:
    """Give `reply` the result, or what a Future among results comes to."""
    if not isinstance(result, Future):
        reply.set_result(result)
        return

    def finish(done: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            reply.set_result(done.result())
        else:
            reply.set_exception(error)

    result.add_done_callback(finish)
