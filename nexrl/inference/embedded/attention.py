"""Attention over the slot cache, registered with transformers under a name of its own.

transformers' `sdpa` repeats the key and value heads of grouped-query attention at every step. While decoding, the
queries that share a head are simply several query positions of it, so nothing needs to be repeated: more than twice
as fast per step on CPU.
"""

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from nexrl.errors import InferenceError

NAME = "nexrl_slots"
_CHANGES_RESULT = ("sliding_window", "s_aux", "softcap", "position_bias")


def use_slot_attention(model: PreTrainedModel) -> None:
    """Make `model` attend with `slot_attention`."""
    AttentionInterface.register(NAME, slot_attention)
    model.set_attn_implementation(NAME)


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    kv_buckets: "KvBuckets | None" = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the shape that transformers calls it.

    Without a mask it is a prefill: query [B, heads, T, D], key and value [B, kv_heads, T, D], causal. With one it is
    a decoding step: query [B, heads, 1, D], key and value [B, kv_heads, L, D], mask [B, 1, 1, L] added to the scores.
    Returns [B, T, heads, D]. Raises InferenceError for a kind of attention that it does not compute.
    """
    for name in _CHANGES_RESULT:
        if options.get(name) is not None:
            raise InferenceError(f"{type(module).__name__} needs attention with {name}: the embedded engine has none")
    rows, heads, length, dim = query.shape
    groups = heads // key.shape[1]
    if attention_mask is None:
        key, value = (_repeat(states, groups) for states in (key, value))
        out = scaled_dot_product_attention(query, key, value, is_causal=length > 1, scale=scaling)
        return out.transpose(1, 2).contiguous(), None
    query = query.reshape(rows, heads // groups, groups, dim)
    if kv_buckets is None:
        out = scaled_dot_product_attention(query, key, value, attn_mask=attention_mask, scale=scaling)
    else:
        out = kv_buckets.attend(query, key, value, attention_mask, scaling=scaling)
    return out.reshape(rows, 1, heads, dim), None


def _repeat(states: torch.Tensor, groups: int) -> torch.Tensor:
    """[B, kv_heads, T, D] → [B, kv_heads * groups, T, D]."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


class KvBuckets:
    """Attends each row over a length that depends on that row alone, so that no other row can change its rounding.

    `lengths` are rows' own cached lengths rounded up to a multiple of `SIZE`; every bucket that occurs is computed
    for all rows (one shape per bucket) and kept for the rows that belong to it.
    """

    SIZE = 128

    def __init__(self, lengths_B: torch.Tensor, *, taken: int) -> None:
        """Rows from `taken` on belong to nobody: what they get is not defined."""
        self._lengths = lengths_B.view(-1, 1, 1, 1)
        self._buckets: list[int] = sorted(set(lengths_B[:taken].tolist()))

    @property
    def longest(self) -> int:
        """Cache length that must be handed to `attend`."""
        return self._buckets[-1]

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor,
        *,
        scaling: float | None,
    ) -> torch.Tensor:
        """[B, kv_heads, groups, D] as `scaled_dot_product_attention` gives it."""
        out: torch.Tensor | None = None
        for bucket in self._buckets:
            part = scaled_dot_product_attention(
                query, key[:, :, :bucket], value[:, :, :bucket], attn_mask=mask[..., :bucket], scale=scaling
            )
            out = part if out is None else torch.where(self._lengths == bucket, part, out)
        assert out is not None  # there is a bucket for every taken row
        return out
