"""The one writer of a node's trajectory file."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from nexrl.errors import StoreError
from nexrl.store.encode import check_storable, size_of, write_rows
from nexrl.store.layout import TRAJECTORIES
from nexrl.store.swmr import SwmrFile, reason
from nexrl.types import Trajectory


class TrajectoryWriter:
    """Buffers trajectories and commits them in groups on a thread of its own.

    A group is committed when `commit_bytes` are pending or the oldest has waited `commit_seconds`, whichever comes
    first; what piles up during a commit goes into the next one. All methods may be called from any thread. The first
    error that a commit meets is kept: it and every later call raise StoreError naming the file, which stays readable up
    to its last commit. Pending trajectories are bounded by the caller (the pool's slots), not here.
    """

    def __init__(
        self,
        path: Path,
        *,
        node: str,
        attempt: int,
        run_id: str,
        commit_bytes: int = 4 * 2**20,
        commit_seconds: float = 2.0,
    ) -> None:
        self._path = path
        self._commit_bytes = commit_bytes
        self._commit_seconds = commit_seconds
        self._file = SwmrFile(path, TRAJECTORIES, attributes={"node": node, "attempt": attempt, "run_id": run_id})
        self._changed = threading.Condition()
        self._pending: list[Trajectory] = []
        self._pending_bytes = 0
        self._oldest = 0.0
        self._appended = 0
        self._durable = 0
        self._wanted = 0
        self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"commit {path.name}", daemon=True)
        self._thread.start()

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def durable(self) -> int:
        """How many of the appended trajectories are flushed and fsynced, in the order of appending."""
        return self._durable

    def append(self, trajectories: Sequence[Trajectory]) -> int:
        """Buffer `trajectories`; returns the sequence number of the last: it is durable once `durable` has reached it.

        Sequence numbers count from 1. The arrays must not change afterwards. Nothing is buffered when one of them
        cannot be stored, or when the writer has failed or is closed (StoreError).
        """
        for trajectory in trajectories:
            check_storable(trajectory)
        with self._changed:
            self._raise_error()
            if self._closing:
                raise StoreError(f"{self._path}: the writer is closed")
            if trajectories and not self._pending:
                self._oldest = time.monotonic()
            self._pending.extend(trajectories)
            self._pending_bytes += sum(size_of(trajectory) for trajectory in trajectories)
            self._appended += len(trajectories)
            self._changed.notify_all()
            return self._appended

    def wait_durable(self, number: int, timeout: float) -> None:
        """Wait until `durable` reaches `number`, which the writer's own pace brings about; raises StoreError.

        After `timeout` seconds, when the writer has failed, and when so many were never appended.
        """
        with self._changed:
            if number > self._appended:
                raise StoreError(
                    f"{self._path}: {number} trajectories cannot become durable, {self._appended} were appended"
                )
            self._changed.wait_for(lambda: self._error or self._durable >= number, timeout)
            if self._durable >= number:
                return
            self._raise_error()
            raise StoreError(
                f"{self._path}: {self._durable} of {number} trajectories durable after {timeout:g} s; "
                "is its file system slow or hung?"
            )

    def flush(self, timeout: float = 60.0) -> None:
        """Commit now all that was appended, and wait for it; raises StoreError as `wait_durable` does."""
        with self._changed:
            self._wanted = number = self._appended
            self._changed.notify_all()
        self.wait_durable(number, timeout)

    def close(self, timeout: float = 60.0) -> None:
        """Commit what is pending and close the file; raises StoreError when a commit failed.

        A second call does nothing. Gives up after `timeout` seconds on a file system that does not answer.
        """
        with self._changed:
            if self._closing:
                return
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise StoreError(f"{self._path}: the last commit did not end within {timeout:g} s")
        self._raise_error()

    def _run(self) -> None:
        try:
            while group := self._next_group():
                write_rows(self._file, group)
                self._file.commit(len(group))
                with self._changed:
                    self._durable += len(group)
                    self._changed.notify_all()
            self._file.close()
        except Exception as error:  # noqa: BLE001  kept, and raised by every later call
            self._file.abandon()  # first: a caller may end the process as soon as it knows
            with self._changed:
                self._error = error
                self._pending = []
                self._changed.notify_all()

    def _next_group(self) -> list[Trajectory]:
        """Waits for enough to commit; unblocked by append, flush, close and time. Empty when closed and drained."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closing)
            self._changed.wait_for(self._due, max(0.0, self._oldest + self._commit_seconds - time.monotonic()))
            group, self._pending, self._pending_bytes = self._pending, [], 0
            return group

    def _due(self) -> bool:
        return self._closing or self._pending_bytes >= self._commit_bytes or self._wanted > self._durable

    def _raise_error(self) -> None:
        if self._error is not None:
            raise StoreError(
                f"{self._path}: writing failed, {self._durable} trajectories are safe: {reason(self._error)}"
            ) from self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
