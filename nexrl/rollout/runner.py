"""The loop of a rollout process.

| loop     | consumes                   | waits for                                 | unblocked by                     |
|----------|----------------------------|-------------------------------------------|----------------------------------|
| run      | tasks leased from the pool | a free place, then a task (long poll)     | an episode's end; the pool; stop |
| episodes | one task each              | engine and tools                          | their own deadlines              |
| outbox   | ended episodes             | the next one; sends all there are at once | an episode's end; the end of run |
| deadline | running episodes           | the earliest deadline                     | a new episode; stop              |
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from nexrl.activity import ActivityTracker
from nexrl.errors import ConfigError, DataError, RefusedRequestError, RewardError
from nexrl.rollout.base import BaseRolloutWorker
from nexrl.types import RolloutReport, SampleFailure, SampleResult, Task, Trajectory
from nexrl.types.protocols import TrajectorySink

logger = logging.getLogger(__name__)

_FATAL = (RewardError, DataError, ConfigError, RefusedRequestError)
"""Errors that another attempt would meet again."""

_Key = tuple[str, int, tuple[int, ...]]
"""Group, attempt, run ids: an episode that runs."""


@dataclass(frozen=True)
class _Ended:
    task: Task
    rollouts: Mapping[int, Sequence[Trajectory]] | None
    error: BaseException | None


class RolloutRunner:
    """Leases tasks, runs each on a thread of its own, delivers trajectories to the recorder, then reports headers."""

    def __init__(
        self,
        worker: BaseRolloutWorker,
        *,
        sink: TrajectorySink,
        lease: "Callable[[int], Future[list[Task]]]",
        report: Callable[[RolloutReport], None],
        tracker: ActivityTracker,
    ) -> None:
        """`lease(limit)` resolves when there is at least one task, and with none at the end of the run."""
        self._worker = worker
        self._sink = sink
        self._lease = lease
        self._report = report
        self._tracker = tracker
        self._free = worker.config.concurrency
        self._outbox: queue.SimpleQueue[_Ended | None] = queue.SimpleQueue()
        self._lock = threading.Condition()
        self._running: dict[_Key, tuple[Task, float]] = {}
        self._stopped = False
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Until the pool has no more tasks to give, or `stop`; episodes that still run are given up then. Raises what
        a lease failed with, and what ended the outbox."""
        helpers = [threading.Thread(target=loop, daemon=True) for loop in (self._deliver, self._watch_deadlines)]
        for helper in helpers:
            helper.start()
        try:
            while tasks := self._next_tasks():
                for task in tasks:
                    self._start(task)
        finally:
            self.stop()
            self._outbox.put(None)
            for helper in helpers:
                helper.join()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Start no more episodes; `run` returns when what has ended by now is delivered."""
        with self._lock:
            self._stopped = True
            self._lock.notify_all()

    def _next_tasks(self) -> list[Task]:
        with self._lock:
            self._lock.wait_for(lambda: self._free > 0 or self._stopped)
            if self._stopped:
                return []
            places = self._free
        leased = self._lease(places)
        leased.add_done_callback(lambda _: self._wake())
        with self._lock:
            self._lock.wait_for(lambda: leased.done() or self._stopped)
            return [] if self._stopped else leased.result()

    def _wake(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def _start(self, task: Task) -> None:
        with self._lock:
            self._free -= 1
            self._running[_key(task)] = (task, time.monotonic() + self._worker.config.episode_timeout)
            self._lock.notify_all()
        threading.Thread(target=self._episode, args=(task,), daemon=True, name=f"episode {task.group_id}").start()

    def _episode(self, task: Task) -> None:
        rollouts: Mapping[int, Sequence[Trajectory]] | None = None
        error: BaseException | None = None
        try:
            with self._tracker.track(self._worker.context.name, f"episode {task.group_id}", auto_report_errors=False):
                rollouts = self._worker.rollout(task)
            _check_complete(task, rollouts)
        except BaseException as caught:  # SystemExit too: code of the user's must not end an episode unseen
            logger.debug("episode %s", task.group_id, exc_info=True)
            error = caught
            rollouts = None
        self._ended(_Ended(task, rollouts, error))

    def _ended(self, ended: _Ended) -> None:
        with self._lock:
            if self._running.pop(_key(ended.task), None) is None:
                return  # given up at its deadline
            self._free += 1
            self._lock.notify_all()
        self._outbox.put(ended)

    def _watch_deadlines(self) -> None:
        while True:
            with self._lock:
                if self._stopped:
                    return
                now = time.monotonic()
                late = [task for task, deadline in self._running.values() if deadline <= now]
                if not late:
                    earliest = min((deadline for _, deadline in self._running.values()), default=None)
                    self._lock.wait(None if earliest is None else earliest - now)
                    continue
            for task in late:
                seconds = self._worker.config.episode_timeout
                self._ended(
                    _Ended(task, None, TimeoutError(f"no end after rollout_worker.episode_timeout = {seconds} s"))
                )

    def _deliver(self) -> None:
        try:
            while (first := self._outbox.get()) is not None:
                ended = [first, *_drain(self._outbox)]
                with self._tracker.track(self._worker.context.name, f"delivering {len(ended)} rollouts"):
                    self._send([one for one in ended if one is not None])
                if None in ended:
                    return
        except Exception as error:  # noqa: BLE001 - `run` raises it
            self._failure = error
            self.stop()

    def _send(self, ended: list[_Ended]) -> None:
        samples = [
            (one.task, run_id, list(rows)) for one in ended if one.rollouts for run_id, rows in one.rollouts.items()
        ]
        headers = iter(self._sink.append([row for _, _, rows in samples for row in rows]) if samples else ())
        results = [
            SampleResult(
                group_id=task.group_id,
                run_id=run_id,
                attempt=task.attempt,
                is_val=task.is_val,
                headers=tuple(next(headers) for _ in rows),
            )
            for task, run_id, rows in samples
        ]
        failures = [_failure(one.task, one.error) for one in ended if one.error is not None]
        self._report(RolloutReport(results=tuple(results), failures=tuple(failures)))


def _key(task: Task) -> _Key:
    return (task.group_id, task.attempt, task.run_ids)


def _drain(outbox: "queue.SimpleQueue[_Ended | None]") -> list[_Ended | None]:
    """What is there already: rollouts that end together travel together."""
    drained: list[_Ended | None] = []
    while True:
        try:
            drained.append(outbox.get_nowait())
        except queue.Empty:
            return drained


def _check_complete(task: Task, rollouts: Mapping[int, Sequence[Trajectory]]) -> None:
    missing = [run_id for run_id in task.run_ids if not rollouts.get(run_id)]
    if missing:
        raise DataError(f"task {task.task_id}: the rollout worker returned no trajectory for run ids {missing}")


def _failure(task: Task, error: BaseException) -> SampleFailure:
    logger.warning(
        "rollout of %s (attempt %d) failed: %s: %s", task.group_id, task.attempt, type(error).__name__, error
    )
    return SampleFailure(
        group_id=task.group_id,
        run_ids=task.run_ids,
        attempt=task.attempt,
        is_val=task.is_val,
        reason=f"{type(error).__name__}: {error}",
        fatal=isinstance(error, _FATAL),
    )
