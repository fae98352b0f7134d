"""Log-probabilities of given tokens, and entropies."""

import torch

from nexrl.algorithms.losses import entropy

ENTROPY_ROWS = 1024
"""Rows whose entropy is worked out at once where no gradient is wanted: bounds the extra memory."""


def log_softmax(logits: torch.Tensor, *, temperature: float) -> torch.Tensor:
    """Log-probs [M, V] of softmax(logits / temperature); precisions below float32 are raised to it.

    Temperature 0 stands for greedy sampling, whose log-probs are those of temperature 1.
    """
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    if temperature not in (0.0, 1.0):
        logits = logits / temperature
    return torch.log_softmax(logits, dim=-1)


def of_tokens(log_softmax_MV: torch.Tensor, targets_M: torch.Tensor) -> torch.Tensor:
    """Log-probs [M] of the tokens `targets_M`."""
    return log_softmax_MV.gather(-1, targets_M[:, None])[:, 0]


def entropies(log_softmax_MV: torch.Tensor, *, gradient: bool) -> torch.Tensor:
    """Entropies [M] in nats."""
    if gradient:
        return entropy(log_softmax_MV)
    with torch.no_grad():
        return torch.cat([entropy(part) for part in torch.split(log_softmax_MV.detach(), ENTROPY_ROWS)])
