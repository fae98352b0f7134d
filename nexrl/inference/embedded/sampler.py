"""Drawing the next token of every row at once.

A row's draw depends on its logits and one uniform number: the token at which the cumulated probability first exceeds
it (inverse CDF). The uniforms come from the request's own seed, so no other request can change what is drawn.
"""

from dataclasses import dataclass

import numpy as np
import torch

_LARGEST_UNIFORM = 1.0 - 2.0**-40  # times the total it stays below the total, so a token with probability is found


def uniforms(seed: int, count: int) -> np.ndarray:
    """float64 [count] in [0, 1): number t decides token t of the sample with this seed (0 <= seed < 2**128)."""
    drawn = np.random.Generator(np.random.Philox(key=seed)).random(count)
    return np.minimum(drawn, _LARGEST_UNIFORM, out=drawn)


@dataclass(frozen=True)
class Truncation:
    """Rows that sample from a part of the vocabulary."""

    rows_N: torch.Tensor
    top_p_N: torch.Tensor
    top_k_N: torch.Tensor
    """0 = the whole vocabulary."""


@dataclass(frozen=True)
class SamplingBatch:
    """How to sample each row; the optional parts are None where no row needs them."""

    inverse_temperature_B: torch.Tensor
    """float32; 1 for greedy rows."""
    uniforms_B: torch.Tensor
    """float64."""
    greedy_B: torch.Tensor | None = None
    truncation: Truncation | None = None
    no_eos_rows: torch.Tensor | None = None
    """Rows that may not end yet."""
    eos_ids: torch.Tensor | None = None
    top_logprobs: int = 0


@dataclass(frozen=True)
class Draw:
    """One token per row."""

    tokens_B: np.ndarray
    """int64."""
    logprobs_B: np.ndarray
    """float32: log softmax(logits / temperature) over the whole vocabulary; NaN where the logits were not finite."""
    top_ids_BK: np.ndarray | None = None
    top_logprobs_BK: np.ndarray | None = None

    def rows(self, start: int, stop: int) -> "Draw":
        """The draw of rows `start` to `stop` - 1 alone."""
        ids, logprobs = self.top_ids_BK, self.top_logprobs_BK
        return Draw(
            self.tokens_B[start:stop],
            self.logprobs_B[start:stop],
            None if ids is None else ids[start:stop],
            None if logprobs is None else logprobs[start:stop],
        )


def draw(logits_BV: torch.Tensor, batch: SamplingBatch) -> Draw:
    """Sample one token per row of `logits_BV` (any float dtype; computed in float32, cumulated in float64)."""
    scaled_BV = logits_BV.float() * batch.inverse_temperature_B[:, None]
    logprobs_BV = scaled_BV.log_softmax(-1)
    if batch.no_eos_rows is not None:
        assert batch.eos_ids is not None
        scaled_BV[batch.no_eos_rows[:, None], batch.eos_ids] = -torch.inf
    weights_BV = scaled_BV.softmax(-1)  # not logprobs.exp(): elementwise kernels round by position, row kernels don't
    if batch.truncation is not None:
        rows_N = batch.truncation.rows_N
        weights_BV.index_copy_(0, rows_N, truncate(weights_BV[rows_N], batch.truncation))
    cumulated_BV = weights_BV.cumsum(-1, dtype=torch.float64)
    targets_B1 = (batch.uniforms_B * cumulated_BV[:, -1])[:, None]
    tokens_B = torch.searchsorted(cumulated_BV, targets_B1, right=True)[:, 0].clamp_(max=logits_BV.shape[1] - 1)
    if batch.greedy_B is not None:
        tokens_B = torch.where(batch.greedy_B, scaled_BV.argmax(-1), tokens_B)
    chosen_B = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
    chosen_B = torch.where(cumulated_BV[:, -1].isfinite(), chosen_B, torch.nan)
    if batch.top_logprobs == 0:
        return Draw(tokens_B.cpu().numpy(), chosen_B.cpu().numpy())
    top_BK, ids_BK = logprobs_BV.topk(batch.top_logprobs)
    return Draw(tokens_B.cpu().numpy(), chosen_B.cpu().numpy(), ids_BK.cpu().numpy(), top_BK.cpu().numpy())


def truncate(weights_NV: torch.Tensor, truncation: Truncation) -> torch.Tensor:
    """Zero what lies outside the `top_k` most likely tokens and outside the smallest set of most likely tokens whose
    probability reaches `top_p` (Holtzman et al. 2020, nucleus sampling); equal weights rank by token id."""
    vocabulary = weights_NV.shape[1]
    sorted_NV, order_NV = weights_NV.sort(stable=True, dim=-1, descending=True)
    before_NV = sorted_NV.cumsum(-1) - sorted_NV
    limit_N = torch.where(truncation.top_k_N > 0, truncation.top_k_N, vocabulary)
    rank_V = torch.arange(vocabulary, device=weights_NV.device)
    kept_NV = (before_NV < truncation.top_p_N[:, None]) & (rank_V < limit_N[:, None])
    return torch.zeros_like(weights_NV).scatter_(1, order_NV, sorted_NV * kept_NV)
