"""Records to frames and back, without pickle: frame 0 is msgpack, every numpy array is a raw frame of its own.

In frame 0 an array stands as a msgpack extension (type 1) that holds `[frame, dtype, shape]`: which frame carries its
bytes (1 = the first after frame 0), numpy's dtype string with its byte order, and the shape. Bytes are in C order.
"""

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar, overload

import msgspec
import numpy as np

from nexrl.errors import CommError

T = TypeVar("T")
Frame = bytes | memoryview

MAX_FRAME_BYTES = 1 << 30
"""Of one frame; sockets drop a peer that announces more (protects memory), so `encode` refuses it as well."""
MAX_HEAD_BYTES = 1 << 28
"""Of frame 0: all that is not an array."""

_ARRAY = 1
_KINDS = frozenset("biufc")


class _ArrayRef(msgspec.Struct, frozen=True, array_like=True):
    """What frame 0 says of an array."""

    frame: int
    dtype: str
    shape: tuple[int, ...]


_ref_encoder = msgspec.msgpack.Encoder()
_ref_decoder = msgspec.msgpack.Decoder(_ArrayRef)


def encode(obj: Any) -> list[Frame]:
    """Frames of `obj`: any tree of msgspec Structs, dataclasses, builtin containers and scalars, numpy scalars, arrays.

    Array frames are views of the arrays' memory (a copy only where an array is not C-contiguous): don't write to an
    array before what was sent has arrived. Raises CommError for an array of objects, strings or records, and for
    anything that msgpack cannot hold.
    """
    frames: list[Frame] = [b""]

    def hook(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            frames.append(_array_bytes(value))
            ref = _ArrayRef(len(frames) - 1, value.dtype.str, value.shape)
            return msgspec.msgpack.Ext(_ARRAY, _ref_encoder.encode(ref))
        if isinstance(value, np.generic) and value.dtype.kind in _KINDS:
            return value.item()
        raise CommError(f"cannot send a {type(value).__module__}.{type(value).__qualname__}")

    try:
        frames[0] = msgspec.msgpack.Encoder(enc_hook=hook).encode(obj)
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CommError(f"cannot send a {type(obj).__qualname__}: {error}") from error
    if len(frames[0]) > MAX_HEAD_BYTES:
        raise CommError(
            f"cannot send a {type(obj).__qualname__}: {len(frames[0])} bytes besides arrays, at most {MAX_HEAD_BYTES}"
        )
    return frames


@overload
def decode(frames: Sequence[Any], type: type[T]) -> T: ...
@overload
def decode(frames: Sequence[Any], type: None) -> None: ...
def decode(frames: Sequence[Any], type: Any) -> Any:
    """The `type` that `encode` made `frames` of; each frame is anything with the buffer protocol.

    Arrays are views of their frames, writable where the frame is. Raises CommError for whatever is not the encoding of
    a `type`: bad msgpack, missing or surplus frames, sizes that don't match, an array dtype that is not a number's.
    """
    if not frames:
        raise CommError("found no frame, needed at least one")
    if memoryview(frames[0]).nbytes > MAX_HEAD_BYTES:
        raise CommError(f"found {memoryview(frames[0]).nbytes} bytes besides arrays, at most {MAX_HEAD_BYTES}")
    used: set[int] = set()

    def hook(code: int, data: memoryview) -> np.ndarray:
        if code != _ARRAY:
            raise ValueError(f"unknown extension type {code}")
        ref = _ref_decoder.decode(data)
        if not 0 < ref.frame < len(frames) or ref.frame in used:
            raise ValueError(f"array in frame {ref.frame} of {len(frames)}, or twice")
        used.add(ref.frame)
        return _array(ref, frames[ref.frame])

    decoder = _plain_decoder(type) if len(frames) == 1 else _decoder(type, hook)
    try:
        obj = decoder.decode(frames[0])
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, AttributeError) as error:
        raise CommError(f"cannot read a {_name(type)}: {error}") from error
    if len(used) != len(frames) - 1:
        raise CommError(f"cannot read a {_name(type)}: {len(frames) - 1} array frames for {len(used)} arrays")
    return obj


def _array_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes in C order, as a flat view."""
    if array.dtype.kind not in _KINDS:
        raise CommError(f"cannot send an array of dtype {array.dtype}: only bool, integer, float and complex")
    if array.nbytes > MAX_FRAME_BYTES:
        raise CommError(f"cannot send an array of {array.nbytes} bytes: at most {MAX_FRAME_BYTES}, send it in parts")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _array(ref: _ArrayRef, frame: Any) -> np.ndarray:
    """The array that `ref` describes, on the memory of `frame`; ValueError where they don't fit."""
    dtype = np.dtype(ref.dtype)
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of dtype {dtype}")
    if any(size < 0 for size in ref.shape):
        raise ValueError(f"an array of shape {ref.shape}")
    found, needed = memoryview(frame).nbytes, math.prod(ref.shape) * dtype.itemsize
    if found != needed:
        raise ValueError(f"{found} bytes for an array {dtype}{list(ref.shape)} of {needed}")
    if not needed:
        return np.empty(ref.shape, dtype)
    array = np.frombuffer(frame, dtype).reshape(ref.shape)
    return array if array.flags.aligned else array.copy()


def _decoder(type: Any, ext_hook: Callable[[int, memoryview], Any] | None) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(type, ext_hook=ext_hook, dec_hook=_only_arrays)


@lru_cache(maxsize=256)
def _plain_decoder(type: Any) -> msgspec.msgpack.Decoder[Any]:
    """For messages without arrays, which are most: made once per type."""
    return _decoder(type, _no_array)


def _no_array(code: int, data: memoryview) -> Any:
    raise ValueError(f"extension type {code} of {len(data)} bytes without an array frame")


def _only_arrays(type: Any, value: Any) -> Any:
    """msgspec asks for every field whose type it doesn't know: only arrays may be such."""
    if not isinstance(value, np.ndarray):
        raise ValueError(f"found {value.__class__.__name__}, needed {_name(type)}")  # noqa: TRY004 (msgspec expects it)
    return value


def _name(type: Any) -> str:
    return getattr(type, "__qualname__", str(type))
