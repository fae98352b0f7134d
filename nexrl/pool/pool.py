"""The controller's account of prompts between data and trainer: headers only, arrays stay with the recorders.

| who calls         | verbs                                   | waits for       | unblocked by                |
|-------------------|-----------------------------------------|-----------------|-----------------------------|
| feeder            | wait_for_slot, admit, end_of_data       | a free slot     | release, a drop, close      |
| rollout workers   | lease, put, fail, settle, worker_lost   | a task (future) | admit, enqueue, fail, close |
| controller's loop | take_batch, mark_trained, release, drop | a ready batch   | put, fail, a timeout, close |
| validator         | enqueue                                 | nothing         |                             |
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition

from nexrl.config.schema import TrajectoryPoolConfig
from nexrl.errors import CommError, NexRLError
from nexrl.pool import diagnosis
from nexrl.pool.leases import LeaseFuture, Leases
from nexrl.pool.ledger import Ledger
from nexrl.pool.prompt_book import PromptBook
from nexrl.types import Task, TrajectoryGroup, TrajectoryHeader


class PoolClosed(Exception):
    """Nobody waits for a batch of a closed pool but by mistake."""


COUNTERS = ("issued", "finished", "partial", "dropped", "trained", "reissued", "late", "duplicate", "lost_workers")
"""`pool/<name>` in metrics: prompts, but `reissued`, `late` and `duplicate` count samples."""


class TrajectoryPool:
    """Slots, leases, groups, batches and the ledger. Every method may be called from any thread."""

    def __init__(
        self,
        config: TrajectoryPoolConfig,
        *,
        groups_per_batch: int,
        slots: int,
        ledger: Ledger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`slots` = (max_staleness + 1) * `groups_per_batch` prompts at once; `clock` in seconds."""
        if slots < groups_per_batch:
            raise ValueError(f"slots: found {slots}, needs at least groups_per_batch = {groups_per_batch}")
        self._rule = f"{config.check_batch_ready_function}, {groups_per_batch} prompts"
        self._clock = clock
        self._book = PromptBook(config, batch_size=groups_per_batch, slots=slots, ledger=ledger)
        self._leases = Leases(self._is_wanted)
        self._condition = Condition()
        self._closed: Exception | None = None
        self.ledger = ledger

    def wait_for_slot(self, timeout: float | None = None) -> bool:
        """Whether a prompt can be admitted; False after `timeout` seconds, or once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed is not None or self._book.slots.free > 0, timeout)
            return self._closed is None and self._book.slots.free > 0

    def admit(self, task: Task) -> bool:
        """Take in a prompt and lease it out; False once closed. Raises ValueError where no slot is free, or where the
        group id is in the pool."""
        with self._changing():
            if self._closed is None:
                self._book.admit(task)
                self._leases.add(task)
            return self._closed is None

    def end_of_data(self) -> None:
        """No prompt follows (until the next `admit`): a batch may be short, and the one after the last is empty."""
        with self._changing():
            self._book.drained = True

    def lease(self, worker: str, limit: int) -> LeaseFuture:
        """Up to `limit` tasks, as soon as there is one; none at the end of the run.

        A worker has one lease that waits: asking again ends the former with CommError.
        """
        if limit < 1:
            raise ValueError(f"lease of {worker}: limit is {limit}, needs at least 1")
        with self._changing():
            future, superseded = self._leases.ask(worker, limit)
            ended = self._leases.close() if self._closed is not None else []
        _refuse(superseded, f"a newer lease of {worker} took the place of this one")
        _resolve(ended)
        return future

    def put(self, group_id: str, attempt: int, run_id: int, headers: tuple[TrajectoryHeader, ...]) -> bool:
        """A sample is in, with all its sequences; False where it came too late or twice and is ignored, or is empty
        and counts as failed. Raises ConfigError where a header lacks a key of `key_list`."""
        with self._changing():
            if not self._awaited(group_id, [run_id], attempt):
                return False
            if headers:
                self._leases.end(group_id, [run_id])
                self._book.accept(group_id, run_id, headers)
            else:
                self._retry(group_id, [run_id], attempt, "the rollout gave no trajectory")
            return bool(headers)

    def fail(self, group_id: str, run_ids: Sequence[int], attempt: int, reason: str) -> None:
        """Samples gave nothing: they are issued again, or given up when their attempts are used up."""
        with self._changing():
            self._retry(group_id, self._awaited(group_id, run_ids, attempt), attempt, reason)

    def enqueue(self, task: Task) -> None:
        """Lease a task out whose results go elsewhere (validation)."""
        with self._changing():
            if self._closed is None:
                self._leases.add(task)

    def settle(self, group_id: str, run_ids: Iterable[int]) -> None:
        """Samples of an `enqueue`d task have ended, well or not: their worker does not have them any more."""
        with self._changing():
            self._leases.end(group_id, run_ids)

    def worker_lost(self, worker: str) -> list[Task]:
        """A worker is gone: its samples are issued again. Returns those of `enqueue`d tasks, for their owner."""
        with self._changing():
            tasks, waiting = self._leases.lose(worker)
            self._book.counts["lost_workers"] += 1
            for task in tasks:
                if not task.is_val:
                    self._retry(task.group_id, task.run_ids, task.attempt, f"worker {worker} was lost")
        _refuse(waiting, f"{worker} was given up")
        return [task for task in tasks if task.is_val]

    def expire(self, now: float) -> None:
        """Give up the missing samples of prompts older than `group_timeout`; `take_batch` does so while it waits."""
        with self._changing():
            self._book.expire(now)

    def take_batch(self, timeout: float | None = None) -> list[TrajectoryGroup]:
        """The next batch, sorted by order.

        It is shorter than `groups_per_batch` where prompts were dropped or the data has ended, and empty where all of
        them were dropped, or where no batch will follow (`exhausted`). Raises what `close` was given, and TimeoutError
        with a diagnosis after `timeout` seconds.
        """
        deadline = None if timeout is None else self._clock() + timeout
        with self._condition:
            while True:
                now = self._clock()
                if self._book.expire(now):
                    self._condition.notify_all()
                if self._closed is not None:
                    raise self._closed
                batch = self._book.next_batch()
                if batch is not None:
                    groups = self._book.take(batch)
                    self._condition.notify_all()
                    return groups
                if deadline is not None and now >= deadline:
                    raise TimeoutError(self.describe())
                ends = [end for end in (deadline, self._book.next_expiry()) if end is not None]
                self._condition.wait(max(0.0, min(ends) - now) if ends else None)

    @property
    def exhausted(self) -> bool:
        """The data has ended, and every batch was taken."""
        with self._condition:
            return self._book.drained and not self._book.waiting

    @property
    def lost(self) -> int:
        """Prompts dropped for a reason of their own; those that `close` and `write_off` dropped do not count."""
        with self._condition:
            return self._book.counts["dropped"] - self._book.counts["written_off"]

    @property
    def lost_since_batch(self) -> int:
        """Prompts that were dropped, one after the other, since the last batch that `take_batch` found anything in."""
        with self._condition:
            return self._book.lost_since_batch

    @property
    def last_drop(self) -> str:
        """Prompt, reason and detail of the newest drop; empty where there was none."""
        with self._condition:
            return self._book.last_drop

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        with self._condition:
            return self._closed is not None

    def mark_trained(self, group_ids: Iterable[str]) -> tuple[str, ...]:
        """The training step of these groups is done. Returns their prompts by order, for the ledger, which has
        `trained` written to it when the trajectories are durable. Raises ValueError for a group that is in no batch, or
        trained already."""
        with self._changing():
            return self._book.mark_trained(group_ids)

    def release(self, group_ids: Iterable[str]) -> None:
        """Free the slots of these groups: weights trained on them are published. Unknown ones are passed over."""
        with self._changing():
            self._book.release(group_ids)

    def drop(self, group_ids: Iterable[str], reason: str) -> None:
        """Give these groups up, wherever they are; trained and unknown ones are passed over."""
        with self._changing():
            self._book.drop(group_ids, reason)

    def take_let_go(self) -> list[str]:
        """Trajectories that no batch will ever ask for, because their prompts were dropped; each is told once."""
        with self._condition:
            told, self._book.let_go = self._book.let_go, []
            return told

    def outstanding(self) -> list[Task]:
        """Prompts that were admitted and neither trained (or released) nor dropped, by order, as they were admitted:
        a checkpoint puts them into the loader's replay queue."""
        with self._condition:
            return self._book.outstanding()

    def close(self, reason: NexRLError | None = None) -> None:
        """End every wait, with `reason` for `take_batch`; a second call does nothing. Prompts that wait are dropped; a
        batch that was taken may still be trained."""
        with self._condition:
            if self._closed is None:
                self._closed = reason or PoolClosed("the pool was closed")
                self._book.drop_all(taken=False)
            waiting = self._leases.close()
            self._condition.notify_all()
        _resolve(waiting)

    def write_off(self) -> None:
        """Drop what is neither trained nor dropped, when nothing is trained any more: the last act of a run."""
        with self._changing():
            self._book.drop_all(taken=True)

    def describe(self) -> str:
        """What is waited for: which prompts, who works on them since when, who idles."""
        with self._condition:
            self._leases.purge()
            return diagnosis.describe(rule=self._rule, book=self._book, leases=self._leases, now=self._clock())

    def metrics(self) -> dict[str, float]:
        """`pool/…`: counters since the start, and what there is now."""
        with self._condition:
            self._leases.purge()
            free = self._book.slots.free
            now = {"queued": len(self._leases), "leased": len(self._leases.leased), "free_slots": free}
            counted = {name: self._book.counts[name] for name in COUNTERS}
            return {f"pool/{name}": float(value) for name, value in (counted | now).items()}

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make a change under the lock, then hand out tasks and wake who waits. Futures are resolved when the lock is
        free: their callbacks may call the pool."""
        with self._condition:
            yield
            now = self._clock()
            handed = self._leases.match(now)
            for _, tasks in handed:
                for task in tasks:
                    self._book.start(task, now)
            self._condition.notify_all()
        for future, tasks in handed:
            future.set_result(tasks)

    def _awaited(self, group_id: str, run_ids: Sequence[int], attempt: int) -> list[int]:
        """Those of the samples that still count; the others are counted."""
        awaited = [run_id for run_id in run_ids if self._book.awaits(group_id, run_id, attempt)]
        for run_id in set(run_ids) - set(awaited):
            self._book.count_unawaited(group_id, run_id)
        return awaited

    def _retry(self, group_id: str, run_ids: Sequence[int], attempt: int, reason: str) -> None:
        if run_ids:
            self._leases.end(group_id, run_ids)
            again = self._book.retry(group_id, run_ids, attempt=attempt, reason=reason)
            if again is not None:
                self._leases.add(again)

    def _is_wanted(self, run_id: int, task: Task) -> bool:
        return task.is_val or self._book.awaits(task.group_id, run_id, task.attempt)


def _resolve(futures: Iterable[LeaseFuture]) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_result([])


def _refuse(futures: Iterable[LeaseFuture], reason: str) -> None:
    for future in futures:
        if future.set_running_or_notify_cancel():
            future.set_exception(CommError(reason))
