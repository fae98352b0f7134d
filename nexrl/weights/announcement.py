"""The manifest's way through the group, ahead of the buckets: no other channel is needed."""

import zlib

import msgspec
import torch

from nexrl.errors import WeightSyncError
from nexrl.weights.manifest import Manifest
from nexrl.weights.rendezvous import WeightGroup

SENDER = 0
"""Rank in the weight group."""
_MAGIC = 0x4E58524C0001
"""`NXRL` and the version of this format."""
_MAX_BYTES = 1 << 28


def send_manifest(group: WeightGroup, manifest: Manifest, device: torch.device) -> None:
    """Two broadcasts: int64 [magic, bytes, CRC-32], then the manifest as msgpack, uint8 [bytes]."""
    text = msgspec.msgpack.encode(manifest)
    group.broadcast(torch.tensor([_MAGIC, len(text), zlib.crc32(text)], dtype=torch.int64, device=device), SENDER)
    group.broadcast(torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device), SENDER)


def receive_manifest(group: WeightGroup, device: torch.device) -> Manifest:
    """The other end; raises WeightSyncError for anything but a manifest."""
    head = torch.zeros(3, dtype=torch.int64, device=device)
    group.broadcast(head, SENDER)
    magic, length, crc = head.tolist()
    if magic != _MAGIC or not 0 < length <= _MAX_BYTES:
        raise WeightSyncError(f"the weight group carries no manifest: found head {[magic, length, crc]}")
    body = torch.empty(length, dtype=torch.uint8, device=device)
    group.broadcast(body, SENDER)
    text = body.cpu().numpy().tobytes()
    if zlib.crc32(text) != crc:
        raise WeightSyncError(f"the manifest does not match its checksum: found {zlib.crc32(text):#x}, sent {crc:#x}")
    return msgspec.msgpack.decode(text, type=Manifest)
