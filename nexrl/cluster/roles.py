"""What the processes of a run are for, and how many there are of each."""

from dataclasses import dataclass
from enum import StrEnum

from nexrl.errors import ConfigError


class Role(StrEnum):
    """What one process does."""

    CONTROLLER = "controller"
    """Decides: data, pool, trainer, validation. Exactly one."""
    RECORDER = "recorder"
    """Writes a node's trajectories, and hands them to trainer ranks."""
    ROLLOUT = "rollout"
    """Runs episodes."""
    INFERENCE = "inference"
    """One engine replica."""
    TRAINER = "trainer"
    """One rank of the train service."""
    LOCAL = "local"
    """All of the above in one process (`launch_mode: local`)."""


@dataclass(frozen=True, kw_only=True)
class RankGroup:
    """Ranks that are placed together and play one role."""

    name: str
    role: Role
    tasks: int
    """Processes."""
    threads: int
    """Compute threads of each."""

    def __post_init__(self) -> None:
        for key in ("tasks", "threads"):
            if getattr(self, key) < 1:
                raise ConfigError(f"group {self.name}: {key} is {getattr(self, key)}, needed at least 1")


@dataclass(frozen=True)
class Topology:
    """All rank groups of a run."""

    groups: tuple[RankGroup, ...]

    def __post_init__(self) -> None:
        names = [group.name for group in self.groups]
        if len(set(names)) != len(names):
            raise ConfigError(f"groups {names}: every name once")

    def of(self, role: Role) -> tuple[RankGroup, ...]:
        """The groups that play `role`."""
        return tuple(group for group in self.groups if group.role is role)

    def count(self, role: Role) -> int:
        """Processes that play `role`."""
        return sum(group.tasks for group in self.of(role))
