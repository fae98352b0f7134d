"""Where finished prompts wait, arranged into groups: the seam between the pool and `key_list`."""

from collections.abc import Collection, Sequence
from typing import Protocol

from nexrl.errors import ConfigError
from nexrl.types import TrajectoryGroup, TrajectoryHeader


class Store(Protocol):
    """Holds headers of finished prompts; a prompt goes in and out as a whole."""

    def put(self, headers: Sequence[TrajectoryHeader]) -> None:
        """Take in one finished prompt; raises ConfigError where a header lacks a key of `key_list`."""
        ...

    def take(self, prompts: Collection[str]) -> list[TrajectoryGroup]:
        """Give up the headers of these prompts (their group ids), in groups sorted by order.

        A group's `group_id` is unique among all groups that are out; where it is no prompt's, the headers tell which
        prompts the group is made of.
        """
        ...

    def __len__(self) -> int:
        """Headers held."""
        ...


def key_of(header: TrajectoryHeader, key: str) -> str:
    """The header's value of `key`, a field or an entry of `extra`; raises ConfigError where there is neither."""
    if key in header.__struct_fields__:
        return str(getattr(header, key))
    if key in header.extra:
        return str(header.extra[key])
    raise ConfigError(
        f"trajectory {header.trajectory_id} has no {key!r}, neither a field of TrajectoryHeader nor one of its "
        f"`extra` {sorted(header.extra)}",
        key="trajectory_pool.key_list",
    )


def as_group(group_id: str, headers: Sequence[TrajectoryHeader]) -> TrajectoryGroup:
    """A group in the order that all groups have: by prompt, run and sequence."""
    ordered = sorted(headers, key=lambda header: (header.order, header.run_id, header.sequence))
    return TrajectoryGroup(group_id=group_id, order=ordered[0].order, headers=tuple(ordered))


def in_order(groups: Sequence[TrajectoryGroup]) -> list[TrajectoryGroup]:
    """Groups by order, those of one prompt by id."""
    return sorted(groups, key=lambda group: (group.order, group.group_id))
