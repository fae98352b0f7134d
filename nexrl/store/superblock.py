"""The first 48 bytes of an HDF5 file, which say whether it was closed.

Layout (superblock version 3, "HDF5 File Format Specification Version 3.0", III.A): signature [8], version [1], size of
offsets [1], size of lengths [1], consistency flags [1], then four offsets of 8 bytes (base address, extension, end of
file, root object header) and a checksum [4] over all before it: Bob Jenkins' `lookup3` (2006, public domain).
"""

import os
import struct
from pathlib import Path

from nexrl.errors import StoreError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SUPERBLOCK = struct.Struct("<8sBBBBQQQQ")
_SIZE = _SUPERBLOCK.size + 4
_MASK = 0xFFFFFFFF


def is_closed(path: Path) -> bool:
    """Whether the writer closed the file; False while it is written and after a crash. Raises StoreError."""
    return _read(path)[4] == 0


def clear_flags(path: Path) -> None:
    """Mark a file whose writer was killed as closed, so that any HDF5 program opens it; its data is not touched.

    Only for a file that nobody writes to any more. The end of file is noted too, which a killed writer leaves behind
    the truth. Raises StoreError for a file that is not HDF5 or has another superblock than SWMR files have.
    """
    fields = list(_read(path))
    fields[4] = 0
    fields[7] = path.stat().st_size
    body = _SUPERBLOCK.pack(*fields)
    with path.open("r+b") as file:
        file.write(body + struct.pack("<I", lookup3(body)))
        file.flush()
        os.fsync(file.fileno())


def _read(path: Path) -> tuple[int, ...]:
    try:
        with path.open("rb") as file:
            raw = file.read(_SIZE)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error}") from error
    if len(raw) < _SIZE or not raw.startswith(_SIGNATURE):
        raise StoreError(f"{path}: not an HDF5 file, or cut off within its first {_SIZE} bytes")
    fields = _SUPERBLOCK.unpack(raw[: _SUPERBLOCK.size])
    if fields[1:4] != (3, 8, 8):
        raise StoreError(f"{path}: superblock version {fields[1]}, trajectory files have version 3")
    if struct.unpack("<I", raw[_SUPERBLOCK.size :])[0] != lookup3(raw[: _SUPERBLOCK.size]):
        raise StoreError(f"{path}: the checksum of its first {_SIZE} bytes does not hold")
    return fields


def lookup3(data: bytes) -> int:
    """Jenkins' 32-bit hash `hashlittle` with initial value 0."""
    a = b = c = (0xDEADBEEF + len(data)) & _MASK
    if not data:
        return c
    whole = (len(data) - 1) // 12 * 12
    for offset in range(0, whole, 12):
        x, y, z = struct.unpack_from("<III", data, offset)
        a, b, c = _mix((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)
    x, y, z = struct.unpack("<III", data[whole:].ljust(12, b"\0"))
    return _final((a + x) & _MASK, (b + y) & _MASK, (c + z) & _MASK)


def _rotate(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK


def _mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for bits_a, bits_b, bits_c in ((4, 6, 8), (16, 19, 4)):
        a = ((a - c) & _MASK) ^ _rotate(c, bits_a)
        c = (c + b) & _MASK
        b = ((b - a) & _MASK) ^ _rotate(a, bits_b)
        a = (a + c) & _MASK
        c = ((c - b) & _MASK) ^ _rotate(b, bits_c)
        b = (b + a) & _MASK
    return a, b, c


def _final(a: int, b: int, c: int) -> int:
    for bits in ((14, 11, 25), (16, 4, 14)):
        c = ((c ^ b) - _rotate(b, bits[0])) & _MASK
        a = ((a ^ c) - _rotate(c, bits[1])) & _MASK
        b = ((b ^ a) - _rotate(a, bits[2])) & _MASK
    return ((c ^ b) - _rotate(b, 24)) & _MASK
