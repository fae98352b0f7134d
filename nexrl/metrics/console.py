"""One log line per step."""

import logging
from collections.abc import Mapping

from nexrl.metrics.record import ETA, REWARD, STALENESS, TOKENS_PER_SECOND, MetricRecord

logger = logging.getLogger(__name__)


class ConsoleSink:
    """Logs step, reward, staleness, tokens per second and time left; figures that a step lacks are left out."""

    def __init__(self, total_steps: int) -> None:
        self._total_steps = total_steps

    def write(self, record: MetricRecord) -> None:
        """Log one line."""
        logger.info("%s", step_line(record, self._total_steps))

    def close(self) -> None:
        """Nothing is held back."""


def step_line(record: MetricRecord, total_steps: int) -> str:
    """`step 12/300  reward 0.438  staleness 0  1,671 tok/s  eta 1m 20s`, or a validation's figures by name."""
    if record.kind == "validation":
        figures = (f"{name} {value:.3f}" for name, value in record.values.items())
        return "  ".join((f"validation after step {record.step}", *figures))
    return "  ".join((f"step {record.step}/{total_steps}", *_figures(record.values)))


def _figures(values: Mapping[str, float]) -> list[str]:
    formats = {REWARD: "reward {:.3f}", STALENESS: "staleness {:.0f}", TOKENS_PER_SECOND: "{:,.0f} tok/s"}
    parts = [text.format(values[name]) for name, text in formats.items() if name in values]
    if ETA in values:
        parts.append(f"eta {duration(values[ETA])}")
    return parts


def duration(seconds: float) -> str:
    """`45s`, `1m 20s`, `2h 05m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
