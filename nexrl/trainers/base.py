"""What the controller's loop needs of a trainer."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from nexrl.types import Batch, TrajectoryGroup


@dataclass(frozen=True, kw_only=True)
class TrainReport:
    """One training step."""

    batch: Batch
    """What was trained on."""
    metrics: dict[str, float]
    skipped: bool
    """No sequence of the batch had anything to learn from; weights are as before."""


class BaseTrainer(ABC):
    """Turns groups into one training step."""

    @abstractmethod
    def initialize_workers(self) -> None:
        """Make the train service ready: models loaded, optimizer built. Raises TrainingError, CommError."""

    @abstractmethod
    def train(self, groups: Sequence[TrajectoryGroup], *, step: int) -> TrainReport:
        """One training step, numbered from 1: `step` is the number of steps done when it is over."""
