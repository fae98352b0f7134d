"""Keys and values of all running samples: one row ("slot") per sample, written in place."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped
    """One layer: keys and values [slots, kv_heads, max_len, head_dim].

    What `update` does with the states of a forward was said before by `SlotCache.prefill` or `.decode`.
    """

    def __init__(self, shape: tuple[int, int, int, int], *, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.keys = _zeros(shape, dtype=dtype, device=device)
        self.values = _zeros(shape, dtype=dtype, device=device)
        self.is_initialized = True
        self._flat_keys = self.keys.view(-1, shape[-1])
        self._flat_values = self.values.view(-1, shape[-1])
        self._prompts = (torch.empty(0), torch.empty(0))
        self._cells: torch.Tensor | None = None
        self._window = (0, 0, 0)

    def expect_prefill(self, slots: torch.Tensor, sources: torch.Tensor) -> None:
        """The next states are whole prompts: those of row `sources[i]` go to slot `slots[i]`."""
        self._cells, self._prompts = None, (slots, sources)

    def expect_decode(self, cells: torch.Tensor, window: tuple[int, int, int]) -> None:
        """The next states are one token a row, for `cells` of the flat cache; attend over `window` (first slot, end
        slot, length)."""
        self._cells, self._window = cells, window

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [B, kv_heads, T, D]; returns the keys and values to attend over."""
        if self._cells is None:
            length = key_states.shape[2]
            slots, sources = self._prompts
            self.keys[:, :, :length].index_copy_(0, slots, key_states[sources])
            self.values[:, :, :length].index_copy_(0, slots, value_states[sources])
            return key_states, value_states
        width = key_states.shape[-1]
        self._flat_keys.index_copy_(0, self._cells, key_states.reshape(-1, width))
        self._flat_values.index_copy_(0, self._cells, value_states.reshape(-1, width))
        start, stop, length = self._window
        return self.keys[start:stop, :, :length], self.values[start:stop, :, :length]

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Nothing: the tensors exist from the start."""

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(length, offset) for masks that transformers makes; ours are given explicitly."""
        return self.keys.shape[2], 0

    def get_seq_length(self) -> int:
        """0: rows have their own lengths, and positions are given explicitly."""
        return 0

    def get_max_length(self) -> int:
        """Positions of a slot."""
        return int(self.keys.shape[2])


class SlotCache(Cache):  # type: ignore[misc]  # transformers is untyped
    """The layers' caches behind one face.

    Memory: 2 * layers * slots * kv_heads * max_len * head_dim elements, of which the system backs with pages, on
    CPU, only what was written.
    """

    def __init__(
        self, config: PreTrainedConfig, *, slots: int, max_len: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (slots, heads, max_len, dim)
        super().__init__(layers=[SlotLayer(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)])
        self._max_len = max_len
        self._device = device
        self._head_cells = torch.arange(slots * heads, device=device).view(slots, heads) * max_len
        self._written = 0

    def prefill(self, slots: Sequence[int], sources: Sequence[int], length: int) -> None:
        """Expect prompts of up to `length` tokens: row `sources[i]` of the forward goes to slot `slots[i]`."""
        self._written = max(self._written, length)
        slots_t, sources_t = (torch.tensor(index, device=self._device) for index in (slots, sources))
        for layer in self.layers:
            layer.expect_prefill(slots_t, sources_t)

    def decode(self, start: int, positions_B: torch.Tensor, length: int) -> None:
        """Expect one token for each slot from `start` on, at `positions_B`; attend over `length` positions."""
        self._written = max(self._written, length)
        stop = start + len(positions_B)
        cells = (self._head_cells[start:stop] + positions_B[:, None]).view(-1)
        for layer in self.layers:
            layer.expect_decode(cells, (start, stop, length))

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` positions of slot `source` to slot `target`."""
        for layer in self.layers:
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def clear(self) -> None:
        """Forget everything: a value that was not finite would reach later samples even where it is masked."""
        self.fill(0.0, self._written)
        self._written = 0

    def fill(self, states: torch.Tensor | float, length: int) -> None:
        """Put `states` (a number, or [kv_heads, length, head_dim]) into the first positions of every slot."""
        for layer in self.layers:
            layer.keys[:, :, :length] = states
            layer.values[:, :, :length] = states
        self._written = max(self._written, length)


def _zeros(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Zeros that cost no resident memory on CPU until they are written (torch.zeros writes them)."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    size = int(np.prod(shape)) * torch.empty((), dtype=dtype).element_size()
    return torch.from_numpy(np.zeros(size, dtype=np.uint8)).view(dtype).view(shape)
