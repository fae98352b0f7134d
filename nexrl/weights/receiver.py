"""The engine's end of a weight broadcast."""

from collections.abc import Mapping, Sequence
from threading import Lock

import torch

from nexrl.cluster.process_group import PrivateGroup
from nexrl.errors import WeightSyncError
from nexrl.types.protocols import WeightTarget
from nexrl.weights.announcement import SENDER, receive_manifest
from nexrl.weights.bucket import Bucket, bucket_for
from nexrl.weights.manifest import Manifest, check_fits
from nexrl.weights.plan import Piece, buckets
from nexrl.weights.rendezvous import Rendezvous


class BroadcastReceiver:
    """A WeightReceiver: takes buckets from the weight group and copies them into a WeightTarget, bucket by bucket.

    Beside the model it needs one bucket of memory, so the old weights are overwritten as new ones arrive. What does
    not fit is refused before that, and the old weights stay served; if a later bucket fails, the target is invalidated
    and must not serve until an update has gone through. Dtypes are converted on arrival.
    """

    def __init__(self, target: WeightTarget, *, device: torch.device, timeout: float) -> None:
        """Buckets lie on `device`: the CPU for Gloo, a CUDA device for NCCL. `timeout` seconds is the deadline of the
        meeting and of each broadcast."""
        self._target = target
        self._device = device
        self._timeout = timeout
        self._rendezvous: Rendezvous | None = None
        self._receiving = Lock()
        """One update at a time: one that was given up must have ended before the next begins."""

    def join(self, *, master_address: str, master_port: int, rank: int, world_size: int, epoch: int) -> None:
        """Leave the former group and begin to meet in the group `epoch`; returns at once."""
        self.leave()
        self._rendezvous = Rendezvous(
            lambda: PrivateGroup.join(
                master_address,
                master_port,
                rank=rank,
                world_size=world_size,
                epoch=epoch,
                timeout=self._timeout,
                device=self._device,
            ),
            epoch=epoch,
            timeout=self._timeout,
        )

    def receive(self, *, version: int) -> None:
        """Take all weights and commit them as `version`.

        Raises WeightSyncError for a group that is not complete or breaks, weights that don't fit, another version, a
        checksum that does not hold. It then leaves the group, so that nobody goes on waiting for it.
        """
        with self._receiving:
            rendezvous = self._rendezvous
            if rendezvous is None:
                raise WeightSyncError(f"weights of version {version} are due, but this engine is in no weight group")
            update = _Update(self._target, self._device)
            try:
                with torch.inference_mode():
                    update.run(rendezvous, version)
            except BaseException as error:
                rendezvous.close()
                if update.overwriting:
                    self._target.invalidate(f"the update to version {version} broke off: {error}")
                raise
            self._target.commit(version)

    def leave(self) -> None:
        """Leave the group; a `receive` under way on another thread fails."""
        if self._rendezvous is not None:
            self._rendezvous.close()


class _Update:
    """One update on its way in."""

    def __init__(self, target: WeightTarget, device: torch.device) -> None:
        self._target = target
        self._device = device
        self.overwriting = False
        """Whether the target holds anything new yet."""

    def run(self, rendezvous: Rendezvous, version: int) -> None:
        group = rendezvous.group()
        manifest = receive_manifest(group, self._device)
        if manifest.version != version:
            raise WeightSyncError(f"the trainer sends version {manifest.version}, this engine was told {version}")
        destination = self._target.parameters()
        check_fits(manifest, destination)
        bucket = bucket_for(manifest, self._device)
        for index, pieces in enumerate(buckets(manifest)):
            group.broadcast(bucket.frame(pieces), SENDER)
            if not bucket.holds(pieces, version=version, index=index):
                first, last = (manifest.tensors[piece.tensor].name for piece in (pieces[0], pieces[-1]))
                raise WeightSyncError(f"bucket {index} ({first} … {last}) does not match its checksum")
            self.overwriting = True
            self._unpack(bucket, pieces, manifest, destination)

    @staticmethod
    def _unpack(
        bucket: Bucket, pieces: Sequence[Piece], manifest: Manifest, destination: Mapping[str, torch.Tensor]
    ) -> None:
        for piece in pieces:
            spec = manifest.tensors[piece.tensor]
            size = spec.torch_dtype.itemsize
            start, end = piece.start // size, (piece.start + piece.nbytes) // size
            destination[spec.name].view(-1)[start:end].copy_(bucket.piece(piece).view(spec.torch_dtype))
