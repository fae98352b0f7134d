"""Collects the figures of a step, measures its phases, and sends one record to every sink."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol

from nexrl.metrics.record import ETA, TOKENS_PER_SECOND, MetricRecord, MetricSink, check_names

_ETA_WINDOW = 20
"""Steps over which the time of a step is averaged for the estimate: long enough to be calm, short enough to follow."""


class Progress(Protocol):
    """How far training is."""

    @property
    def step(self) -> int:
        """Training steps completed."""
        ...


class StepMetrics:
    """The figures of the step that is going on."""

    def __init__(self, step: int) -> None:
        self.step = step
        """Its number, counted from 1."""
        self.values: dict[str, float] = {}
        self.tokens = 0

    def log(self, values: Mapping[str, float]) -> None:
        """Add figures by `group/name`; one that is already there is replaced. Raises ValueError for a bad name."""
        check_names(values)
        self.values.update((name, float(value)) for name, value in values.items())

    def count_tokens(self, tokens: int) -> None:
        """Tokens of prompts and responses that this step trained on: they make `throughput/tokens_per_s`."""
        self.tokens += tokens


class MetricLogger:
    """One record per step to every sink, with `timing/step`, `timing/<phase>`, tokens per second and time left.

    All times are seconds. Belongs to one thread: the one that runs the training loop.
    """

    def __init__(self, sinks: Sequence[MetricSink], *, total_steps: int) -> None:
        self._sinks = tuple(sinks)
        self._total_steps = total_steps
        self._step: StepMetrics | None = None
        self._step_seconds: deque[float] = deque(maxlen=_ETA_WINDOW)
        self._phase_seconds: dict[str, float] = {}

    @property
    def phase_seconds(self) -> dict[str, float]:
        """Seconds by phase over the whole run so far, phases outside steps included."""
        return dict(self._phase_seconds)

    @contextmanager
    def step(self, progress: Progress) -> Iterator[StepMetrics]:
        """Measure the step after `progress`; its record goes out when the block ends, and not if it raises."""
        step = self._step = StepMetrics(progress.step + 1)
        started = time.perf_counter()
        try:
            yield step
        finally:
            self._step = None
        seconds = time.perf_counter() - started
        self._step_seconds.append(seconds)
        step.values["timing/step"] = seconds
        step.values[ETA] = self._seconds_left(step.step)
        if step.tokens:
            step.values[TOKENS_PER_SECOND] = step.tokens / seconds
        self._send(MetricRecord(step=step.step, time=time.time(), values=step.values))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a block as `timing/<name>` of the current step; blocks of one name add up, nested ones overlap."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._phase_seconds[name] = self._phase_seconds.get(name, 0.0) + seconds
            if self._step is not None:
                key = f"timing/{name}"
                self._step.values[key] = self._step.values.get(key, 0.0) + seconds

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """Send the figures of a validation that ran after `step` completed steps."""
        self._send(MetricRecord(step=step, time=time.time(), kind="validation", values=dict(values)))

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()

    def _seconds_left(self, step: int) -> float:
        mean = sum(self._step_seconds) / len(self._step_seconds)
        return max(0, self._total_steps - step) * mean

    def _send(self, record: MetricRecord) -> None:
        for sink in self._sinks:
            sink.write(record)
