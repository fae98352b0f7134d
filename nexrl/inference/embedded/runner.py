"""The model's forward on slots: prompts in, logits of the next token out."""

import logging
from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from nexrl.errors import ConfigError, InferenceError
from nexrl.inference.embedded.attention import KvBuckets, use_slot_attention
from nexrl.inference.embedded.cache import SlotCache

logger = logging.getLogger(__name__)

_PREFILL_TOKENS = 8192
"""Padded tokens of one prefill forward."""
_PREFILL_LOGITS = 2**26
"""Logits that one prefill forward may compute (256 MiB)."""


class ModelRunner:
    """Runs `model` on a slot cache.

    `deterministic`: a row's logits depend, bit for bit, on its own tokens alone. Prompts are prefilled one by one;
    decoding always computes the same number of rows, each attending over a length of its own. That leaves the place
    of a row in the batch, which a check at the start proves to be without influence; where this machine's kernels
    round by place, rows are decoded one by one.
    """

    def __init__(self, model: PreTrainedModel, *, max_num_seqs: int, max_model_len: int, deterministic: bool) -> None:
        _check_model(model, max_model_len)
        use_slot_attention(model)
        self.device, self.dtype = model.device, model.dtype
        self.vocab_size = int(model.get_output_embeddings().weight.shape[0])
        self._model = model
        self._slots = max_num_seqs
        self._max_len = max_model_len
        self._places = torch.arange(max_model_len, device=self.device)
        self.cache = SlotCache(
            model.config, slots=max_num_seqs, max_len=max_model_len, dtype=self.dtype, device=self.device
        )
        self._block = max_num_seqs if deterministic else 0
        """Rows of one deterministic forward; 0 = not deterministic."""
        if deterministic and not self._place_does_not_matter():
            logger.warning("this machine's kernels round by a row's place: deterministic decoding goes row by row")
            self._block = 1

    @property
    def deterministic(self) -> bool:
        """Whether other rows have no influence on a row's logits."""
        return self._block > 0

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> torch.Tensor:
        """Put prompt i into every slot of `slots[i]`; returns the logits after its last token, [len(prompts), V]."""
        logits = torch.empty(len(prompts), self.vocab_size, dtype=self.dtype, device=self.device)
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        while order:
            group = order[: self._prefill_size([len(prompts[i]) for i in order])]
            del order[: len(group)]
            logits[group] = self._prefill([prompts[i] for i in group], [slots[i] for i in group])
        return logits

    @torch.inference_mode()
    def decode(self, tokens: np.ndarray, positions: np.ndarray, count: int) -> torch.Tensor:
        """Feed `tokens[i]` at `positions[i]` to slot i < `count`; returns logits [count, V], deterministic:
        [slots, V], of which the first `count` count. Arrays have one int64 per slot."""
        tokens_B, positions_B = (torch.from_numpy(array).to(self.device) for array in (tokens, positions))
        if not self._block:
            length = int(positions[:count].max()) + 1
            return self._decode(0, tokens_B[:count], positions_B[:count], length=length)
        own = (positions // KvBuckets.SIZE + 1) * KvBuckets.SIZE
        own_B = torch.from_numpy(np.minimum(own, self._max_len)).to(self.device)
        if self._block == self._slots:
            return self._decode(0, tokens_B, positions_B, buckets=KvBuckets(own_B, taken=count))
        logits = torch.zeros(self._slots, self.vocab_size, dtype=self.dtype, device=self.device)
        for row in range(count):
            part = slice(row, row + 1)
            logits[part] = self._decode(row, tokens_B[part], positions_B[part], buckets=KvBuckets(own_B[part], taken=1))
        return logits

    def _decode(
        self,
        start: int,
        tokens_B: torch.Tensor,
        positions_B: torch.Tensor,
        *,
        length: int = 0,
        buckets: KvBuckets | None = None,
    ) -> torch.Tensor:
        if buckets is not None:
            length = buckets.longest
        self.cache.decode(start, positions_B, length)
        mask = torch.zeros(len(tokens_B), 1, 1, length, dtype=self.dtype, device=self.device)
        mask.masked_fill_((self._places[:length] > positions_B[:, None])[:, None, None], -torch.inf)
        return self._forward(tokens_B[:, None], positions_B[:, None], mask=mask, keep=1, kv_buckets=buckets)[:, 0]

    def _prefill_size(self, lengths: Sequence[int]) -> int:
        """How many of the prompts with these lengths (ascending) go into one forward; at least one."""
        if self._block:
            return 1
        largest = min(len(lengths), isqrt(_PREFILL_LOGITS // self.vocab_size))
        return next((n for n in range(largest, 1, -1) if n * lengths[n - 1] <= _PREFILL_TOKENS), 1)

    def _prefill(self, prompts: Sequence[Sequence[int]], slots: Sequence[Sequence[int]]) -> torch.Tensor:
        """Padded at the right: causality keeps real tokens from the padding, whose keys are overwritten or masked."""
        lengths = [len(prompt) for prompt in prompts]
        width = max(lengths)
        tokens = np.zeros((len(prompts), width), dtype=np.int64)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = prompt
        flat = [slot for taken in slots for slot in taken]
        self.cache.prefill(flat, [row for row, taken in enumerate(slots) for _ in taken], width)
        lasts, columns = np.unique(np.asarray(lengths) - 1, return_inverse=True)
        logits = self._forward(
            torch.from_numpy(tokens).to(self.device),
            self._places[None, :width].expand(len(prompts), width),
            mask=None,
            keep=torch.from_numpy(lasts).to(self.device),
            kv_buckets=None,
        )
        return logits[torch.arange(len(prompts)), torch.from_numpy(columns)]

    def _forward(self, tokens_BT: torch.Tensor, positions_BT: torch.Tensor, **how: Any) -> torch.Tensor:
        out = self._model(
            input_ids=tokens_BT,
            position_ids=positions_BT,
            attention_mask=how["mask"],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=how["keep"],
            kv_buckets=how["kv_buckets"],
        )
        logits: torch.Tensor = out.logits
        return logits

    @torch.inference_mode()
    def _place_does_not_matter(self) -> bool:
        """Decode the same rows in several orders and compare bit for bit."""
        length = min(KvBuckets.SIZE + 1, self._max_len)
        config, generator = self.cache.layers[0].keys.shape, np.random.default_rng(0)
        states = generator.standard_normal((config[1], length, config[3]), dtype=np.float32)
        tokens = generator.integers(self.vocab_size, size=self._slots)
        positions = generator.integers(length, size=self._slots)
        first: torch.Tensor | None = None
        same = True
        for _ in range(4):
            order = generator.permutation(self._slots) if first is not None else np.arange(self._slots)
            self.cache.fill(torch.from_numpy(states).to(self.device, self.dtype), length)
            logits = self.decode(tokens[order], positions[order], self._slots)
            first = logits if first is None else first
            same = same and torch.equal(logits, first[torch.from_numpy(order)])
        self.cache.clear()
        return same


def _check_model(model: PreTrainedModel, max_model_len: int) -> None:
    """Refuse what the slot cache cannot hold."""
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise InferenceError(
            f"{type(model).__name__} has layers of the kinds {sorted(kinds)}: the embedded engine runs models with "
            "full attention in every layer"
        )
    longest = getattr(model.config, "max_position_embeddings", max_model_len)
    window = getattr(model.config, "sliding_window", None) if not getattr(model.config, "layer_types", None) else None
    limit = min(longest, window or longest)
    if max_model_len > limit:
        raise ConfigError(
            f"found {max_model_len}, the model has positions for {limit}", key="service.inference_service.max_model_len"
        )
