"""The run's life: start, train, end."""

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nexrl.activity import StallWatchdog
from nexrl.config.schema import Recipe
from nexrl.controller.bookkeeper import Bookkeeper
from nexrl.controller.checkpoints import Checkpoints, newest_checkpoint
from nexrl.controller.feeder import Feeder
from nexrl.controller.progress import FORMAT, ControllerState, Progress
from nexrl.controller.summary import Summary
from nexrl.errors import EXIT_OK, NexRLError, StallError
from nexrl.metrics import EventLog, MetricLogger, StepMetrics
from nexrl.pool import Ledger, TrajectoryPool
from nexrl.train_service import TrainServiceClient
from nexrl.trainers import BaseTrainer, TrainReport
from nexrl.types import TrajectoryGroup
from nexrl.weights import WeightSyncController

logger = logging.getLogger(__name__)

MAX_EMPTY_BATCHES = 3
"""Batches in a row without a single prompt that was not dropped: something is broken for all of them."""

_JOIN_SECONDS = 10.0


class Validation(Protocol):
    """What the loop needs of a validator (nexrl.validator)."""

    def run(self, step: int) -> dict[str, float]:
        """Figures of one pass with the weights of `step`; raises what `close` was given."""
        ...

    def close(self, error: NexRLError) -> None:
        """End a waiting `run`."""
        ...


class _Interrupted(NexRLError):
    """A wait was ended by `stop`."""


class _OutOfData(NexRLError):
    """No batch will come any more."""


@dataclass(frozen=True, kw_only=True)
class Modules:
    """What a controller coordinates; made by nexrl.roles."""

    pool: TrajectoryPool
    ledger: Ledger
    feeder: Feeder
    trainer: BaseTrainer
    train_service: TrainServiceClient
    weights: WeightSyncController | None
    """None where no engine is asked."""
    validator: Validation | None
    checkpoints: Checkpoints
    bookkeeper: Bookkeeper
    metrics: MetricLogger
    events: EventLog
    watchdog: StallWatchdog
    summary: Summary


class NexRLController:
    """Runs the loop on the caller's thread. `stop` and `fail` come from other threads and make every wait end."""

    def __init__(self, recipe: Recipe, run_dir: Path, modules: Modules, *, attempt: int) -> None:
        self._recipe = recipe
        self._run_dir = run_dir
        self._m = modules
        self._attempt = attempt
        self._progress = Progress()
        self._lock = threading.Lock()
        self._stopping = False
        self._exit_code = EXIT_OK
        self._failure: NexRLError | None = None

    def run(self) -> int:
        """Train to the end; the exit code is 0, or that of `stop`. Raises what `fail` was given or what ended the loop.
        The summary is written in every case."""
        error: NexRLError | None = None
        try:
            self._life()
        except NexRLError as caught:
            error = self._failure or caught
            raise error from caught
        except Exception as bug:
            error = NexRLError(f"{type(bug).__name__}: {bug}")  # for the books; the log has the traceback
            raise
        finally:
            self._close(error)
        return self._exit_code

    def stop(self, exit_code: int) -> None:
        """End after the step under way, with a checkpoint."""
        with self._lock:
            self._exit_code = self._exit_code or exit_code
            self._stopping = True
        self._unblock(_Interrupted(f"asked to end with exit code {exit_code}"))

    def fail(self, error: NexRLError) -> None:
        """End now; the first error counts."""
        with self._lock:
            self._failure = self._failure or error
            self._stopping = True
        self._unblock(error)

    def _life(self) -> None:
        try:
            self._prepare()
            self._train()
        except (_Interrupted, _OutOfData) as reason:
            logger.info("training ends after step %d: %s", self._progress.step, reason)
        try:
            self._validate_at_end()
        except _Interrupted as reason:
            logger.info("the last validation was broken off: %s", reason)
        self._save()
        if self._failure is not None:
            raise self._failure

    def _prepare(self) -> None:
        """Models loaded, checkpoint resumed, weights published, first validation."""
        m = self._m
        m.events.append("phase", name="starting")
        m.watchdog.start()
        with m.metrics.phase("starting"):
            m.trainer.initialize_workers()
            self._resume()
            m.bookkeeper.start(self._progress.step)
            self._publish()
        m.feeder.start()
        if self._recipe.validate.validate_before_train and self._progress.step == 0:
            self._validate("before")

    def _train(self) -> None:
        """Consumes batches of the pool; waits for finished groups; unblocked by `pool.put`, `stop` and `fail`."""
        m = self._m
        m.events.append("phase", name="training")
        while not self._check_finish():
            with m.metrics.step(self._progress) as step:
                with m.metrics.phase("rollout"):
                    groups = self._take_batch()
                with m.metrics.phase("train"):
                    report = m.trainer.train(groups, step=self._progress.step + 1)
                step.log(report.metrics | m.pool.metrics())
                self._advance(groups, report, step)
                if m.checkpoints.due(self._progress.step):
                    with m.metrics.phase("save"):
                        m.checkpoints.save(self._state())
                with m.metrics.phase("publish"):
                    self._publish()
                if not self._all_steps_done():
                    m.pool.release(report.batch.group_ids)
            m.checkpoints.poll()
            m.watchdog.progressed(f"training step {self._progress.step}")
            if self._validation_due():
                self._validate("step")
                m.events.append("phase", name="training")

    def _validate_at_end(self) -> None:
        if self._recipe.validate.validate_at_end and not self._stopping:
            self._validate("end")

    def _save(self) -> None:
        """The export, unless the run was asked to stop; the last checkpoint; all that was trained written down."""
        m = self._m
        m.events.append("phase", name="saving")
        if self._recipe.trainer.export_hf and not self._stopping:
            with m.metrics.phase("export"):
                m.train_service.export_hf(str(self._run_dir / "hf"))
        with m.metrics.phase("save"):
            m.checkpoints.wait()
            if self._progress.step > 0:
                m.checkpoints.save(self._state())
                m.checkpoints.wait()
            m.bookkeeper.flush()
            m.bookkeeper.close()  # while what goes wrong can still end the run with its error

    def _close(self, error: NexRLError | None) -> None:
        m = self._m
        told = "" if error is None else f"{type(error).__name__}: {error}"
        exit_code = self._exit_code if error is None else error.exit_code
        with ExitStack() as closing:  # the last one first; one that fails keeps none of the others from its end
            closing.callback(m.events.append, "done", exit_code=exit_code)
            closing.callback(self._summarize, exit_code, told)
            closing.callback(m.metrics.close)
            closing.callback(m.ledger.close)
            closing.callback(m.pool.write_off)
            closing.callback(m.bookkeeper.close)
            closing.callback(m.feeder.join, _JOIN_SECONDS)
            m.watchdog.close()
            self._unblock(error or _Interrupted("the run is over"))
            if told:
                m.events.append("error", role="controller-0", severity="critical", message=told)
            m.events.append("phase", name="stopping")

    def _summarize(self, exit_code: int, told: str) -> None:
        phases = self._m.metrics.phase_seconds
        self._m.summary.write(exit_code=exit_code, steps=self._progress.step, phases=phases, error=told)

    def _resume(self) -> None:
        """Weights, optimizer, data position and progress of the checkpoint that `resume` names; the ledger goes back to
        where this run folder's own checkpoint left it, or to its beginning."""
        resume = self._recipe.resume
        path = Path(resume.resume_path) if resume.mode == "from_path" else None
        if resume.mode == "auto":
            path = newest_checkpoint(self._run_dir / "checkpoints")
        if path is None:
            if self._attempt > 1:
                self._m.ledger.truncate_after(0, attempt=0)
            return
        state = self._m.checkpoints.load(path)
        self._m.feeder.restore(state.loader)
        if resume.mode == "auto":
            self._m.ledger.truncate_after(state.ledger_offset, attempt=state.attempt)
            for group_id in state.open_groups:
                self._m.ledger.dropped(group_id, "resumed", detail="issued again by the next attempt")
        self._progress = state.progress
        self._m.events.append("resumed", step=state.progress.step, path=str(path))
        logger.info("resumed %s at step %d", path, state.progress.step)

    def _take_batch(self) -> list[TrajectoryGroup]:
        """The next batch with anything in it. One whose prompts were all dropped is passed over; MAX_EMPTY_BATCHES of
        them in a row, or data that came to nothing else, are a StallError."""
        for _ in range(MAX_EMPTY_BATCHES):
            if groups := self._m.pool.take_batch():
                return groups
            if self._m.pool.exhausted:
                break
            logger.warning("every prompt of a batch was dropped: going on with the next")
        if self._m.pool.exhausted and self._progress.step > 0:
            raise _OutOfData("the data has ended (data.epochs)")
        raise StallError(
            f"nothing to train on after step {self._progress.step}: every prompt was dropped, {MAX_EMPTY_BATCHES} "
            f"batches in a row or all of the data; ledger/{self._attempt}.jsonl has the reason for each"
        )

    def _advance(self, groups: Sequence[TrajectoryGroup], report: TrainReport, step: StepMetrics) -> None:
        rows = report.batch.rows
        tokens = sum(header.num_tokens for group in groups for header in group.headers)
        self._progress = self._progress.advanced(
            tokens=sum(row.num_trained for row in rows), trajectories=sum(len(group.headers) for group in groups)
        )
        step.count_tokens(tokens)
        prompts = self._m.pool.mark_trained(report.batch.group_ids)
        self._m.feeder.settle(prompts)
        self._m.bookkeeper.trained(report.batch, groups, prompts, let_go=self._m.pool.take_let_go())

    def _publish(self) -> None:
        if self._m.weights is not None:
            self._m.weights.publish(self._progress.version)

    def _validate(self, when: str) -> None:
        m, step = self._m, self._progress.step
        if m.validator is None:
            return
        m.events.append("phase", name="validating")
        with m.metrics.phase("validation"):
            metrics = m.validator.run(step)
        m.metrics.validation(step, metrics)
        m.events.append("validation", when=when, step=step, metrics=metrics)
        m.summary.validated(when, metrics)
        m.watchdog.progressed(f"validation after step {step}")

    def _validation_due(self) -> bool:
        frequency = self._recipe.validate.validate_freq
        last = self._all_steps_done()
        return (
            frequency > 0
            and self._progress.step % frequency == 0
            and not (last and self._recipe.validate.validate_at_end)
        )

    def _state(self) -> ControllerState:
        """A consistent cut: what was trained is in the ledger, what was not is in the replay queue."""
        self._m.bookkeeper.flush()
        position = self._m.feeder.capture()
        return ControllerState(
            format=FORMAT,
            progress=self._progress,
            loader=position.loader,
            open_groups=position.open_groups,
            ledger_offset=position.ledger_offset,
            attempt=self._attempt,
        )

    def _check_finish(self) -> bool:
        """Whether all steps are done; raises what `stop` or `fail` brought."""
        self._check_stopped()
        return self._all_steps_done()

    def _all_steps_done(self) -> bool:
        return self._progress.step >= self._recipe.trainer.total_train_steps

    def _check_stopped(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._stopping:
            raise _Interrupted(f"asked to end with exit code {self._exit_code}")

    def _unblock(self, reason: NexRLError) -> None:
        """Every wait of the loop ends."""
        self._m.pool.close(reason)
        if self._m.validator is not None:
            self._m.validator.close(reason)
