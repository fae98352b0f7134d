"""How much memory a tree of processes takes."""

import threading
from collections.abc import Iterable

import psutil  # type: ignore[import-untyped]

_INTERVAL = 1.0
"""Seconds between two looks; the kernel needs some milliseconds per process for one."""


def summed_pss(processes: Iterable[psutil.Process]) -> int:
    """Bytes that the processes take together: proportional set sizes, in which a page that several share counts once.

    A process that has ended, or that may not be looked at, counts nothing.
    """
    total = 0
    for process in processes:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty when it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class PeakMemory:
    """Looks at a process and its descendants once a second, on a thread of its own."""

    def __init__(self) -> None:
        self.peak = 0
        """Most bytes seen at once."""
        self.processes = 0
        """How many processes there were then."""
        self._pid = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)

    def follow(self, pid: int) -> None:
        """Begin with this process; later calls do nothing."""
        if not self._pid:
            self._pid = pid
            self._thread.start()

    def stop(self) -> None:
        """End looking."""
        self._ended.set()
        if self._pid:
            self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            family = family_of(self._pid)
            used = summed_pss(family)
            if used > self.peak:
                self.peak, self.processes = used, len(family)
            self._ended.wait(_INTERVAL)
