"""What an update holds, and whether it fits the model that takes it."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import torch

from nexrl.errors import WeightSyncError

_NAMED = 8
"""Tensors that an error names before it says how many more there are."""


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """One tensor as it travels."""

    name: str
    dtype: str
    """As in torch, without `torch.`: `bfloat16`."""
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, tensor: torch.Tensor) -> "TensorSpec":
        """The description of `tensor`."""
        return cls(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))

    @property
    def torch_dtype(self) -> torch.dtype:
        """Raises WeightSyncError for a name that torch does not know."""
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise WeightSyncError(f"{self.name}: dtype {self.dtype!r} is none of torch's")
        return dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return math.prod(self.shape) * self.torch_dtype.itemsize


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What one update holds. Weight sender → weight receivers, through the group, ahead of the buckets."""

    version: int
    bucket_bytes: int
    """Payload of one bucket at most; a multiple of nexrl.weights.plan.ALIGNMENT."""
    tensors: tuple[TensorSpec, ...]
    """In the order in which they travel."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def at(self, version: int) -> "Manifest":
        """The same tensors as another version."""
        return msgspec.structs.replace(self, version=version)


def check_fits(manifest: Manifest, destination: Mapping[str, torch.Tensor]) -> None:
    """Raise WeightSyncError naming every tensor that is missing, unexpected, of another shape, of a dtype that cannot
    be converted, or not contiguous at the destination. A dtype that differs within one kind (float32 → bfloat16) is
    converted on arrival."""
    sent = {tensor.name: tensor for tensor in manifest.tensors}
    findings = []
    if len(sent) != len(manifest.tensors):
        findings.append(f"sent twice: {_some(_repeated(manifest))}")
    if missing := [name for name in destination if name not in sent]:
        findings.append(f"the engine needs, the trainer does not send: {_some(missing)}")
    if unexpected := [name for name in sent if name not in destination]:
        findings.append(f"the trainer sends, the engine does not have: {_some(unexpected)}")
    wrong = [text for name, spec in sent.items() if name in destination and (text := _misfit(spec, destination[name]))]
    if wrong:
        findings.append(_some(wrong))
    if findings:
        raise WeightSyncError(
            f"weights of version {manifest.version} do not fit the engine's model: {'; '.join(findings)}"
        )


def _misfit(spec: TensorSpec, tensor: torch.Tensor) -> str:
    if spec.shape != tuple(tensor.shape):
        return f"{spec.name} has shape {list(spec.shape)} at the trainer, {list(tensor.shape)} at the engine"
    if spec.torch_dtype.is_floating_point != tensor.dtype.is_floating_point:
        return f"{spec.name} is {spec.dtype} at the trainer, {tensor.dtype} at the engine"
    if not tensor.is_contiguous():
        return f"{spec.name} is not contiguous at the engine"
    return ""


def _repeated(manifest: Manifest) -> list[str]:
    return [name for name, times in Counter(tensor.name for tensor in manifest.tensors).items() if times > 1]


def _some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
