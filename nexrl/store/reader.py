"""All trajectories of a run, or of one file."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from nexrl.errors import StoreError
from nexrl.store.decode import header_columns, trajectories
from nexrl.store.layout import TRAJECTORIES, files_of
from nexrl.store.open_file import OpenFile
from nexrl.types import Trajectory

_BLOCK = 256
"""Trajectories that iteration reads at a time."""


@dataclass(frozen=True)
class _Segment:
    """Rows `start:stop` of a file; segments follow one another in the reader's order."""

    file: OpenFile
    start: int
    stop: int


class TrajectoryReader:
    """Reads a run folder (every file in it) or one file, while they are written and after a crash.

    Only committed rows are seen, as of opening or the last `refresh`. Rows are numbered in the order of file names at
    opening; what `refresh` finds gets the next numbers, so a number keeps its meaning. Raises StoreError, naming the
    file, for what cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[Path, OpenFile] = {}
        self._segments: list[_Segment] = []
        self._numbers: dict[str, int] | None = None
        self.refresh()

    @property
    def files(self) -> tuple[OpenFile, ...]:
        """The open files, in the order of their names at first sight."""
        return tuple(self._files.values())

    def refresh(self) -> int:
        """See files and rows that were added meanwhile; returns the number of trajectories."""
        for path in files_of(self.path, TRAJECTORIES):
            if path not in self._files:
                self._files[path] = OpenFile(path, TRAJECTORIES)
        for file in self._files.values():
            seen = sum(segment.stop - segment.start for segment in self._segments if segment.file is file)
            rows = file.refresh()
            if rows > seen:
                self._segments.append(_Segment(file, seen, rows))
                self._numbers = None
        return len(self)

    def headers(self) -> dict[str, np.ndarray]:
        """Every header field as a column over all rows, `score/<name>` per figure, and the file's `node` and
        `run_attempt`. Text columns are object arrays of str, `extra` of dicts; a missing score is NaN."""
        parts = []
        for segment in self._segments:
            part = header_columns(segment.file, segment.start, segment.stop)
            length = segment.stop - segment.start
            part["node"] = np.full(length, str(segment.file.attributes["node"]), dtype=object)
            part["run_attempt"] = np.full(length, int(segment.file.attributes["attempt"]))
            parts.append(part)
        names = dict.fromkeys(name for part in parts for name in part)
        return {
            name: np.concatenate(
                [part[name] if name in part else np.full(len(part["reward"]), np.nan) for part in parts]
            )
            for name in names
        }

    def column(self, name: str) -> np.ndarray:
        """One number of the header (`reward`, `num_tokens`, …) over all rows, without reading anything else."""
        parts = [segment.file.column(name, segment.start, segment.stop) for segment in self._segments]
        return np.concatenate(parts) if parts else np.empty(0)

    def read(self, which: int | str) -> Trajectory:
        """The trajectory with this number (negative: from the end) or this trajectory id, as it was written.

        An id that was written more than once, as a resumed run may, gives the last. Raises StoreError for an
        unknown one.
        """
        number = which if isinstance(which, int) else self._number(which)
        if not -len(self) <= number < len(self):
            raise StoreError(f"{self.path}: no trajectory {which}, it holds {len(self)}")
        number %= len(self)
        for segment in self._segments:
            length = segment.stop - segment.start
            if number < length:
                return trajectories(segment.file, segment.start + number, segment.start + number + 1)[0]
            number -= length
        raise AssertionError("segments do not add up to len()")

    def close(self) -> None:
        """Let go of all files."""
        for file in self._files.values():
            file.close()

    def _number(self, trajectory_id: str) -> int:
        if self._numbers is None:
            ids = [
                segment.file.texts("names", segment.file.column("trajectory_id", segment.start, segment.stop))
                for segment in self._segments
            ]
            self._numbers = {name: i for i, name in enumerate(name for part in ids for name in part)}
        try:
            return self._numbers[trajectory_id]
        except KeyError:
            raise StoreError(f"{self.path}: no trajectory {trajectory_id!r} among {len(self)}") from None

    def __len__(self) -> int:
        return sum(segment.stop - segment.start for segment in self._segments)

    def __iter__(self) -> Iterator[Trajectory]:
        for segment in tuple(self._segments):
            for start in range(segment.start, segment.stop, _BLOCK):
                yield from trajectories(segment.file, start, min(start + _BLOCK, segment.stop))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
