"""A file that one process appends to while others read it."""

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from nexrl.errors import StoreError
from nexrl.store.columns import PackedColumn, StreamColumn, TextTable
from nexrl.store.layout import FORMAT_VERSION, FileLayout

WRITE_ERRORS = (OSError, RuntimeError, ValueError)
"""What h5py raises when a write fails, by the HDF5 call that failed."""


class SwmrFile:
    """The writing end of a file with `layout`.

    The order of writes is what makes a commit atomic: columns, flush, fsync, then one element of `commits/rows`, flush,
    fsync. A reader believes only rows that `commits/rows` counts, so a process killed anywhere in between leaves
    exactly the commits before. Nothing that a commit counted is written again, but for packed chunks, whose
    old elements are rewritten with the same bytes at the same place.
    """

    def __init__(self, path: Path, layout: FileLayout, *, attributes: Mapping[str, str | int]) -> None:
        """Create `path` under another name and rename it once readers can open it; raises StoreError."""
        self.path = path
        self.rows = 0
        if path.exists():
            raise StoreError(f"{path}: exists already; a run that is resumed writes with the next attempt number")
        unready = path.with_name(path.name + ".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = h5py.File(unready, "w", libver="latest", locking="best-effort")
        except OSError as error:
            raise StoreError(f"{path}: cannot create the file: {reason(error)}") from error
        try:
            self._file.attrs.update(
                {"format": layout.kind, "version": FORMAT_VERSION, "created": time.time(), **attributes}
            )
            self._packed = {
                column.path: PackedColumn(self._file, column) for column in layout.columns if not column.stream
            }
            self._streams = {
                column.path: StreamColumn(self._file, column) for column in layout.columns if column.stream
            }
            self._texts = {name: self._text_table(name) for name in layout.text_tables}
            self._file.swmr_mode = True
            self._sync()
            unready.rename(path)
            _sync_folder(path.parent)
        except WRITE_ERRORS as error:
            self.abandon()
            unready.unlink(missing_ok=True)
            raise StoreError(f"{path}: cannot create the file: {reason(error)}") from error

    def numbers(self, table: str, texts: Sequence[str]) -> list[int]:
        """The numbers of `texts` in a text table; they are written by the next commit."""
        return self._texts[table].numbers(texts)

    def extend(self, path: str, values: np.ndarray | Sequence[float]) -> int:
        """Append to a packed dataset; returns the position of the first value."""
        return self._packed[path].extend(values)

    def stream(self, path: str, values: np.ndarray) -> int:
        """Append to a compressed dataset; returns the position of the first value."""
        return self._streams[path].extend(values)

    def commit(self, added: int) -> None:
        """Make all that was appended since the last commit durable, and count it as `added` more rows."""
        began = time.time()
        for table in self._texts.values():
            table.store()
        self._sync()
        self.extend("commits/time", [began])
        self.extend("commits/rows", [self.rows + added])
        self._sync()
        self.rows += added

    def close(self) -> None:
        """Close the file, which then opens without SWMR too."""
        self._file.flush()
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file after a failed write, and leave it as the failure did: what was committed stays.

        HDF5 would try again to write what it still holds, fail again, and crash the interpreter at its exit (seen with
        HDF5 2.0 on a full disk). So its descriptor is turned to the null device first, which takes everything.
        """
        with contextlib.suppress(*WRITE_ERRORS):
            sink = os.open(os.devnull, os.O_RDWR)
            try:
                os.dup2(sink, self._file.id.get_vfd_handle())
            finally:
                os.close(sink)
            self._file.close()

    def _text_table(self, name: str) -> TextTable:
        return TextTable(self._packed[f"{name}/first"], self._packed[f"{name}/count"], self._streams[f"{name}/bytes"])

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def reason(error: Exception) -> str:
    """The operating system's words for why a write failed, which HDF5 wraps in many of its own."""
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    quoted = re.search(r"error message = '([^']+)'", str(error))
    return quoted[1] if quoted else str(error)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
