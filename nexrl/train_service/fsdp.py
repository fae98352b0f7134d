"""One rank's model and optimizer: transformers under FSDP2, or as it is where there is nothing to shard."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from nexrl.config.schema import ActorConfig, FsdpConfig
from nexrl.errors import ConfigError
from nexrl.train_service.collate import PackedRows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class FsdpBackend:
    """Forward, backward and optimizer steps of one rank; every method is collective over the ranks.

    A single rank that computes in the precision of its parameters is left unsharded: there FSDP2 would take 12 % of
    the time of an update of the 0.8 M demo model, for nothing. torch's default process group says who the ranks are.
    """

    def __init__(self, model: "PreTrainedModel", config: ActorConfig, *, device: torch.device) -> None:
        self._config = config
        self._world_size = dist.get_world_size() if dist.is_initialized() else 1
        if config.model.enable_gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        self.model = model
        self.device = device
        self.sharded = shard_model(model, config.fsdp_config, device=device)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optim = config.optim
        self.optimizer = torch.optim.AdamW(
            self._parameters,
            lr=optim.lr,
            betas=optim.betas,
            eps=optim.eps,
            weight_decay=optim.weight_decay,
            fused=True,
        )

    def logits(self, packed: PackedRows) -> torch.Tensor:
        """[M, V]: at the trained positions only."""
        return packed_logits(self.model, packed)

    def backward(self, loss: torch.Tensor, *, last: bool) -> None:
        """Add the gradients of a share of the loss; ranks add theirs up at the `last` micro-batch of a step.

        FSDP2 averages over ranks, whereas shares add up: hence the factor.
        """
        if isinstance(self.model, FSDPModule):
            self.model.set_requires_gradient_sync(last)
        torch.autograd.backward(loss * self._world_size if self.sharded else loss)

    def gradient_norm(self) -> float:
        """Of all parameters of all ranks, before clipping; NaN or infinite where any gradient is."""
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def update(self, *, norm: float, lr: float) -> None:
        """Clip gradients of total `norm` to `grad_clip`, make one optimizer step at `lr`, drop the gradients."""
        limit = self._config.grad_clip
        if limit > 0.0 and math.isfinite(norm):
            torch.nn.utils.clip_grads_with_norm_(self._parameters, limit, torch.tensor(norm, device=self.device))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.discard()

    def discard(self) -> None:
        """Drop the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Full tensors by Hugging Face name, tied ones once; every rank must exhaust it."""
        seen: set[int] = set()
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                whole = tensor.detach()
                yield name, whole.full_tensor() if isinstance(whole, DTensor) else whole

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """`values` summed over all ranks."""
        if self._world_size > 1:
            dist.all_reduce(values)
        return values


def packed_logits(model: "PreTrainedModel", packed: PackedRows) -> torch.Tensor:
    """Logits [M, V] at the trained positions of packed rows; the model uses `attention.ATTENTION`."""
    output = model(
        input_ids=packed.input_ids,
        position_ids=packed.position_ids,
        use_cache=False,
        logits_to_keep=packed.trained,
        segments=packed.segments,
    )
    return output.logits[0]  # type: ignore[no-any-return]


def shard_model(model: "PreTrainedModel", config: FsdpConfig, *, device: torch.device) -> bool:
    """FSDP2 on every layer and on the whole; returns whether there was anything to shard or to convert."""
    own = next(model.parameters()).dtype
    compute = getattr(torch, config.param_dtype)
    if own == torch.float64 and compute == torch.bfloat16:
        raise ConfigError("found 'bfloat16' with model.dtype float64, needs float32", key="fsdp_config.param_dtype")
    world_size = dist.get_world_size() if dist.is_initialized() else 1
    mixed = compute == torch.bfloat16
    if world_size == 1 and not mixed:
        return False
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32) if mixed else MixedPrecisionPolicy()
    mesh = init_device_mesh(device.type, (world_size,))
    names = set(model._no_split_modules or ())
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard_after_forward)
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=config.reshard_after_forward)
    return True
