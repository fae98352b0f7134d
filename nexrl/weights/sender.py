"""The trainer's end of a weight broadcast."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nexrl.cluster.process_group import PrivateGroup, free_store
from nexrl.errors import WeightSyncError
from nexrl.types import GroupAddress
from nexrl.types.protocols import WeightSource
from nexrl.weights.announcement import SENDER, send_manifest
from nexrl.weights.bucket import bucket_for, flat_bytes
from nexrl.weights.manifest import Manifest, TensorSpec
from nexrl.weights.plan import bucket_size, buckets
from nexrl.weights.rendezvous import Rendezvous


class BroadcastSender:
    """Streams the tensors of a WeightSource to a weight group, in the dtypes that they have.

    Every trainer rank has one and calls `send` (gathering a tensor is collective); rank 0 alone is in the weight group
    and sends. Buckets lie on `device`: the CPU for Gloo, a CUDA device for NCCL. Beside a source's own gathered tensor
    one bucket of memory is used. Packing and sending take turns: a copy costs a few per cent of a broadcast, and a
    second bucket in flight would break the memory bound.
    """

    def __init__(
        self,
        source: WeightSource,
        *,
        rank: int,
        host_address: str,
        bucket_bytes: int,
        device: torch.device,
        timeout: float,
    ) -> None:
        """`timeout` seconds is the deadline of the meeting and of each broadcast."""
        self._source = source
        self._rank = rank
        self._host_address = host_address
        self._bucket_bytes = bucket_size(bucket_bytes)
        self._device = device
        self._timeout = timeout
        self._tensors: tuple[TensorSpec, ...] = ()
        self._rendezvous: Rendezvous | None = None

    def open_group(self, *, world_size: int, epoch: int) -> GroupAddress:
        """Leave the former group and begin to meet in the group `epoch` (rank 0 only); returns where, at once."""
        if self._rank != 0:
            raise WeightSyncError(f"trainer rank {self._rank} was asked to open a weight group: rank 0 sends")
        self.abort()
        # one store per epoch: a meeting that was given up may hold the store's client until its deadline
        store = free_store(self._host_address, timeout=self._timeout)
        self._rendezvous = Rendezvous(
            lambda: PrivateGroup(
                store,
                rank=SENDER,
                world_size=world_size,
                epoch=epoch,
                timeout=self._timeout,
                device=self._device,
                host_address=self._host_address,
            ),
            epoch=epoch,
            timeout=self._timeout,
        )
        return GroupAddress(address=self._host_address, port=store.port)

    @torch.no_grad()
    def send(self, *, version: int) -> int:
        """Send everything as `version`; returns the bytes sent, 0 on ranks other than 0.

        Raises WeightSyncError, with the group given up. However it ends, the source is exhausted: other ranks gather
        with this one.
        """
        with self._giving_up_on_failure():
            manifest = self._manifest(version)
        tensors = self._source.tensors()
        try:
            if self._rank == 0:
                with self._giving_up_on_failure():
                    self._stream(manifest, tensors)
        finally:
            deque(tensors, maxlen=0)
        return manifest.nbytes if self._rank == 0 else 0

    def abort(self) -> None:
        """Leave the group: a `send` under way on another thread fails."""
        if self._rendezvous is not None:
            self._rendezvous.close()

    @contextmanager
    def _giving_up_on_failure(self) -> Iterator[None]:
        """Receivers must not wait for what will not come."""
        try:
            yield
        except BaseException:
            self.abort()
            raise

    def _manifest(self, version: int) -> Manifest:
        """The first time, the source is walked once for it: names, shapes and dtypes never change after that."""
        if not self._tensors:
            self._tensors = tuple(TensorSpec.of(name, tensor) for name, tensor in self._source.tensors())
        return Manifest(version, self._bucket_bytes, self._tensors)

    def _stream(self, manifest: Manifest, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        if self._rendezvous is None:
            raise WeightSyncError("weights were to be sent before a weight group was opened")
        group = self._rendezvous.group()
        send_manifest(group, manifest, self._device)
        bucket = bucket_for(manifest, self._device)
        walk = _Walk(manifest, tensors)
        for index, pieces in enumerate(buckets(manifest)):
            for piece in pieces:
                flat = walk.to(piece.tensor)
                bucket.piece(piece).copy_(flat[piece.start : piece.start + piece.nbytes])
                del flat  # the source may gather the next tensor into its place
            group.broadcast(bucket.seal(pieces, version=manifest.version, index=index), SENDER)


class _Walk:
    """The source's tensors in turn, holding one at a time."""

    def __init__(self, manifest: Manifest, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        self._manifest = manifest
        self._tensors = tensors
        self._index = -1
        self._flat = torch.empty(0, dtype=torch.uint8)

    def to(self, index: int) -> torch.Tensor:
        """uint8 [bytes]: tensor `index`, which is the one of the last call or comes after it."""
        while self._index < index:
            self._index += 1
            self._flat = torch.empty(0, dtype=torch.uint8)
            self._flat = self._next(self._manifest.tensors[self._index])
        return self._flat

    def _next(self, expected: TensorSpec) -> torch.Tensor:
        name, tensor = next(self._tensors, ("nothing", torch.empty(0)))
        found = TensorSpec.of(name, tensor)
        if found != expected:
            raise WeightSyncError(f"the trainer's weights have changed their form: found {found}, announced {expected}")
        return flat_bytes(tensor.detach().contiguous())
