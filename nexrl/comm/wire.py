"""What stands on the wire: `[ticket, if any] [head] [payload frames of the codec]`."""

import hmac
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec

import nexrl.errors
from nexrl.comm.codec import Frame, decode, encode
from nexrl.errors import CommError, NexRLError


class Kind(IntEnum):
    """What a message is."""

    HELLO = 0
    """Client → server: here I am, under this name."""
    BYE = 1
    """Client → server: I am closing."""
    PING = 2
    """Server → client: nothing; sending it shows the server whether the connection still stands."""
    REQUEST = 3
    REPLY = 4
    ERROR = 5
    CANCEL = 6
    """Caller → callee: nobody waits for this answer any longer."""


class Head(msgspec.Struct, frozen=True, array_like=True):
    """First frame of every message."""

    kind: Kind
    sender: str
    call: int = 0
    """Number of the call among those of its caller; an answer repeats it."""
    method: str = ""


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """Payload of an ERROR."""

    error: str
    """Class in nexrl.errors."""
    message: str


_MAX_HEAD_BYTES = 4096
_head_encoder = msgspec.msgpack.Encoder()
_head_decoder = msgspec.msgpack.Decoder(Head)


def pack(ticket: bytes, head: Head, payload: Sequence[Frame] = ()) -> list[Frame]:
    """One message."""
    start: list[Frame] = [ticket] if ticket else []
    return [*start, _head_encoder.encode(head), *payload]


def unpack(ticket: bytes, frames: Sequence[Any]) -> tuple[Head, Sequence[Any]]:
    """Head and payload of one message (frames have the buffer protocol); CommError where ticket or head is wrong."""
    if ticket:
        if not frames or not _equal(frames[0], ticket):
            raise CommError("a message without this socket's ticket")
        frames = frames[1:]
    if not frames or memoryview(frames[0]).nbytes > _MAX_HEAD_BYTES:
        raise CommError("a message without a head")
    try:
        return _head_decoder.decode(frames[0]), frames[1:]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise CommError(f"a message with a malformed head: {error}") from error


def _equal(frame: Any, ticket: bytes) -> bool:
    """In a time that says nothing of where the two differ."""
    view = memoryview(frame)
    return view.nbytes == len(ticket) and hmac.compare_digest(view, ticket)


def failure_frames(error: NexRLError) -> list[Frame]:
    """Payload that makes the caller raise what the handler raised; a class of one's own travels as its nearest base."""
    known = next(kind for kind in type(error).__mro__ if getattr(nexrl.errors, kind.__name__, None) is kind)
    message = str(error).encode(errors="replace").decode()  # a file name in it may not be Unicode
    return encode(Failure(known.__name__, message))


def read_failure(payload: Sequence[Any]) -> NexRLError:
    """The error of an ERROR message, ready to be raised."""
    failure = decode(payload, Failure)
    kind = getattr(nexrl.errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, NexRLError):
        return kind(failure.message)
    return CommError(f"{failure.error}: {failure.message}")
