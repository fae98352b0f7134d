"""One record of figures, and the seam behind which a sink takes it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

REWARD = "rollout/reward_mean"
STALENESS = "staleness/max"
ENTROPY = "actor/entropy_loss"
TOKENS_PER_SECOND = "throughput/tokens_per_s"
ETA = "progress/eta_s"

_NAME = re.compile(r"[a-z][a-z0-9_]*(/[^\s/]+)+")


@dataclass(frozen=True, kw_only=True)
class MetricRecord:
    """The figures of one step or one validation. MetricLogger → sinks."""

    step: int
    """Training steps completed when it was made, the step it describes included."""
    time: float
    """Unix time in seconds."""
    kind: Literal["step", "validation"] = "step"
    values: Mapping[str, float] = field(default_factory=dict)
    """`group/name` → figure; may hold NaN or infinities, which each sink writes as its format can."""

    def __post_init__(self) -> None:
        check_names(self.values)


class MetricSink(Protocol):
    """Where records go."""

    def write(self, record: MetricRecord) -> None:
        """Take one record; it is out of this process's hands, or will be within seconds, when the call returns."""
        ...

    def close(self) -> None:
        """Write what is left; the sink takes no more records."""
        ...


def check_names(values: Mapping[str, float]) -> None:
    """Raise ValueError for a metric that is not named `group/name` (lower-case group, no blanks)."""
    for name in values:
        if not _NAME.fullmatch(name):
            raise ValueError(f"metric {name!r}: needs a name of the form group/name, without blanks")
