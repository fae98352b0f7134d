"""The threads that handlers run on."""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class Workers:
    """Up to `count` threads that take jobs in order; they start when needed, and never hold up the end of the process.

    (concurrent.futures joins its threads at exit: one handler that hangs would hang the whole role.)
    """

    def __init__(self, count: int, *, name: str) -> None:
        self._count, self._name = count, name
        self._jobs: SimpleQueue[tuple[Callable[..., None], tuple[Any, ...]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._unfinished = 0

    def submit(self, job: Callable[..., None], *args: Any) -> None:
        """Run `job(*args)` on a thread; it must not raise."""
        with self._lock:
            self._unfinished += 1
            start = self._threads < min(self._count, self._unfinished)
            self._threads += start
        self._jobs.put((job, args))
        if start:
            threading.Thread(target=self._run, name=f"{self._name}-worker", daemon=True).start()

    def close(self) -> None:
        """End every thread after its present job; jobs still queued before this run first."""
        for _ in range(self._count):
            self._jobs.put(None)

    def _run(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, args = item
            job(*args)
            with self._lock:
                self._unfinished -= 1
