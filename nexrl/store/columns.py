"""How elements get into the datasets of a SWMR file: packed columns, compressed streams, tables of text.

They call HDF5 through low-level objects of h5py: its array syntax costs 100 µs a call, ten times what these calls do,
and a commit makes one per dataset.
"""

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from isal import isal_zlib

from nexrl.store.layout import PACKED_CHUNK, STREAM_CHUNK, Column

_DEFLATE_LEVEL = 1
"""isal's level 1: 2 and 3 reach the same ratio and are slower (measured on token ids, log-probs and text)."""
_REMEMBERED = 65536
"""Texts that are remembered so that they are stored once; then all are forgotten, and stored again when they recur."""


class PackedColumn:
    """An unfiltered dataset whose last chunk grows in place."""

    def __init__(self, file: h5py.File, column: Column) -> None:
        dataset = _create(file, column, chunk=PACKED_CHUNK)
        self._id = dataset.id
        self._dtype = dataset.dtype
        self._length = 0

    def extend(self, values: np.ndarray | Sequence[float]) -> int:
        """Append `values`; returns the position of the first."""
        start = self._length
        array = np.ascontiguousarray(values, dtype=self._dtype)
        if len(array):
            self._length += len(array)
            self._id.set_extent((self._length,))
            place = self._id.get_space()
            place.select_hyperslab((start,), (len(array),))
            self._id.write(h5py.h5s.create_simple((len(array),)), place, array)
        return start


class StreamColumn:
    """A compressed dataset that grows by whole chunks, each written once."""

    def __init__(self, file: h5py.File, column: Column) -> None:
        filters = {"compression": "gzip", "compression_opts": _DEFLATE_LEVEL, "shuffle": column.shuffle}
        dataset = _create(file, column, chunk=STREAM_CHUNK, **filters)
        self._id = dataset.id
        self._dtype = dataset.dtype
        self._shuffle = column.shuffle
        self._length = 0

    def extend(self, values: np.ndarray) -> int:
        """Append `values` from the next chunk boundary on; returns the position of the first.

        Chunks are deflated here and stored as they are: HDF5's own deflate is several times slower. The rest of the
        last chunk is zeros, which cost next to nothing.
        """
        start = -(-self._length // STREAM_CHUNK) * STREAM_CHUNK
        if not len(values):
            return start
        self._length = start + len(values)
        self._id.set_extent((self._length,))
        for offset in range(0, len(values), STREAM_CHUNK):
            block = values[offset : offset + STREAM_CHUNK]
            if len(block) < STREAM_CHUNK:
                block = np.concatenate([block, np.zeros(STREAM_CHUNK - len(block), dtype=self._dtype)])
            self._id.write_direct_chunk((start + offset,), _deflated(block, shuffle=self._shuffle))
        return start


class TextTable:
    """A table of texts that grows: numbers them, keeps what a commit adds until `store` writes it."""

    def __init__(self, first: PackedColumn, count: PackedColumn, content: StreamColumn) -> None:
        self._first = first
        self._count = count
        self._content = content
        self._numbers: dict[str, int] = {}
        self._new: list[bytes] = []
        self._next = 0

    def numbers(self, texts: Sequence[str]) -> list[int]:
        """One number per text; a text that was numbered lately keeps its number."""
        known = self._numbers
        for text in texts:
            if text not in known:
                known[text] = self._next
                self._next += 1
                self._new.append(text.encode("utf-8", "surrogatepass"))
        return [known[text] for text in texts]

    def store(self) -> None:
        """Write the texts that were numbered since the last call."""
        counts = np.array([len(text) for text in self._new], dtype=np.int64)
        start = self._content.extend(np.frombuffer(b"".join(self._new), dtype=np.uint8))
        self._first.extend(start + np.cumsum(counts) - counts)
        self._count.extend(counts)
        self._new = []
        if len(self._numbers) > _REMEMBERED:
            self._numbers = {}


def _create(file: h5py.File, column: Column, *, chunk: int, **filters: Any) -> h5py.Dataset:
    dataset = file.create_dataset(
        column.path, shape=(0,), maxshape=(None,), chunks=(chunk,), dtype=column.dtype, **filters
    )
    dataset.attrs["meaning"] = column.meaning
    if column.unit:
        dataset.attrs["unit"] = column.unit
    if column.refers:
        dataset.attrs["refers"] = column.refers
    return dataset


def _deflated(block: np.ndarray, *, shuffle: bool) -> bytes:
    if shuffle:
        block = np.ascontiguousarray(block.view(np.uint8).reshape(-1, block.itemsize).T)
    compressed: bytes = isal_zlib.compress(block, _DEFLATE_LEVEL)
    return compressed
