"""Collects one validation pass at a time."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from nexrl.errors import InferenceError, NexRLError, error_named
from nexrl.types import SampleFailure, SampleResult, Task, TrajectoryHeader
from nexrl.validator.metrics import validation_metrics

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
"""Tries of a failed validation sample; after that it is reported in `val/<name>_failed`."""


class Validator:
    """`run` issues the held-out tasks of every way to sample and waits for all of them.

    `put` and `fail` are called from the threads that hear from rollout workers, `close` from the one that ends the
    run; `run` itself blocks the controller's loop, so nothing is trained meanwhile.
    """

    def __init__(self, tasks: Callable[[int], dict[str, list[Task]]], *, enqueue: Callable[[Task], None]) -> None:
        """`tasks(step)` makes the tasks of one pass by name of the way to sample; `enqueue` leases them out."""
        self._tasks = tasks
        self._enqueue = enqueue
        self._condition = threading.Condition()
        self._missing: dict[tuple[str, int], Task] = {}
        """Group and run id → the task that was issued last for this sample."""
        self._headers: list[TrajectoryHeader] = []
        self._failed = 0
        self._last_reason = ""
        self._closed: NexRLError | None = None

    def run(self, step: int) -> dict[str, float]:
        """Metrics of a pass over all ways to sample. Raises what `close` was given, and where every sample of a way
        failed the error that the last of them named (InferenceError where it named none of ours)."""
        started = time.monotonic()
        metrics: dict[str, float] = {}
        for name, tasks in self._tasks(step).items():
            headers, failed = self._collect(tasks)
            self._judge(name, failed, of=failed + len(headers), step=step)
            metrics |= validation_metrics(name, headers, failed=failed)
        return metrics | {"timing/validation": time.monotonic() - started}

    def put(self, result: SampleResult) -> None:
        """One sample has ended; what no pass waits for any more is ignored."""
        with self._condition:
            if self._missing.pop((result.group_id, result.run_id), None) is not None:
                self._headers.extend(result.headers)
                self._condition.notify_all()

    def fail(self, failure: SampleFailure) -> None:
        """Samples have failed: issued again, or counted as failed after MAX_ATTEMPTS; what is in already, or has been
        issued again since, is ignored."""
        again = self._failed_again(failure)
        if again is not None:
            self._enqueue(again)

    def close(self, error: NexRLError) -> None:
        """End a waiting `run` with `error`."""
        with self._condition:
            self._closed = error
            self._condition.notify_all()

    def describe(self) -> str:
        """What a running pass waits for, for the stall watchdog."""
        with self._condition:
            return f"validation: {len(self._missing)} samples missing" if self._missing else ""

    def _judge(self, name: str, failed: int, *, of: int, step: int) -> None:
        """A pass with failures is worth a warning; one of nothing but failures says nothing of the policy."""
        if not failed:
            return
        where = f" (validation {name!r} after step {step}: all {failed} samples failed {MAX_ATTEMPTS} times)"
        if failed == of:
            raise error_named(self._last_reason, otherwise=InferenceError, where=where)
        logger.warning(
            "validation %r after step %d: %d samples failed and count in no mean, the last by %s",
            name,
            step,
            failed,
            self._last_reason,
        )

    def _failed_again(self, failure: SampleFailure) -> Task | None:
        """The task that tries the failed samples again, if they have attempts left."""
        with self._condition:
            missing = {
                run_id: task
                for run_id in failure.run_ids
                if (task := self._missing.get((failure.group_id, run_id))) and task.attempt == failure.attempt
            }
            if not missing:
                return None
            keys = [(failure.group_id, run_id) for run_id in missing]
            if failure.attempt + 1 < MAX_ATTEMPTS:
                task = next(iter(missing.values()))
                again = msgspec.structs.replace(task, run_ids=tuple(missing), attempt=failure.attempt + 1)
                self._missing |= dict.fromkeys(keys, again)
                return again
            for key in keys:
                del self._missing[key]
            self._failed += len(keys)
            self._last_reason = failure.reason
            self._condition.notify_all()
            return None

    def _collect(self, tasks: Sequence[Task]) -> tuple[list[TrajectoryHeader], int]:
        with self._condition:
            self._missing = {(task.group_id, run_id): task for task in tasks for run_id in task.run_ids}
            self._headers, self._failed = [], 0
            if self._closed is not None:
                raise self._closed
        for task in tasks:
            self._enqueue(task)
        with self._condition:
            self._condition.wait_for(lambda: not self._missing or self._closed is not None)
            if self._closed is not None:
                raise self._closed
            return list(self._headers), self._failed
