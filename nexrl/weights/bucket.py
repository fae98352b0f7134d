"""The buffer in which weights travel: pieces of tensors, then one checksum word."""

from collections.abc import Sequence

import torch

from nexrl.weights.manifest import Manifest
from nexrl.weights.plan import Piece, align, payload_bytes

_WORD = 8
"""Bytes of int64."""
_VERSION_FACTOR = 0x9E3779B97F4A7C15
_INDEX_FACTOR = 0xC2B2AE3D27D4EB4F


def salt(version: int, index: int) -> int:
    """What is mixed into the checksum of bucket `index`, so that a bucket of another version or place never fits."""
    mixed = (version + 1) * _VERSION_FACTOR + (index + 1) * _INDEX_FACTOR
    return (mixed + 2**63) % 2**64 - 2**63


class Bucket:
    """One reusable buffer of `capacity` payload bytes on `device`.

    The checksum is the sum of the payload as int64 words, modulo 2**64, plus `salt`. It is computed where the bucket
    lies, in one pass at memory speed, and finds any one damaged word and nearly all others; words that changed places
    within a bucket it does not find.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._words = torch.zeros(capacity // _WORD + 1, dtype=torch.int64, device=device)
        self._bytes = self._words.view(torch.uint8)

    def frame(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """int64 [words + 1]: what travels for these pieces, checksum included."""
        return self._words[: payload_bytes(pieces) // _WORD + 1]

    def piece(self, piece: Piece) -> torch.Tensor:
        """uint8 [nbytes]: the place of a piece."""
        return self._bytes[piece.offset : piece.offset + piece.nbytes]

    def seal(self, pieces: Sequence[Piece], *, version: int, index: int) -> torch.Tensor:
        """Write the checksum; returns the frame to send."""
        frame = self.frame(pieces)
        frame[-1] = frame[:-1].sum() + salt(version, index)
        return frame

    def holds(self, pieces: Sequence[Piece], *, version: int, index: int) -> bool:
        """Whether what has arrived fits its checksum."""
        frame = self.frame(pieces)
        return bool(frame[:-1].sum() + salt(version, index) == frame[-1])


def bucket_for(manifest: Manifest, device: torch.device) -> Bucket:
    """A buffer for any bucket of `manifest`, no larger than all of them together."""
    most = sum(align(tensor.nbytes) for tensor in manifest.tensors)
    return Bucket(min(manifest.bucket_bytes, most), device)


def flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    """uint8 [bytes]: a contiguous tensor as it lies in memory."""
    return tensor.view(-1).view(torch.uint8)
