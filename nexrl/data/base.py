"""The loader's face: what the controller asks, and what a loader of one's own provides."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from nexrl.config.schema import DataConfig
from nexrl.data.item import DataItem, LoaderState
from nexrl.types import Message

CountTokens = Callable[[str | list[Message]], int]
"""Tokens of a prompt as the engine will see it, chat template included."""


class BaseDataLoader(ABC):
    """Extend this for a source of one's own; `SequentialDataLoader` does all of it for anything that has rows.

    Called from several threads; every method is atomic.
    """

    def __init__(self, config: DataConfig, *, count_tokens: CountTokens | None = None) -> None:
        self.config = config
        self.count_tokens = count_tokens

    @abstractmethod
    def get_next_item(self) -> DataItem | None:
        """The next item, or None where there is none now (`is_finished`: ever again)."""

    def can_return_item(self) -> bool:
        """Whether `get_next_item` would return an item now."""
        return not self.is_finished()

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether the last item was handed out; an item that is put back makes it false again."""

    @abstractmethod
    def add_item_front(self, item: DataItem) -> None:
        """Put an item back to be served next."""

    @abstractmethod
    def add_item_back(self, item: DataItem) -> None:
        """Put an item back to be served when the rows of the current epoch are used up."""

    @abstractmethod
    def reset(self) -> None:
        """Back to the very first item; the replay queues are emptied."""

    @abstractmethod
    def state(self) -> LoaderState:
        """The exact position."""

    @abstractmethod
    def load_state(self, state: LoaderState) -> None:
        """Go on from `state`; raises CheckpointError where it belongs to other data, seed or shuffling."""
