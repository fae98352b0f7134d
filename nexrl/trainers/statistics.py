"""What a batch says of itself before anything is trained (metric names of NexRL)."""

from collections.abc import Iterable, Sequence

import numpy as np

from nexrl.config.schema import DataConfig
from nexrl.types import TrajectoryGroup, TrajectoryHeader


def rollout_metrics(groups: Sequence[TrajectoryGroup], *, version: int, data: DataConfig) -> dict[str, float]:
    """Rewards, scores, lengths (tokens) and staleness. `version` is the weight version that the step trains from.

    A rollout of several sequences counts once in rewards and scores. `clip_ratio` is the share of sequences at the
    limit of `data`. No KL is taken from the reward, so that
    `critic/score` and `critic/rewards` are the same.
    """
    headers = [header for group in groups for header in group.headers]
    if not headers:
        return {}
    rollouts = [header for header in headers if header.sequence == 0]
    rewards = np.array([header.reward for header in rollouts])
    response = np.array([header.num_trained for header in headers])
    prompt = np.array([header.num_tokens - header.num_trained for header in headers])
    staleness = [version - header.version_min for header in headers if header.version_min >= 0] or [0]
    metrics = {
        "rollout/reward_mean": float(rewards.mean()),
        "rollout/reward_std": float(rewards.std()),
        "rollout/reward_min": float(rewards.min()),
        "rollout/reward_max": float(rewards.max()),
        "rollout/num_groups": float(len(groups)),
        "rollout/num_sequences": float(len(headers)),
        "rollout/truncated_ratio": float(np.mean([header.finish_reason == "truncated" for header in rollouts])),
        "staleness/mean": float(np.mean(staleness)),
        "staleness/max": float(max(staleness)),
        "response_length/clip_ratio": float(np.mean(response >= data.max_response_length)),
        "prompt_length/clip_ratio": float(np.mean(prompt >= data.max_prompt_length)),
        "training/batch_size": float(len(headers)),
        "training/sequence_length": float((prompt + response).max()),
    }
    for name, values in (
        ("critic/score", rewards),
        ("critic/rewards", rewards),
        ("response_length", response),
        ("prompt_length", prompt),
    ):
        metrics |= spread(name, values)
    return metrics | score_means(rollouts)


def spread(name: str, values: np.ndarray) -> dict[str, float]:
    """mean, max and min of `values`."""
    if not len(values):
        return {}
    return {
        f"{name}/mean": float(values.mean()),
        f"{name}/max": float(values.max()),
        f"{name}/min": float(values.min()),
    }


def score_means(headers: Iterable[TrajectoryHeader]) -> dict[str, float]:
    """`rollout/<figure>`: the mean of every figure that the evaluator gave."""
    figures: dict[str, list[float]] = {}
    for header in headers:
        for name, value in header.score.items():
            figures.setdefault(name, []).append(value)
    return {f"rollout/{name}": float(np.mean(values)) for name, values in figures.items()}
