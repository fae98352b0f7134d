"""What crosses the command socket between a train service's client and its ranks."""

import msgspec

from nexrl.types import Shard


class LogProbRequest(msgspec.Struct, frozen=True):
    """Client → rank."""

    shard: Shard
    reference: bool
    """Under the reference model, else under the current weights."""


class LogProbReply(msgspec.Struct, frozen=True):
    """Rank → client. The log-probs themselves stay with the rank for the update that follows."""

    logprob_sums: dict[str, float]
    """By trajectory id, over its trained tokens."""
    kl_sums: dict[str, float]
    """By trajectory id: the configured KL penalty of the current weights to the reference, summed over the trained
    tokens; empty unless the reference was asked for."""


class UpdateReply(msgspec.Struct, frozen=True):
    """Rank → client. `metrics` are those of the whole batch and equal on every rank."""

    metrics: dict[str, float]
    meta_info: dict[str, float]


class SaveRequest(msgspec.Struct, frozen=True):
    """Client → rank."""

    path: str
    global_step: int
    weight_only: bool


class LoadRequest(msgspec.Struct, frozen=True):
    """Client → rank."""

    path: str
    weight_only: bool


class LoadReply(msgspec.Struct, frozen=True):
    """Rank → client."""

    global_step: int
    """Training steps done when the checkpoint was made; -1 where only weights were read."""


class ExportRequest(msgspec.Struct, frozen=True):
    """Client → rank."""

    path: str


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Rank → client."""

    rank: int
    world_size: int
    host: str
    pid: int
    device: str
    parameters: int
    """Of the whole model, tied ones once; 0 before the model is loaded."""
    global_step: int
    """Last training step done."""
