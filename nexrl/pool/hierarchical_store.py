"""Two keys or more: groups within groups."""

from collections.abc import Collection, Sequence

import msgspec

from nexrl.pool.grouped_store import GroupedStore
from nexrl.pool.store import Store, in_order, key_of
from nexrl.types import TrajectoryGroup, TrajectoryHeader


class HierarchicalStore:
    """A store per value of the first key; a group's id is `<value>/<id in that store>`."""

    def __init__(self, keys: Sequence[str]) -> None:
        """`keys`: two or more, outermost first."""
        self._key, *self._inner = keys
        self._stores: dict[str, Store] = {}

    def put(self, headers: Sequence[TrajectoryHeader]) -> None:
        """Take in one finished prompt; its samples may go to different places."""
        for value, header in [(key_of(header, self._key), header) for header in headers]:
            if value not in self._stores:
                self._stores[value] = GroupedStore(*self._inner) if len(self._inner) == 1 else type(self)(self._inner)
            self._stores[value].put([header])

    def take(self, prompts: Collection[str]) -> list[TrajectoryGroup]:
        """One group per combination of values that these prompts have."""
        groups = [
            msgspec.structs.replace(group, group_id=f"{value}/{group.group_id}")
            for value, store in self._stores.items()
            for group in store.take(prompts)
        ]
        self._stores = {value: store for value, store in self._stores.items() if len(store)}
        return in_order(groups)

    def __len__(self) -> int:
        return sum(len(store) for store in self._stores.values())
