"""Who works on what: tasks that wait, workers that wait, and the samples in between."""

import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import msgspec

from nexrl.types import Task

LeaseFuture = Future[list[Task]]
"""Resolved with tasks, or at the end of the run with none."""

Handed = tuple[LeaseFuture, list[Task]]
"""A lease to resolve, and what with: done by the pool when its lock is free, as callbacks may come back to it."""


@dataclass(frozen=True)
class Lease:
    """A sample that a worker has."""

    worker: str
    task: Task
    since: float


@dataclass(frozen=True)
class _Waiting:
    worker: str
    limit: int
    future: LeaseFuture


class Leases:
    """Hands out tasks first come, first served: reissues first, then validation, then new prompts. Not thread-safe."""

    def __init__(self, wanted: Callable[[int, Task], bool]) -> None:
        """`wanted(run_id, task)`: whether anyone still waits for this sample when its turn has come."""
        self._wanted = wanted
        self._count = itertools.count()
        self._queue: list[tuple[int, int, Task]] = []
        self._waiting: list[_Waiting] = []
        self._workers: set[str] = set()
        self._leased: dict[tuple[str, int], Lease] = {}

    def __len__(self) -> int:
        """Tasks that wait for a worker."""
        return len(self._queue)

    @property
    def leased(self) -> list[Lease]:
        """One per sample under way, oldest first."""
        return sorted(self._leased.values(), key=lambda lease: lease.since)

    @property
    def waiting_workers(self) -> list[str]:
        """Workers that have asked and got nothing yet."""
        return [waiting.worker for waiting in self._waiting]

    def add(self, task: Task) -> None:
        """Queue a task."""
        priority = 0 if task.attempt else 1 if task.is_val else 2
        heapq.heappush(self._queue, (priority, next(self._count), task))

    def ask(self, worker: str, limit: int) -> tuple[LeaseFuture, list[LeaseFuture]]:
        """A lease to wait for, and those of the same worker that it supersedes."""
        superseded = self._forget_waiting(worker)
        self._workers.add(worker)
        future: LeaseFuture = Future()
        self._waiting.append(_Waiting(worker, limit, future))
        return future, superseded

    def match(self, now: float) -> list[Handed]:
        """Give waiting workers what there is; each at most its share, so that several workers share a batch."""
        handed: list[Handed] = []
        while self._waiting and self._has_work():
            waiting = self._waiting.pop(0)
            if waiting.future.set_running_or_notify_cancel():
                share = math.ceil(len(self._queue) / len(self._workers))
                handed.append((waiting.future, self._pop(min(waiting.limit, share), waiting.worker, now)))
        return handed

    def end(self, group_id: str, run_ids: Iterable[int]) -> None:
        """These samples are no longer under way."""
        for run_id in run_ids:
            self._leased.pop((group_id, run_id), None)

    def purge(self) -> None:
        """Forget tasks and samples that nobody waits for any more."""
        self._queue = [entry for entry in self._queue if self._wanted_runs(entry[2])]
        heapq.heapify(self._queue)
        self._leased = {key: lease for key, lease in self._leased.items() if self._wanted(key[1], lease.task)}

    def lose(self, worker: str) -> tuple[list[Task], list[LeaseFuture]]:
        """Forget a worker: the tasks that it had, naming only the samples under way, and its waiting leases."""
        self._workers.discard(worker)
        lost: dict[tuple[str, int], list[int]] = defaultdict(list)
        tasks: dict[tuple[str, int], Task] = {}
        for (group_id, run_id), lease in list(self._leased.items()):
            if lease.worker == worker:
                del self._leased[group_id, run_id]
                if not self._wanted(run_id, lease.task):
                    continue
                lost[group_id, lease.task.attempt].append(run_id)
                tasks[group_id, lease.task.attempt] = lease.task
        unfinished = [msgspec.structs.replace(tasks[key], run_ids=tuple(runs)) for key, runs in lost.items()]
        return unfinished, self._forget_waiting(worker)

    def close(self) -> list[LeaseFuture]:
        """Forget everything; the leases that still wait."""
        futures = [waiting.future for waiting in self._waiting]
        self._waiting.clear()
        self._queue.clear()
        self._leased.clear()
        return futures

    def _has_work(self) -> bool:
        """Whether a task waits that anyone wants; others are thrown away."""
        while self._queue and not self._wanted_runs(self._queue[0][2]):
            heapq.heappop(self._queue)
        return bool(self._queue)

    def _pop(self, limit: int, worker: str, now: float) -> list[Task]:
        tasks: list[Task] = []
        while len(tasks) < limit and self._has_work():
            queued = heapq.heappop(self._queue)[2]
            task = msgspec.structs.replace(queued, run_ids=self._wanted_runs(queued))
            tasks.append(task)
            self._leased |= {(task.group_id, run_id): Lease(worker, task, now) for run_id in task.run_ids}
        return tasks

    def _wanted_runs(self, task: Task) -> tuple[int, ...]:
        return tuple(run_id for run_id in task.run_ids if self._wanted(run_id, task))

    def _forget_waiting(self, worker: str) -> list[LeaseFuture]:
        futures = [waiting.future for waiting in self._waiting if waiting.worker == worker]
        self._waiting = [waiting for waiting in self._waiting if waiting.worker != worker]
        return futures
