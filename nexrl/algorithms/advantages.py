"""Advantages of one group's sequences."""

from collections.abc import Sequence

import numpy as np

EPSILON = 1e-6
"""Added to the standard deviation."""


def grpo_advantages(rewards: Sequence[float], run_ids: Sequence[int], *, normalize_std: bool = True) -> np.ndarray:
    """Group-relative advantages of the sequences of one prompt; float64 [S] for S rewards and run ids.

    A run that gave several sequences counts once: mean and standard deviation (N - 1) are those of the runs' mean
    rewards. Group Relative Policy Optimization (arXiv:2402.03300, section 4.1.2); without `normalize_std` the
    difference to the mean alone, as in Dr. GRPO (arXiv:2503.20783). A single sequence has nothing to be compared
    with: mean 0, deviation 1. Runs with equal means (one run among them) have no deviation to divide by: 1 instead.
    """
    rewards_S = np.asarray(rewards, dtype=np.float64)
    if len(rewards_S) != len(run_ids):
        raise ValueError(f"found {len(rewards_S)} rewards and {len(run_ids)} run ids, needs as many of both")
    if not len(rewards_S):
        return rewards_S
    means_R = _run_means(rewards_S, run_ids)
    mean = 0.0 if len(rewards_S) == 1 else float(means_R.mean())
    if not normalize_std:
        return rewards_S - mean
    deviation = 1.0 if _all_equal(means_R) else float(means_R.std(ddof=1))
    return (rewards_S - mean) / (deviation + EPSILON)


def zero_variance(rewards: Sequence[float]) -> bool:
    """Whether a group of two or more sequences has equal rewards throughout: nothing is to be learned from it."""
    return len(rewards) > 1 and _all_equal(np.asarray(rewards, dtype=np.float64))


def discounted_future_sum(values: np.ndarray, *, discount: float) -> np.ndarray:
    """`out[t] = values[t] + discount * out[t + 1]`, float64 [T]: per-token advantages of on-policy distillation."""
    out_T = np.array(values, dtype=np.float64)
    for t in range(len(out_T) - 2, -1, -1):
        out_T[t] += discount * out_T[t + 1]
    return out_T


def _run_means(rewards_S: np.ndarray, run_ids: Sequence[int]) -> np.ndarray:
    _, run_S = np.unique(np.asarray(run_ids), return_inverse=True)
    return np.asarray(np.bincount(run_S, weights=rewards_S) / np.bincount(run_S))


def _all_equal(values: np.ndarray) -> bool:
    """Equal up to what the order of additions can change."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())
