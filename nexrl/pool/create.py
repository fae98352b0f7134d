"""Which store a recipe asks for."""

from collections.abc import Sequence

from nexrl.pool.grouped_store import GroupedStore
from nexrl.pool.hierarchical_store import HierarchicalStore
from nexrl.pool.simple_store import SimpleStore
from nexrl.pool.store import Store


def create_store(key_list: Sequence[str]) -> Store:
    """`trajectory_pool.key_list`: no key → simple, one → grouped, two or more → hierarchical."""
    if not key_list:
        return SimpleStore()
    return GroupedStore(key_list[0]) if len(key_list) == 1 else HierarchicalStore(key_list)
