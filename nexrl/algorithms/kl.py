"""Estimates of the KL divergence to a reference policy, token by token."""

from typing import Literal

import torch

KLPenalty = Literal["kl", "abs", "mse", "low_var_kl"]

LOW_VAR_LOG_RATIO = 5.0
LOW_VAR_LIMIT = 10.0


def kl_penalty(logprobs: torch.Tensor, reference: torch.Tensor, kind: KLPenalty) -> torch.Tensor:
    """Per-token penalty, differentiable in `logprobs`; all shapes are equal.

    kl: the log ratio; abs: its absolute value; mse: half its square; low_var_kl: exp(d) - d - 1 with d = reference -
    logprobs, the unbiased low-variance estimate "k3" (Schulman 2020, "Approximating KL divergence"), d clipped to ±5
    and the result to ±10.
    """
    if kind == "kl":
        return logprobs - reference
    if kind == "abs":
        return (logprobs - reference).abs()
    if kind == "mse":
        return 0.5 * (logprobs - reference).square()
    difference = (reference - logprobs).clamp(-LOW_VAR_LOG_RATIO, LOW_VAR_LOG_RATIO)
    return (difference.exp() - difference - 1.0).clamp(-LOW_VAR_LIMIT, LOW_VAR_LIMIT)
