"""A trainer and engines without models: named tensors."""

from concurrent.futures import Future

import torch

from nexrl.weights.calls import in_background
from nexrl.weights.receiver import BroadcastReceiver
from nexrl.weights.sender import BroadcastSender

CPU = torch.device("cpu")
BUCKET = 1024
"""Bytes: small enough for many buckets."""


def random_tensors(seed, dtype=torch.float32):
    """Nine buckets of 1,024 bytes; `wide` alone needs four."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"wide": (31, 33), "bias": (7,), "scale": (), "none": (0, 4), "embed": (43, 16), "head": (3, 5, 11)}
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def zeros_like(tensors, dtype=None):
    return {name: torch.zeros(tensor.shape, dtype=dtype or tensor.dtype) for name, tensor in tensors.items()}


class Source:
    """A WeightSource that counts how often it was walked to its end."""

    def __init__(self, tensors):
        self.by_name = tensors
        self.walks = 0

    def tensors(self):
        yield from self.by_name.items()
        self.walks += 1


class Target:
    """A WeightTarget that remembers what it was told."""

    def __init__(self, tensors):
        self.by_name = tensors
        self.version = 0
        self.invalid = ""

    def parameters(self):
        return self.by_name

    def commit(self, version):
        self.version, self.invalid = version, ""

    def invalidate(self, reason):
        self.invalid = reason


def make_sender(source, *, rank=0, bucket_bytes=BUCKET, timeout=20.0):
    return BroadcastSender(
        source, rank=rank, host_address="127.0.0.1", bucket_bytes=bucket_bytes, device=CPU, timeout=timeout
    )


def make_receiver(target, *, timeout=20.0):
    return BroadcastReceiver(target, device=CPU, timeout=timeout)


def meet(sender, receivers, *, epoch=1):
    """Let all of them join one group."""
    address = sender.open_group(world_size=len(receivers) + 1, epoch=epoch)
    for rank, receiver in enumerate(receivers, start=1):
        receiver.join(
            master_address=address.address,
            master_port=address.port,
            rank=rank,
            world_size=len(receivers) + 1,
            epoch=epoch,
        )


def update(sender, receivers, *, version) -> list[Future]:
    """One update at all ends at once; futures of the sender and of each receiver, all done."""
    futures = [in_background("send", lambda: sender.send(version=version))]
    for receiver in receivers:
        futures.append(in_background("receive", lambda receiver=receiver: receiver.receive(version=version)))
    for future in futures:
        future.exception(60)
    return futures
