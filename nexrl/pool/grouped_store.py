"""One key: a group is what has the same value."""

from collections import defaultdict
from collections.abc import Collection, Sequence

from nexrl.pool.store import as_group, in_order, key_of
from nexrl.types import TrajectoryGroup, TrajectoryHeader


class GroupedStore:
    """With `group_id` a group is the samples of one prompt. By any other key a batch's prompts are mixed, and the
    group's id is `<value>@<its first prompt>`: a value comes back in later batches."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._groups: dict[str, list[TrajectoryHeader]] = defaultdict(list)

    def put(self, headers: Sequence[TrajectoryHeader]) -> None:
        """Take in one finished prompt."""
        for value, header in [(key_of(header, self._key), header) for header in headers]:
            self._groups[value].append(header)

    def take(self, prompts: Collection[str]) -> list[TrajectoryGroup]:
        """One group per value that these prompts have."""
        groups = []
        for value, headers in list(self._groups.items()):
            taken = [header for header in headers if header.group_id in prompts]
            left = [header for header in headers if header.group_id not in prompts]
            if left:
                self._groups[value] = left
            else:
                del self._groups[value]
            if taken:
                groups.append(self._group(value, taken))
        return in_order(groups)

    def __len__(self) -> int:
        return sum(len(headers) for headers in self._groups.values())

    def _group(self, value: str, headers: Sequence[TrajectoryHeader]) -> TrajectoryGroup:
        group = as_group(value, headers)
        return group if self._key == "group_id" else as_group(f"{value}@{group.headers[0].group_id}", headers)
