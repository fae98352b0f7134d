"""What a batch says of itself before anything is trained (metric names of NexRL)."""

from collections.abc import Iterable, Sequence

import numpy as np

from nexrl.types import TrajectoryGroup, TrajectoryHeader


def rollout_metrics(groups: Sequence[TrajectoryGroup], *, version: int, max_response_length: int) -> dict[str, float]:
    """Rewards, scores, lengths and staleness. `version` is the weight version that the step trains from."""
    headers = [header for group in groups for header in group.headers]
    if not headers:
        return {}
    rewards = np.array([header.reward for header in headers])
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
        "rollout/truncated_ratio": float(np.mean([header.finish_reason == "truncated" for header in headers])),
        "staleness/mean": float(np.mean(staleness)),
        "staleness/max": float(max(staleness)),
        "response_length/clip_ratio": float(np.mean(response >= max_response_length)),
    }
    metrics |= spread("response_length", response) | spread("prompt_length", prompt)
    return metrics | score_means(headers)


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
