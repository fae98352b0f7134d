"""The run's life: start, train, end."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from nexrl.activity import StallWatchdog
from nexrl.config.schema import Recipe
from nexrl.controller.bookkeeper import Bookkeeper
from nexrl.controller.checkpoints import Checkpoints, newest_checkpoint
from nexrl.controller.ending import code_of, first_error, in_words
from nexrl.controller.feeder import Feeder
from nexrl.controller.progress import FORMAT, ControllerState, Progress
from nexrl.controller.summary import Outcome, Summary
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

SKIPPED_IN_A_ROW = 10
"""Steps with nothing to learn from, one after the other, that the log warns of."""

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
        self._skipped = 0
        self._skipped_in_a_row = 0
        self._ended = ""

    def run(self) -> int:
        """Train to the end; the exit code is 0, or that of `stop`. Raises what `fail` was given or what ended the loop:
        the first error, whatever else fails while the run is closed. The summary is written in every case."""
        error: Exception | None = None
        cause: BaseException | None = None
        try:
            self._life()
        except NexRLError as caught:
            error = self._failure or caught
            cause = caught if error is not caught else caught.__cause__
        except SystemExit as exit_:  # a trainer of one's own
            error, cause = NexRLError(f"SystemExit: {exit_.code}"), exit_
        except Exception as bug:  # noqa: BLE001 - raised again below
            error, cause = bug, bug.__cause__
        error = self._close(error)
        if error is not None:
            raise error from cause
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
        except _Interrupted as reason:
            logger.info("training ends after step %d: %s", self._progress.step, reason)
        except _OutOfData as reason:
            self._ended = str(reason)
            logger.warning("%s", reason)
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
                self._count_skipped(report)
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

    def _close(self, error: Exception | None) -> Exception | None:
        """End every module, whatever fails on the way, and write the summary. Returns the first error of the run; those
        that follow are logged."""
        m = self._m
        m.watchdog.close()
        self._unblock(error if isinstance(error, NexRLError) else _Interrupted("the run is over"))
        append = m.events.append
        closing = (m.bookkeeper.close, m.pool.write_off, m.ledger.close, m.metrics.close)
        joining = (partial(append, "phase", name="stopping"), partial(m.feeder.join, _JOIN_SECONDS))
        error = first_error(error, (*joining, *closing))
        if error is not None:
            told = in_words(error)
            first_error(error, [partial(append, "error", role="controller-0", severity="critical", message=told)])
        error = first_error(error, [partial(self._summarize, error)])
        return first_error(error, [partial(append, "done", exit_code=self._code_of(error))])

    def _code_of(self, error: Exception | None) -> int:
        return self._exit_code if error is None else code_of(error)

    def _summarize(self, error: Exception | None) -> None:
        outcome = Outcome(
            exit_code=self._code_of(error),
            error=in_words(error),
            steps=self._progress.step,
            dropped=self._m.pool.lost,
            skipped_steps=self._skipped,
            ended=self._ended,
        )
        self._m.summary.write(outcome, phases=self._m.metrics.phase_seconds)

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
        them in a row, or data of which nothing else is left, are a StallError."""
        pool, total = self._m.pool, self._recipe.trainer.total_train_steps
        for _ in range(MAX_EMPTY_BATCHES):
            if groups := pool.take_batch():
                return groups
            if pool.exhausted:
                break
            logger.warning("every prompt of a batch was dropped: going on with the next")
        if pool.exhausted and self._progress.step > 0 and not pool.lost_since_batch:
            raise _OutOfData(f"data ended after step {self._progress.step} of {total} (data.epochs)")
        if not pool.lost_since_batch:
            raise StallError(f"nothing to train on after step {self._progress.step}: the data gave no prompt at all")
        raise StallError(
            f"nothing to train on after step {self._progress.step}: every prompt was dropped, {MAX_EMPTY_BATCHES} "
            f"batches in a row or all that was left of the data; ledger/{self._attempt}.jsonl has the reason for each, "
            f"the last one is {pool.last_drop}"
        )

    def _count_skipped(self, report: TrainReport) -> None:
        self._skipped += report.skipped
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if report.skipped else 0
        if self._skipped_in_a_row and self._skipped_in_a_row % SKIPPED_IN_A_ROW == 0:
            logger.warning(
                "%d steps in a row had nothing to learn from, step %d the last (training/skipped): with GRPO, all "
                "samples of each prompt earned the same",
                self._skipped_in_a_row,
                self._progress.step + 1,
            )

    def _advance(self, groups: Sequence[TrajectoryGroup], report: TrainReport, step: StepMetrics) -> None:
        rows = report.batch.rows
        tokens = sum(header.num_tokens for group in groups for header in group.headers)
        version = self._progress.version if self._m.train_service.changes_weights else 0
        self._progress = self._progress.advanced(
            tokens=sum(row.num_trained for row in rows), trajectories=sum(len(group.headers) for group in groups)
        )
        step.count_tokens(tokens)
        prompts = self._m.pool.mark_trained(report.batch.group_ids)
        self._m.feeder.settle(prompts)
        let_go = self._m.pool.take_let_go()
        self._m.bookkeeper.trained(report.batch, groups, prompts, weight_version=version, let_go=let_go)

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
