"""Who is doing what right now."""

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition

import msgspec

from nexrl.activity.reporter import ErrorReporter


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
        self._rollout_workers: set[str] = set()
        self._training_step = 0

    def register_module(self, name: str, *, is_rollout_worker: bool = False) -> None:
        """Say that work of `name` is (or is not) a rollout worker's."""
        with self._changed:
            (self._rollout_workers.add if is_rollout_worker else self._rollout_workers.discard)(name)

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

    def active_count(self, module: str = "") -> int:
        """Pieces of work in flight, of one module or of all."""
        with self._changed:
            return sum(module in ("", running) for running, _, _ in self._running.values())

    def is_quiescent(self) -> bool:
        """Whether nothing is in flight."""
        with self._changed:
            return not self._running

    def is_rollout_worker_quiescent(self) -> bool:
        """Whether no module that is registered as a rollout worker has work in flight."""
        with self._changed:
            return not any(module in self._rollout_workers for module, _, _ in self._running.values())

    def wait_quiescent(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the end of all work; False where some goes on."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def describe(self) -> str:
        """Work in flight in words, oldest first, for the diagnosis of a stall."""
        running = [f"{one.module}: {one.work} ({one.seconds:.0f} s)" for one in self.active()]
        return "; ".join(running) or "no work in flight"

    @property
    def training_step(self) -> int:
        """Training steps completed."""
        with self._changed:
            return self._training_step

    def set_training_step(self, step: int) -> None:
        """Note that `step` training steps are completed."""
        with self._changed:
            self._training_step = step
