"""One admitted prompt while its samples come in."""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec

from nexrl.types import Task, TrajectoryHeader


class PromptState(enum.Enum):
    """Where a prompt is. The ledger's `issued` is OPEN; a prompt that is TAKEN is with the trainer."""

    OPEN = enum.auto()
    FINISHED = enum.auto()
    DROPPED = enum.auto()
    TAKEN = enum.auto()


@dataclass(eq=False)
class Prompt:
    """Keeps which samples are in, which are under way in which attempt, and which are given up."""

    task: Task
    """As admitted: all run ids."""
    slot: int
    state: PromptState = PromptState.OPEN
    attempts: dict[int, int] = field(default_factory=dict)
    """Run id → the attempt that counts, for the samples under way."""
    headers: dict[int, tuple[TrajectoryHeader, ...]] = field(default_factory=dict)
    """Run id → its sequences."""
    started: float | None = None
    """When the first sample was leased, on the pool's clock."""
    last_failure: str = ""
    """Reason of the newest failed sample."""
    trained: bool = False
    """`TAKEN`: the training step is done."""

    def __post_init__(self) -> None:
        self.attempts = dict.fromkeys(self.task.run_ids, self.task.attempt)

    @property
    def group_id(self) -> str:
        """The prompt's name in pool and ledger."""
        return self.task.group_id

    @property
    def num_samples(self) -> int:
        """Samples wanted."""
        return len(self.task.run_ids)

    def accept(self, run_id: int, headers: tuple[TrajectoryHeader, ...]) -> None:
        """A sample is in."""
        del self.attempts[run_id]
        self.headers[run_id] = headers

    def retry(self, run_ids: Iterable[int], *, attempt: int, max_attempts: int) -> Task | None:
        """The task that tries these samples again, or None where their attempts are used up: they are given up."""
        again = attempt + 1
        if again >= max_attempts:
            for run_id in run_ids:
                del self.attempts[run_id]
            return None
        self.attempts |= dict.fromkeys(run_ids, again)
        return msgspec.structs.replace(self.task, run_ids=tuple(run_ids), attempt=again)

    def has_enough(self, min_fraction: float) -> bool:
        """Whether so many of the samples are in (at least one)."""
        return bool(self.headers) and len(self.headers) >= min_fraction * self.num_samples

    def all_headers(self) -> list[TrajectoryHeader]:
        """Sequences of all samples that are in."""
        return [header for run_id in sorted(self.headers) for header in self.headers[run_id]]
