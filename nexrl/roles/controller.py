"""The controller process: every module that decides, wired together."""

import logging
import threading
from functools import partial
from pathlib import Path

from nexrl.activity import StallWatchdog
from nexrl.cluster import Identity, Role
from nexrl.config.schema import Recipe
from nexrl.controller import Bookkeeper, Checkpoints, Feeder, Modules, NexRLController, Summary, TaskMaker
from nexrl.data import CountTokens, create_data_loader
from nexrl.errors import NexRLError
from nexrl.metrics import EventLog, MetricLogger, create_sinks
from nexrl.models import count_prompt_tokens, load_tokenizer
from nexrl.pool import Ledger, TrajectoryPool
from nexrl.roles.reports import ReportDesk
from nexrl.roles.switchboard import RecorderCommands, Switchboard
from nexrl.store import StepsWriter
from nexrl.train_service import TrainServiceClient, create_train_service_client
from nexrl.trainers import create_trainer
from nexrl.types import LeaseRequest, RolloutReport
from nexrl.validator import Validator
from nexrl.weights import WeightSyncController, ZmqWeightPublisher

logger = logging.getLogger(__name__)

READ_AHEAD_BATCHES = 4
"""Batches of demonstrations that are prepared while earlier ones are trained; they have no weight version to age."""


class ControllerRole:
    """Listens first, so that the others can start; builds what needs them once they are there."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        self._recipe = recipe
        self._identity = identity
        self._run_dir = run_dir
        self._events = EventLog(run_dir / "events.jsonl")
        self._board = Switchboard(recipe, identity, run_dir, events=self._events, on_failure=self.fail)
        self._lock = threading.Lock()
        self._controller: NexRLController | None = None
        self._early: int | NexRLError | None = None

    def run(self) -> int:
        """The run's exit code; raises what ended it."""
        try:
            with Ledger(self._run_dir / "ledger", attempt=self._identity.attempt) as ledger:
                controller = self._build(ledger)
                with self._lock:
                    self._controller, early = controller, self._early
                if isinstance(early, NexRLError):
                    controller.fail(early)
                elif early is not None:
                    controller.stop(early)
                return controller.run()
        except NexRLError as error:
            if self._controller is not None or self._early is None:
                raise
            if isinstance(self._early, NexRLError):
                raise self._early from error
            return self._early  # asked to end before there was anything to end
        finally:
            self._board.shutdown()
            self._board.close()
            self._events.close()

    def stop(self, exit_code: int) -> None:
        """End after the step under way, with a checkpoint."""
        with self._lock:
            if self._controller is None:
                self._early = self._early or exit_code
                self._board.give_up()
                return
        self._controller.stop(exit_code)

    def fail(self, error: NexRLError) -> None:
        """End now."""
        with self._lock:
            if self._controller is None:
                self._early = self._early or error
                self._board.give_up()
                return
        self._controller.fail(error)
        self._board.shutdown()
        self._board.server.close()  # every call that waits for an answer fails now, not at its deadline

    def _build(self, ledger: Ledger) -> NexRLController:
        recipe, run_dir, board = self._recipe, self._run_dir, self._board
        pool = self._make_pool(ledger)
        tasks = TaskMaker(recipe)
        count = self._token_counter()
        feeder = Feeder(create_data_loader(recipe.data, count_tokens=count), pool, tasks, on_error=self.fail)
        validator = self._make_validator(pool, tasks, count)
        watchdog = StallWatchdog(
            recipe.runtime_monitor.stall_timeout,
            describe=lambda: "\n".join(
                filter(None, (pool.describe(), validator.describe() if validator else "", board.describe()))
            ),
            on_stall=self.fail,
        )
        recorders = RecorderCommands(board, timeout=recipe.comm.call_timeout)
        desk = ReportDesk(pool, validator, recorders, board.reporter, board.policy, watchdog, on_fatal=self.fail)
        board.server.expose("lease", LeaseRequest, desk.lease)
        board.server.expose("report", RolloutReport, desk.report)
        board.open()
        board.wait_for_all()
        service = self._make_train_service()
        bookkeeper = self._make_bookkeeper(ledger, recorders)
        modules = Modules(
            pool=pool,
            ledger=ledger,
            feeder=feeder,
            trainer=create_trainer(recipe, service),
            train_service=service,
            weights=self._make_weights(),
            validator=validator,
            checkpoints=self._make_checkpoints(service, bookkeeper),
            bookkeeper=bookkeeper,
            metrics=MetricLogger(create_sinks(recipe, run_dir), total_steps=recipe.trainer.total_train_steps),
            events=self._events,
            watchdog=watchdog,
            summary=Summary(run_dir),
        )
        return NexRLController(recipe, run_dir, modules, attempt=self._identity.attempt)

    def _make_pool(self, ledger: Ledger) -> TrajectoryPool:
        prompts = self._recipe.data.batch_size
        ahead = 1 if self._recipe.rollout_worker.need_llm_inference else READ_AHEAD_BATCHES
        return TrajectoryPool(
            self._recipe.trajectory_pool, groups_per_batch=prompts, slots=prompts * ahead, ledger=ledger
        )

    def _token_counter(self) -> CountTokens:
        """Tokens of a prompt, as a rollout worker would encode it."""
        tokenizer = load_tokenizer(self._recipe.service.actor_service.actor.model.path)
        return partial(count_prompt_tokens, tokenizer)

    def _make_validator(self, pool: TrajectoryPool, tasks: TaskMaker, count: CountTokens) -> Validator | None:
        data = self._recipe.validate.data
        if data is None:
            return None
        loader = create_data_loader(data.loader_config, count_tokens=count)
        return Validator(tasks.validation(loader), enqueue=pool.enqueue)

    def _make_train_service(self) -> TrainServiceClient:
        service = self._recipe.service.actor_service
        return create_train_service_client(
            service.backend,
            identifier=service.identifier,
            server=self._board.server,
            ranks=self._names(Role.TRAINER),
            timeout=self._recipe.comm.call_timeout,
        )

    def _make_weights(self) -> WeightSyncController | None:
        """Engines by HTTP, trainer ranks by command; None where there is nobody to send or to receive."""
        recipe = self._recipe
        if not recipe.rollout_worker.need_llm_inference or recipe.service.actor_service.backend == "mock":
            return None
        from nexrl.inference import HttpEngineControl  # only where an engine is asked

        timeout = recipe.weight.timeout
        engines = [
            HttpEngineControl(engine.name, engine.endpoints["http"], token=self._board.keys.http_token, timeout=timeout)
            for engine in self._board.wait_for(Role.INFERENCE)
        ]
        publisher = ZmqWeightPublisher(self._board.server, self._names(Role.TRAINER), timeout=timeout)
        return WeightSyncController(engines, publisher, timeout=timeout)

    def _make_bookkeeper(self, ledger: Ledger, recorders: RecorderCommands) -> Bookkeeper:
        return Bookkeeper(
            ledger,
            lambda step: StepsWriter(
                self._run_dir, attempt=self._identity.attempt, run_id=self._run_dir.name, from_step=step
            ),
            recorders,
            timeout=self._recipe.comm.call_timeout,
            on_error=self.fail,
        )

    def _make_checkpoints(self, service: TrainServiceClient, bookkeeper: Bookkeeper) -> Checkpoints:
        trainer = self._recipe.trainer
        return Checkpoints(
            self._run_dir / "checkpoints",
            service,
            save_freq=trainer.save_freq,
            keep=trainer.keep_checkpoints,
            before_publish=bookkeeper.flush,
            on_saved=lambda step, path: self._events.append("checkpoint", step=step, path=str(path)),
        )

    def _names(self, role: Role) -> list[str]:
        return [one.name for one in self._board.wait_for(role)]


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> ControllerRole:
    """For nexrl.roles.main."""
    return ControllerRole(recipe, identity, run_dir)
