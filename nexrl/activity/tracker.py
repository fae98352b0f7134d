"""Who is doing what right now."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

import msgspec

from nexrl.activity.reporter import ErrorReporter

_SHOWN = 3


class Activity(msgspec.Struct, frozen=True):
    """A piece of work that has begun and not ended."""

    module: str
    work: str
    seconds: float
    """Since it began."""


class ActivityTracker:
    """Counts work in flight, by module. Safe to use from several threads; `track` blocks may nest and overlap."""

    def __init__(self, reporter: ErrorReporter, *, now: Callable[[], float] = time.monotonic) -> None:
        self._reporter = reporter
        self._now = now
        self._changed = Condition()
        self._tokens = itertools.count()
        self._running: dict[int, tuple[str, str, float]] = {}
        self._training_step = 0

    @contextmanager
    def track(self, module: str, work: str, *, auto_report_errors: bool = True) -> Iterator[None]:
        """Count a block as work in flight. What it raises is reported (unless told otherwise) and goes on unchanged."""
        with self._changed:
            token = next(self._tokens)
            self._running[token] = (module, work, self._now())
        try:
            yield
        except Exception as error:
            if auto_report_errors:
                self._reporter.report(module, work, error)
            raise
        finally:
            with self._changed:
                del self._running[token]
                self._changed.notify_all()

    def active(self) -> tuple[Activity, ...]:
        """Work in flight, oldest first."""
        with self._changed:
            now = self._now()
            return tuple(Activity(module, work, now - since) for module, work, since in self._running.values())

    def is_quiescent(self) -> bool:
        """Whether nothing is in flight."""
        with self._changed:
            return not self._running

    def wait_quiescent(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end of all work; False where some goes on."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def describe(self) -> str:
        """The oldest work in flight in words, for the diagnosis of a stall."""
        active = self.active()
        running = [f"{one.module}: {one.work} ({one.seconds:.0f} s)" for one in active[:_SHOWN]]
        more = [f"… and {len(active) - _SHOWN} more"] if len(active) > _SHOWN else []
        return "; ".join(running + more) or "no work in flight"

    @property
    def training_step(self) -> int:
        """Training steps completed."""
        with self._changed:
            return self._training_step

    def set_training_step(self, step: int) -> None:
        """Note that `step` training steps are completed."""
        with self._changed:
            self._training_step = step
