"""A rollout process."""

import threading
from concurrent.futures import Future
from pathlib import Path

from nexrl.cluster import Identity
from nexrl.comm import RpcClient
from nexrl.config.schema import Recipe
from nexrl.errors import CommError, NexRLError
from nexrl.evaluators import create_evaluator
from nexrl.models import load_tokenizer
from nexrl.roles.recorders import RecorderSink, connect_recorder
from nexrl.roles.session import Session
from nexrl.rollout import RolloutContext, RolloutRunner, create_rollout_worker
from nexrl.types import LeaseRequest, RolloutReport, Task
from nexrl.types.protocols import EngineClient

_LEASE_TIMEOUT = 3600.0 * 24
"""A lease is answered when there is work; a controller that dies closes the connection."""


class RolloutRole:
    """Worker, recorder connection and engine client of one process."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        self._session = session = Session(recipe, identity, run_dir)
        self._recipe = recipe
        self._tokenizer = load_tokenizer(recipe.service.actor_service.actor.model.path)
        self._evaluator = create_evaluator(recipe.rollout_worker)
        self._runner: RolloutRunner | None = None
        self._bulk: RpcClient | None = None
        threading.Thread(target=self._end_with_session, daemon=True, name="shutdown").start()
        session.register({})

    def run(self) -> int:
        """Until the pool has no more tasks, or shutdown."""
        session = self._session
        try:
            [recorder, *_] = session.discover("recorder")  # one node: one recorder
            self._bulk = bulk = connect_recorder(
                recorder, keys=session.keys, name=session.identity.name, comm=self._recipe.comm
            )
            context = RolloutContext(
                config=self._recipe.rollout_worker,
                tokenizer=self._tokenizer,
                evaluator=self._evaluator,
                client=self._engine_client(),
                name=session.worker_name,
            )
            self._runner = RolloutRunner(
                create_rollout_worker(context),
                sink=RecorderSink(recorder.name, bulk, timeout=self._recipe.comm.call_timeout),
                lease=self._lease,
                report=self._report,
                tracker=session.tracker,
            )
            self._runner.run()
        except CommError:
            if not session.stopped.is_set():  # the end of the run hangs up on a waiting lease
                raise
        except NexRLError as error:
            session.failed(error, work="rollout")
        finally:
            session.close()
        return 0

    def stop(self, exit_code: int) -> None:
        """Start nothing more."""
        self._session.stopped.set()

    def _end_with_session(self) -> None:
        self._session.stopped.wait()
        if self._runner is not None:
            self._runner.stop()
        self._session.rpc.close()
        if self._bulk is not None:
            self._bulk.close()  # a recorder that is gone would never answer

    def _engine_client(self) -> EngineClient | None:
        if not self._recipe.rollout_worker.need_llm_inference:
            return None
        from nexrl.inference import HttpEngineClient  # only where an engine is asked

        config = self._recipe.service.inference_service
        engines = self._session.discover("inference")
        return HttpEngineClient(
            [engine.endpoints["http"] for engine in engines],
            token=self._session.keys.http_token,
            model=config.model,
            max_retries=config.max_retries,
            request_timeout=config.request_timeout,
        )

    def _lease(self, limit: int) -> "Future[list[Task]]":
        return self._session.rpc.call_async("lease", LeaseRequest(limit), list[Task], timeout=_LEASE_TIMEOUT)

    def _report(self, report: RolloutReport) -> None:
        self._session.rpc.call("report", report, None, timeout=self._recipe.comm.call_timeout)


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> RolloutRole:
    """For nexrl.roles.main."""
    return RolloutRole(recipe, identity, run_dir)
