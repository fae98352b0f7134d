"""Signals to the launcher, as something that a selector can wait for."""

import os
import signal
from types import FrameType, TracebackType
from typing import Self

_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Collects SIGINT, SIGTERM and SIGHUP while its `with` block runs. Main thread only."""

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._note) for number in _CAUGHT}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read

    def take(self) -> list[signal.Signals]:
        """Those that have come since the last call; SIGHUP (the terminal is gone) counts as SIGTERM."""
        try:
            numbers = os.read(self._read, 64)
        except BlockingIOError:
            return []
        return [signal.SIGINT if number == signal.SIGINT else signal.SIGTERM for number in numbers]

    def _note(self, number: int, frame: FrameType | None) -> None:
        os.write(self._write, bytes([number]))
