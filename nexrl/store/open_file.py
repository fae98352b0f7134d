"""One file, opened for reading while it is written, after its writer was killed, or closed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from nexrl.errors import StoreError
from nexrl.store.layout import FORMAT_VERSION, FileLayout

_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)
"""What h5py raises for a damaged file, by the HDF5 call that failed."""
_GAP = 65536
"""Pieces of a stream that lie closer than this (elements) are read in one go."""


class OpenFile:
    """Committed rows of one file with `layout`; raises StoreError for what is not such a file or cannot be read."""

    def __init__(self, path: Path, layout: FileLayout) -> None:
        self.path = path
        self.rows = 0
        """Committed rows that this object shows; grows with `refresh`."""
        self.last_commit = 0.0
        """Unix time in seconds; 0.0 where nothing was committed."""
        try:
            self._file = h5py.File(path, "r", libver="latest", swmr=True, locking="best-effort")
        except OSError as error:
            raise StoreError(f"{path}: cannot be opened as HDF5: {error}") from error
        try:
            self.attributes: dict[str, Any] = dict(self._file.attrs)
            self._check_format(layout)
            self._datasets = {column.path: self._file[column.path] for column in layout.columns}
            self._streams = [column.path for column in layout.columns if column.stream]
            self._text_ends: dict[str, tuple[np.ndarray, np.ndarray]] = {}
            self.refresh()
        except _READ_ERRORS as error:
            self._file.close()
            raise StoreError(f"{path}: not readable: {error}") from error
        except StoreError:
            self._file.close()
            raise

    def refresh(self) -> int:
        """See what was committed meanwhile; returns the number of rows."""
        try:
            for name in ("commits/rows", "commits/time"):
                self._datasets[name].refresh()
            before = self.rows
            self._read_commits()
            if self.rows > before:
                # After the count was read: only then every counted row is sure to be seen.
                for dataset in self._datasets.values():
                    dataset.refresh()
                self._text_ends = {}
        except _READ_ERRORS as error:
            raise StoreError(f"{self.path}: not readable: {error}") from error
        return self.rows

    def column(self, path: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Elements `start:stop` of a packed dataset; by default those of all committed rows."""
        stop = self.rows if stop is None else stop
        try:
            values: np.ndarray = self._datasets[path][start:stop]
        except _READ_ERRORS as error:
            raise StoreError(f"{self.path}: {path}[{start}:{stop}] is not readable: {error}") from error
        if len(values) != stop - start:
            raise StoreError(f"{self.path}: {path}[{start}:{stop}] has {len(values)} elements: the file is damaged")
        return values

    def pieces(self, path: str, first: np.ndarray, count: np.ndarray) -> list[np.ndarray]:
        """The pieces `first[i] : first[i] + count[i]` of a dataset, neighbours read together."""
        out: list[np.ndarray] = [np.empty(0, dtype=self._datasets[path].dtype)] * len(first)
        for members in _runs(first, count):
            start = int(first[members[0]])
            block = self.column(path, start, int((first[members] + count[members]).max()))
            for i in members:
                out[i] = block[first[i] - start : first[i] - start + count[i]]
        return out

    def texts(self, table: str, numbers: np.ndarray) -> np.ndarray:
        """Texts by number, an object array of str; each distinct text is read and decoded once."""
        distinct, inverse = np.unique(numbers, return_inverse=True)
        first, count = self._ends(table)
        if len(distinct) and distinct[-1] >= len(first):
            raise StoreError(f"{self.path}: text {distinct[-1]} of {table} is missing: the file is damaged")
        decoded = np.empty(len(distinct), dtype=object)
        for i, piece in enumerate(self.pieces(f"{table}/bytes", first[distinct], count[distinct])):
            decoded[i] = piece.tobytes().decode("utf-8", "surrogatepass")
        return decoded[inverse]

    def stream_bytes(self) -> tuple[int, int]:
        """(bytes of token arrays and texts, bytes that they take up in the file)."""
        content = stored = 0
        for path in self._streams:
            dataset = self._datasets[path]
            group = path.partition("/")[0]
            counts = self._ends(group)[1] if group in ("names", "texts") else self.column("num_tokens")
            content += int(counts.sum()) * dataset.dtype.itemsize
            stored += dataset.id.get_storage_size()
        return content, stored

    def length(self, path: str) -> int:
        """Elements of a dataset, committed or not."""
        length: int = self._datasets[path].shape[0]
        return length

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _check_format(self, layout: FileLayout) -> None:
        kind, version = self.attributes.get("format"), self.attributes.get("version")
        if kind != layout.kind:
            raise StoreError(f"{self.path}: format is {kind!r}, needed {layout.kind!r}")
        if version != FORMAT_VERSION:
            raise StoreError(
                f"{self.path}: written in version {version} of {layout.kind}; this program reads {FORMAT_VERSION}"
            )

    def _read_commits(self) -> None:
        rows, times = self._datasets["commits/rows"][:], self._datasets["commits/time"][:]
        self.rows = int(rows.max(initial=0))
        self.last_commit = float(times.max(initial=0.0))

    def _ends(self, table: str) -> tuple[np.ndarray, np.ndarray]:
        if table not in self._text_ends:
            length = min(self.length(f"{table}/first"), self.length(f"{table}/count"))
            self._text_ends[table] = (
                self.column(f"{table}/first", 0, length),
                self.column(f"{table}/count", 0, length),
            )
        return self._text_ends[table]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _runs(first: np.ndarray, count: np.ndarray) -> Iterable[np.ndarray]:
    """Indices of pieces, grouped so that within a group no gap exceeds `_GAP`; empty pieces are left out."""
    order = np.argsort(first, kind="stable")
    order = order[count[order] > 0]
    ends = np.maximum.accumulate((first + count)[order])
    breaks = np.flatnonzero(first[order][1:] > ends[:-1] + _GAP) + 1
    return np.split(order, breaks) if len(order) else []
