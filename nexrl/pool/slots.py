"""Slots bound how far sampling runs ahead of training."""

import itertools
from collections.abc import Iterable


class Slots:
    """`total` slots, each charged from a prompt's admission to the publishing of the weights it was trained into.

    Prompts of a batch that are not trained give theirs back when the last trained one does: no earlier, or a prompt of
    a later batch would be sampled from weights that are one version too old.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._names = itertools.count()
        self._charged: set[int] = set()
        self._batch_of: dict[int, tuple[set[int], set[int]]] = {}

    @property
    def free(self) -> int:
        """Slots for new prompts."""
        return self.total - len(self._charged)

    def charge(self) -> int:
        """Take a free slot; the number is its name from now on."""
        slot = next(self._names)
        self._charged.add(slot)
        return slot

    def bind(self, trained: Iterable[int], others: Iterable[int]) -> None:
        """A batch was taken: `others` become free when all of `trained` are."""
        batch = (set(trained), set(others))
        self._batch_of |= dict.fromkeys(batch[0], batch)
        self._settle(batch)

    def release(self, slot: int) -> None:
        """The prompt's weights are published, or it was dropped before any batch took it."""
        self._charged.discard(slot)
        if batch := self._batch_of.pop(slot, None):
            batch[0].discard(slot)
            self._settle(batch)

    def abandon(self, slot: int) -> None:
        """The prompt's batch goes on without it."""
        if batch := self._batch_of.pop(slot, None):
            batch[0].discard(slot)
            batch[1].add(slot)
            self._settle(batch)

    def _settle(self, batch: tuple[set[int], set[int]]) -> None:
        if not batch[0]:
            self._charged -= batch[1]
