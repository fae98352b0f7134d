"""What a loader hands out, and where it stands."""

from typing import Any

import msgspec

from nexrl.types import Message


class DataItem(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt. DataLoader → controller."""

    task_id: str
    """`<file name>:<row>`, rows counted from 1 as in messages; the same in every epoch."""
    prompt: str | list[Message]
    ground_truth: Any
    """As the data row has it; None where the row has none."""
    data_source: str
    """The row's `data_source`, else the stem of its file."""
    fields: dict[str, Any]
    """The remaining columns: JSON values only (times and decimals become text, NaN becomes None)."""
    epoch: int
    """From 0."""
    row: int
    """Position in all files taken together, from 0."""
    order: int
    """Place in the stream of items, from 0; a replayed item keeps its own."""


class LoaderState(msgspec.Struct, frozen=True, kw_only=True):
    """A loader's exact position; every value is JSON. Loader ↔ checkpoint."""

    epoch: int
    cursor: int
    """Rows of this epoch's permutation that were handed out."""
    issued: int
    """`order` of the next item from the files."""
    seed: int
    shuffle: bool
    num_rows: int
    """Usable rows: a checkpoint does not fit other data."""
    front: tuple[DataItem, ...] = ()
    """Replay queue that is served before the files."""
    back: tuple[DataItem, ...] = ()
    """Replay queue that is served when the epoch's rows are used up."""
