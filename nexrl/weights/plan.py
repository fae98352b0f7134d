"""Which bytes of which tensor travel in which bucket. Sender and receiver compute it from the same manifest."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nexrl.weights.manifest import Manifest

ALIGNMENT = 16
"""Bytes: every piece starts at a multiple of it, in its bucket and in its tensor, so that a piece can be viewed in its
own dtype. The widest dtype, complex128, has 16 bytes."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes `start <= b < start + nbytes` of a tensor, and where they lie in their bucket."""

    tensor: int
    """Index into `Manifest.tensors`."""
    start: int
    offset: int
    """In the bucket."""
    nbytes: int


def align(nbytes: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def bucket_size(nbytes: int) -> int:
    """The payload of a bucket that is wanted to hold `nbytes`: a multiple of ALIGNMENT, at least one."""
    return max(nbytes // ALIGNMENT, 1) * ALIGNMENT


def buckets(manifest: Manifest) -> Iterator[tuple[Piece, ...]]:
    """The pieces of each bucket in turn. Every byte of every tensor is in exactly one piece; a tensor that does not fit
    into what is left of a bucket goes on in the next; an empty tensor has no piece."""
    pieces: list[Piece] = []
    used = 0
    for index, tensor in enumerate(manifest.tensors):
        start, left = 0, tensor.nbytes
        while left:
            if used >= manifest.bucket_bytes:
                yield tuple(pieces)
                pieces, used = [], 0
            nbytes = min(left, manifest.bucket_bytes - used)
            pieces.append(Piece(index, start, used, nbytes))
            start, left, used = start + nbytes, left - nbytes, align(used + nbytes)
    if pieces:
        yield tuple(pieces)


def payload_bytes(pieces: Sequence[Piece]) -> int:
    """Bytes of a bucket that travel: the pieces and the padding after each."""
    return align(pieces[-1].offset + pieces[-1].nbytes)
