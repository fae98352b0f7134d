"""Losses token by token. Every tensor is [T] over the trained tokens at hand; `aggregation` weighs them."""

from dataclasses import dataclass

import torch

Metrics = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TokenLoss:
    """A loss and what it has to say of itself."""

    values: torch.Tensor
    """[T], differentiable."""
    metrics: Metrics
    """Detached, [T] each; a metric is the mean over all trained tokens of the batch."""


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float = 0.0,
) -> TokenLoss:
    """The clipped surrogate of PPO (arXiv:1707.06347, equation 7), negated.

    With r = exp(logprobs - old_logprobs): max(-A r, -A clip(r, 1 - clip_low, 1 + clip_high)), the two bounds apart as
    in DAPO (arXiv:2503.14476). `clip_dual` = c >= 1 bounds the loss of a negative advantage by -A c
    (arXiv:1912.09729, equation 5); 0 = off.
    """
    ratio = (logprobs - old_logprobs).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    values = torch.maximum(unclipped, clipped)
    dual = torch.zeros_like(values, dtype=torch.bool)
    if clip_dual > 0.0:
        bound = -advantages * clip_dual
        dual = (advantages < 0) & (values > bound)
        values = torch.where(dual, bound, values)
    with torch.no_grad():
        bites = clipped > unclipped
        metrics = {
            "pg_clipfrac": bites.to(ratio.dtype),
            "pg_clipfrac_low": (bites & (ratio < 1.0)).to(ratio.dtype),
            "pg_clipfrac_high": (bites & (ratio > 1.0)).to(ratio.dtype),
            "pg_clipfrac_dual": dual.to(ratio.dtype),
            "ppo_kl": (old_logprobs - logprobs).detach(),
            "avg_ratio": ratio.detach(),
        }
    return TokenLoss(values, metrics)


def importance_weights(
    old_logprobs: torch.Tensor, sampler_logprobs: torch.Tensor, *, cap: float
) -> tuple[torch.Tensor, Metrics]:
    """Truncated importance sampling: min(p_trainer / p_sampler, cap), detached, for tokens whose sampler computes the
    same policy with other numerics (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL
    training"). `sampler_kl` estimates KL(sampler ‖ trainer) without bias: r - log r - 1.
    """
    with torch.no_grad():
        log_ratio = old_logprobs - sampler_logprobs
        ratio = log_ratio.exp()
        weights = ratio.clamp(max=cap)
        return weights, {"importance_weight_mean": weights, "sampler_kl": ratio - log_ratio - 1.0}


def cross_entropy(logprobs: torch.Tensor) -> TokenLoss:
    """Negative log-likelihood of the tokens, for demonstrations."""
    return TokenLoss(-logprobs, {})


def entropy(log_softmax: torch.Tensor) -> torch.Tensor:
    """Entropy in nats of every row of log-probabilities [T, V]; [T]."""
    return -(log_softmax.exp() * log_softmax).sum(-1)
