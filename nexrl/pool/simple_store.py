"""No key: every trajectory is a group of its own."""

from collections.abc import Collection, Sequence

from nexrl.pool.store import as_group, in_order
from nexrl.types import TrajectoryGroup, TrajectoryHeader


class SimpleStore:
    """For training in which groups mean nothing (cross-entropy). A group's id is its trajectory's."""

    def __init__(self) -> None:
        self._headers: list[TrajectoryHeader] = []

    def put(self, headers: Sequence[TrajectoryHeader]) -> None:
        """Take in one finished prompt."""
        self._headers.extend(headers)

    def take(self, prompts: Collection[str]) -> list[TrajectoryGroup]:
        """One group per trajectory."""
        taken = [header for header in self._headers if header.group_id in prompts]
        self._headers = [header for header in self._headers if header.group_id not in prompts]
        return in_order([as_group(header.trajectory_id, [header]) for header in taken])

    def __len__(self) -> int:
        return len(self._headers)
