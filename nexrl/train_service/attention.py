"""Attention over packed sequences: tokens of many sequences in one row, none seeing another's.

transformers calls the function below in every layer once a model is loaded with `attention=ATTENTION` after
`register_attention()`. The layout of a micro-batch is worked out once (`plan_segments`) and travels to the layers as
the keyword argument `segments`.

A loop over short segments spends its time on launching kernels, so segments of similar length share one dense causal
call: they are padded at the end, where causal attention of a real token never looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from nexrl.errors import ConfigError

ATTENTION = "nexrl_packed"
PADDING_LIMIT = 0.5
"""Segments join a bucket while padding stays below this share of the bucket's real tokens."""
SMALL_BUCKET = 2048
"""Padded tokens up to which a bucket is worth its padding in any case: one kernel launch costs more."""


@dataclass(frozen=True)
class Bucket:
    """Segments computed in one call."""

    gather: torch.Tensor | None
    """int64 [S * L]: packed position of every padded slot, a slot without token repeats the segment's last;
    None = the bucket is the whole row, as it lies."""
    count: int
    """S, segments."""
    length: int
    """L, tokens of the longest."""


@dataclass(frozen=True)
class Segments:
    """How the tokens of one packed row belong together."""

    buckets: tuple[Bucket, ...]
    scatter: torch.Tensor | None
    """int64 [T]: where each packed token lies among the padded slots of all buckets, one bucket after the other."""


def plan_segments(lengths: Sequence[int], *, device: torch.device) -> Segments:
    """Buckets for segments of `lengths` tokens that lie one after the other; each length is at least 1."""
    lengths_S = np.asarray(lengths, dtype=np.int64)
    starts_S = np.cumsum(lengths_S) - lengths_S
    if (lengths_S == lengths_S[0]).all():
        return Segments((Bucket(None, len(lengths_S), int(lengths_S[0])),), None)
    buckets, scatter_T, slots = [], np.empty(int(lengths_S.sum()), dtype=np.int64), 0
    for members in _similar(lengths_S):
        longest = int(lengths_S[members].max())
        offsets_L = np.arange(longest)
        gather_SL = starts_S[members, None] + np.minimum(offsets_L, lengths_S[members, None] - 1)
        real_SL = offsets_L < lengths_S[members, None]
        scatter_T[gather_SL[real_SL]] = slots + np.flatnonzero(real_SL)
        buckets.append(Bucket(torch.from_numpy(gather_SL.reshape(-1)).to(device), len(members), longest))
        slots += gather_SL.size
    return Segments(tuple(buckets), torch.from_numpy(scatter_T).to(device))


def _similar(lengths_S: np.ndarray) -> list[np.ndarray]:
    """Indices of the segments, longest first, cut where padding would outgrow its limit."""
    parts: list[list[int]] = []
    real = 0
    for index in np.argsort(-lengths_S, kind="stable"):
        length = int(lengths_S[index])
        if parts:
            padded = (len(parts[-1]) + 1) * int(lengths_S[parts[-1][0]])
            if padded <= max(SMALL_BUCKET, (1 + PADDING_LIMIT) * (real + length)):
                parts[-1].append(int(index))
                real += length
                continue
        parts.append([int(index)])
        real = length
    return [np.array(part) for part in parts]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    segments: Segments,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface: query [1, H, T, D], key and value [1, H_kv, T, D] → [1, T, H, D].

    Attention dropout is not applied: a policy's log-probs must not depend on chance. A model whose attention has
    learned sinks, soft-capped scores or position biases is refused with ConfigError.
    """
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise ConfigError(f"{type(module).__name__} uses {name}, which packed attention does not compute")
    query_T, key_T, value_T = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    parts = [
        _attend(bucket, query_T, key_T, value_T, scaling=scaling, window=sliding_window) for bucket in segments.buckets
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (out if segments.scatter is None else out.index_select(0, segments.scatter))[None], None


def _attend(
    bucket: Bucket,
    query_T: torch.Tensor,
    key_T: torch.Tensor,
    value_T: torch.Tensor,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """[T, H, D] each → [S * L, H, D]."""

    def padded(tensor_T: torch.Tensor) -> torch.Tensor:
        slots = tensor_T if bucket.gather is None else tensor_T.index_select(0, bucket.gather)
        return slots.reshape(bucket.count, bucket.length, *slots.shape[1:]).transpose(1, 2)

    mask = None if window is None or window >= bucket.length else _band(bucket.length, window, query_T.device)
    out = F.scaled_dot_product_attention(
        padded(query_T),
        padded(key_T),
        padded(value_T),
        attn_mask=mask,
        is_causal=mask is None,
        scale=scaling,
        enable_gqa=query_T.shape[1] != key_T.shape[1],
    )
    return out.transpose(1, 2).reshape(bucket.count * bucket.length, *query_T.shape[1:2], value_T.shape[2])


def _band(length: int, window: int, device: torch.device) -> torch.Tensor:
    """bool [L, L]: each token sees itself and the `window - 1` before it."""
    causal = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    return causal.triu(1 - window)


def register_attention() -> None:
    """Make `ATTENTION` known to transformers; again does nothing new."""
    from transformers import AttentionInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    AttentionInterface.register(ATTENTION, packed_attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(ATTENTION, _no_mask)


def _no_mask(*_: object, **__: object) -> None:
    """The segments say all that a mask would."""
