"""Ends a run that has stopped moving."""

import time
from collections.abc import Callable
from threading import Condition, Event, Thread

from nexrl.errors import StallError


class StallWatchdog:
    """Calls `on_stall` once, with a StallError, when `progressed` has not been called for `timeout` seconds.

    `describe` says what is waited for; it runs on a thread of its own and is given up after `diagnosis_timeout`
    seconds, because what has stalled may hold its locks.
    The thread that watches waits for progress or the deadline, and ends at `close` or after `on_stall`.
    """

    def __init__(
        self,
        timeout: float,
        *,
        describe: Callable[[], str],
        on_stall: Callable[[StallError], None],
        diagnosis_timeout: float = 10.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._describe = describe
        self._on_stall = on_stall
        self._diagnosis_timeout = diagnosis_timeout
        self._now = now
        self._changed = Condition()
        self._closed = False
        self._last = "the start"
        self._since = now()
        self._thread = Thread(target=self._watch, name="stall watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch; the time counts from here."""
        self.progressed("the start")
        self._thread.start()

    def progressed(self, what: str) -> None:
        """Something moved: a rollout ended, a step was trained, a role registered."""
        with self._changed:
            self._last = what
            self._since = self._now()

    def close(self) -> None:
        """Watch no longer. `on_stall` itself may call this."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while not self._closed:
                left = self._since + self._timeout - self._now()
                if left <= 0:
                    last, still = self._last, self._timeout - left
                    break
                self._changed.wait(left)
            else:
                return
        self._on_stall(
            StallError(
                f"nothing moved for {still:.0f} s, the last to move was {last}; waiting for: {self._diagnosis()}"
            )
        )

    def _diagnosis(self) -> str:
        answer: list[str] = []
        done = Event()

        def ask() -> None:
            try:
                answer.append(self._describe())
            except Exception as error:  # noqa: BLE001 - a diagnosis that fails must not hide the stall
                answer.append(f"unknown, the diagnosis failed with {type(error).__name__}: {error}")
            done.set()

        Thread(target=ask, name="stall diagnosis", daemon=True).start()
        done.wait(self._diagnosis_timeout)
        return answer[0] if answer else f"unknown, the diagnosis did not come within {self._diagnosis_timeout:g} s"
