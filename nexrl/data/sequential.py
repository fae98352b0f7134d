"""Epochs, shuffling, replay and exact position over anything that has rows."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from nexrl.config.schema import DataConfig
from nexrl.data.base import BaseDataLoader, CountTokens
from nexrl.data.item import DataItem, LoaderState
from nexrl.data.row import parse_row
from nexrl.data.row_files import RowFile
from nexrl.errors import CheckpointError, DataError
from nexrl.types import derive_seed

logger = logging.getLogger(__name__)


class SequentialDataLoader(BaseDataLoader):
    """Serves the rows of `sources`, one source after the other, `config.epochs` times.

    All rows are checked when it is made, so that a bad row ends a run before it starts. Shuffled, an epoch is a
    permutation keyed by (seed, epoch): a position needs no replaying to be found again.
    """

    def __init__(
        self, config: DataConfig, sources: Sequence[RowFile], *, count_tokens: CountTokens | None = None
    ) -> None:
        super().__init__(config, count_tokens=count_tokens)
        self._sources = tuple(sources)
        self._labels = _labels([source.name for source in self._sources])
        self._starts = np.cumsum([0, *(len(source) for source in self._sources)])
        self._usable = self._check_rows()
        self._lock = threading.RLock()
        self.reset()

    @property
    def num_rows(self) -> int:
        """Usable rows: items of one epoch."""
        return len(self._usable)

    @property
    def num_dropped(self) -> int:
        """Rows left out for their length."""
        return int(self._starts[-1]) - self.num_rows

    def get_next_item(self) -> DataItem | None:
        """Replayed items first, then the epoch's rows, then what was put at its back, then the next epoch."""
        with self._lock:
            if self._front:
                return self._front.popleft()
            if self._cursor == self.num_rows and self._back:
                return self._back.popleft()
            if self._cursor == self.num_rows and not self._is_last_epoch():
                self._start_epoch(self._epoch + 1)
            if self._cursor == self.num_rows:
                return None
            item = self._item(self._row_at(self._cursor))
            self._cursor += 1
            self._issued += 1
            return item

    def is_finished(self) -> bool:
        """Never with `epochs: 0`."""
        with self._lock:
            rows_left = self._cursor < self.num_rows or not self._is_last_epoch()
            return not (rows_left or self._front or self._back)

    def add_item_front(self, item: DataItem) -> None:
        """The last one put back is the first one served."""
        with self._lock:
            self._front.appendleft(item)

    def add_item_back(self, item: DataItem) -> None:
        """Served in the order of being put back."""
        with self._lock:
            self._back.append(item)

    def reset(self) -> None:
        """Epoch 0, first row, order 0."""
        with self._lock:
            self._front: deque[DataItem] = deque()
            self._back: deque[DataItem] = deque()
            self._issued = 0
            self._start_epoch(0)

    def state(self) -> LoaderState:
        """A few numbers and the replay queues."""
        with self._lock:
            return LoaderState(
                epoch=self._epoch,
                cursor=self._cursor,
                issued=self._issued,
                seed=self.config.seed,
                shuffle=self.config.shuffle,
                num_rows=self.num_rows,
                front=tuple(self._front),
                back=tuple(self._back),
            )

    def load_state(self, state: LoaderState) -> None:
        """Every item from here on is the one that the saving loader would have given."""
        for key, here in (
            ("num_rows", self.num_rows),
            ("seed", self.config.seed),
            ("shuffle", self.config.shuffle),
        ):
            saved = getattr(state, key)
            if saved != here:
                raise CheckpointError(f"data position: the checkpoint has {key} {saved}, this run's data has {here}")
        if not 0 <= state.cursor <= self.num_rows:
            raise CheckpointError(f"data position: cursor {state.cursor} is outside of {self.num_rows} rows")
        with self._lock:
            self._start_epoch(state.epoch)
            self._cursor = state.cursor
            self._issued = state.issued
            self._front = deque(state.front)
            self._back = deque(state.back)

    def _is_last_epoch(self) -> bool:
        return 0 < self.config.epochs <= self._epoch + 1

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._cursor = 0
        self._permutation: np.ndarray | None = None
        if self.config.shuffle:
            seed = derive_seed(self.config.seed, "shuffle", epoch)
            self._permutation = np.random.default_rng(seed).permutation(self.num_rows)

    def _row_at(self, cursor: int) -> int:
        place = cursor if self._permutation is None else self._permutation[cursor]
        return int(self._usable[place])

    def _item(self, row: int) -> DataItem:
        source = int(np.searchsorted(self._starts, row, side="right")) - 1
        rows = self._sources[source]
        index = row - int(self._starts[source])
        number = rows.number(index)
        parsed = parse_row(rows[index], config=self.config, file=rows.name, number=number)
        return DataItem(
            task_id=f"{self._labels[source]}:{number}",
            prompt=parsed.prompt,
            ground_truth=parsed.ground_truth,
            data_source=parsed.data_source,
            fields=parsed.fields,
            epoch=self._epoch,
            row=row,
            order=self._issued,
        )

    def _check_rows(self) -> np.ndarray:
        """Indices [num_rows] of the rows whose prompt is short enough."""
        usable: list[int] = []
        for source, start in zip(self._sources, self._starts, strict=False):
            for index, raw in enumerate(source):
                number = source.number(index)
                parsed = parse_row(raw, config=self.config, file=source.name, number=number)
                tokens = 0 if self.count_tokens is None else self.count_tokens(parsed.prompt)
                if tokens <= self.config.max_prompt_length:
                    usable.append(int(start) + index)
                elif self.config.overlong_prompts == "error":
                    raise DataError(
                        f"{source.name}, row {number}, column {self.config.prompt_key!r}: found {tokens} tokens, needs "
                        f"at most data.max_prompt_length = {self.config.max_prompt_length} "
                        "(data.overlong_prompts: drop leaves such rows out)"
                    )
        dropped = int(self._starts[-1]) - len(usable)
        names = ", ".join(source.name for source in self._sources)
        limit = f"data.max_prompt_length = {self.config.max_prompt_length} tokens"
        if not usable:
            raise DataError(f"{names}: all {dropped} prompts are longer than {limit}")
        if dropped:
            logger.warning("%s: left out %d of %d rows longer than %s", names, dropped, self._starts[-1], limit)
        return np.asarray(usable)


def _labels(names: Sequence[str]) -> list[str]:
    """File names, with their position in front where two are alike."""
    short = [PurePath(name).name for name in names]
    return [name if short.count(name) == 1 else f"{place}:{name}" for place, name in enumerate(short)]
