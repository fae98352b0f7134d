"""Which trajectory was trained in which step: `trajectories/steps.h5`, written by the controller.

A run that is resumed writes `steps.<attempt>.h5` beside it, and says in the attribute `from_step` which step it went on
from: rows of earlier attempts with a later step are superseded, for their steps are trained again.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from nexrl.errors import StoreError
from nexrl.store.layout import STEPS, files_of, steps_path
from nexrl.store.open_file import OpenFile
from nexrl.store.swmr import WRITE_ERRORS, SwmrFile, reason
from nexrl.types import Batch, BatchRow

_NUMBERS = ("step", "position", "rank", "mini_batch", "micro_batch", "advantage", "weight_version")
_NAMES = ("trajectory_id", "group_id")


@dataclass(frozen=True, kw_only=True)
class TrainedRow:
    """One trajectory's part in one step."""

    step: int
    position: int
    """Place in the batch, counted from 0 in the order of `Batch.rows`."""
    rank: int
    mini_batch: int
    micro_batch: int
    trajectory_id: str
    group_id: str
    advantage: float
    weight_version: int
    """Weights that the step started from; minus the trajectory's `version_min` it is the staleness."""


class StepsWriter:
    """Writes one row per trained sequence. Every call raises StoreError, naming the file, when writing fails."""

    def __init__(self, run_dir: Path, *, attempt: int, run_id: str, from_step: int = 0) -> None:
        """`from_step`: the last step that earlier attempts trained and that this one builds on."""
        self.path = steps_path(run_dir, attempt=attempt)
        attributes: dict[str, str | int] = {"attempt": attempt, "run_id": run_id, "from_step": from_step}
        self._file = SwmrFile(self.path, STEPS, attributes=attributes)
        self._error: StoreError | None = None

    def append(self, batch: Batch, *, weight_version: int) -> None:
        """Record the step's rows; durable when this returns (two fsyncs)."""
        if self._error is not None:
            raise self._error
        places = [(rank, mini, micro) for rank, mini, micro, _ in _rows(batch)]
        rows = [row for _, _, _, row in _rows(batch)]
        ids = [row.trajectory_id for row in rows]
        columns: dict[str, Sequence[float]] = {
            "step": [batch.step] * len(rows),
            "position": list(range(len(rows))),
            "rank": [place[0] for place in places],
            "mini_batch": [place[1] for place in places],
            "micro_batch": [place[2] for place in places],
            "trajectory_id": self._file.numbers("names", ids),
            "group_id": self._file.numbers("names", [name.rpartition("/")[0] for name in ids]),
            "advantage": [row.advantage for row in rows],
            "weight_version": [weight_version] * len(rows),
        }
        try:
            for name, values in columns.items():
                self._file.extend(name, values)
            self._file.commit(len(rows))
        except WRITE_ERRORS as error:
            # Columns are of unequal length now: another commit would count rows that are not whole.
            self._error = StoreError(f"{self.path}: step {batch.step} could not be written: {reason(error)}")
            self._file.abandon()
            raise self._error from error

    def close(self) -> None:
        """Close the file; after a failed `append` there is nothing left to close."""
        if self._error is not None:
            return
        try:
            self._file.close()
        except WRITE_ERRORS as error:
            self._file.abandon()
            raise StoreError(f"{self.path}: could not be closed: {reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StepsReader:
    """What was trained when, over all attempts of a run; readable while it is written."""

    def __init__(self, path: Path) -> None:
        """`path`: a run folder, or one steps file."""
        self.path = path
        self._files: dict[Path, OpenFile] = {}
        self._current: dict[str, np.ndarray] | None = None
        self.refresh()

    def refresh(self) -> None:
        """See what was recorded meanwhile."""
        for path in files_of(self.path, STEPS):
            if path not in self._files:
                self._files[path] = OpenFile(path, STEPS)
        for file in self._files.values():
            file.refresh()
        self._current = None

    def columns(self, *, superseded: bool = False) -> dict[str, np.ndarray]:
        """Every field of TrainedRow, and the `attempt` of the run, as a column; ordered by attempt, step and position.

        With `superseded` also the rows whose step was trained again by a later attempt.
        """
        parts = []
        last = np.inf
        for file in sorted(self._files.values(), key=lambda file: -int(file.attributes["attempt"])):
            part = {name: file.column(name) for name in _NUMBERS}
            part |= {name: file.texts("names", file.column(name)) for name in _NAMES}
            part["attempt"] = np.full(file.rows, int(file.attributes["attempt"]))
            kept = np.full(file.rows, True) if superseded else part["step"] <= last
            parts.append({name: values[kept] for name, values in part.items()})
            last = min(last, int(file.attributes["from_step"]))
        names = (*_NUMBERS, *_NAMES, "attempt")
        return {name: np.concatenate([part[name] for part in parts[::-1]] or [np.empty(0)]) for name in names}

    def of(self, trajectory_id: str) -> tuple[TrainedRow, ...]:
        """The steps that trained on a trajectory, in order; empty where none did."""
        if self._current is None:
            self._current = self.columns()
        columns = self._current
        names = (*_NUMBERS, *_NAMES)
        return tuple(
            TrainedRow(**{name: columns[name][i] if name in _NAMES else columns[name][i].item() for name in names})
            for i in np.flatnonzero(columns["trajectory_id"] == trajectory_id)
        )

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files.values():
            file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _rows(batch: Batch) -> Iterator[tuple[int, int, int, BatchRow]]:
    """(rank, mini-batch, micro-batch, row) in the order of `Batch.rows`."""
    for rank, shard in enumerate(batch.shards):
        for mini_number, mini in enumerate(shard.mini_batches):
            for micro_number, micro in enumerate(mini.micro_batches):
                for row in micro.rows:
                    yield rank, mini_number, micro_number, row
