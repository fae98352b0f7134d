"""Figures of one validation pass."""

import re
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nexrl.types import TrajectoryHeader

_NOT_IN_A_NAME = re.compile(r"[\s/]+")


def validation_metrics(name: str, headers: Sequence[TrajectoryHeader], *, failed: int) -> dict[str, float]:
    """`val/<name>_<figure>` for the reward and every figure of the evaluator; with several data sources also
    `val/<name>_<source>_<figure>` (blanks and slashes of its name become `_`); with several samples per prompt also
    pass@k for k = 1, 2, 4, … (reward ≥ 1 counts as a pass). A rollout that gave several sequences counts once.

    `failed` samples gave no trajectory: they are reported, and count in no mean.
    """
    once = [header for header in headers if header.sequence == 0]
    metrics = {f"val/{name}_num_samples": float(len(once)), f"val/{name}_failed": float(failed)}
    metrics |= _means(f"val/{name}", once)
    sources = defaultdict(list)
    for header in once:
        sources[_NOT_IN_A_NAME.sub("_", header.data_source)].append(header)
    if len(sources) > 1:
        for source, members in sources.items():
            metrics |= _means(f"val/{name}_{source}", members)
    return metrics | _pass_at_k(name, once)


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that one of `k` draws out of `samples`, `passed` of which pass, passes (Chen et al. 2021,
    arXiv:2107.03374, equation 1)."""
    if samples - passed < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(samples - passed + 1, samples + 1)))


def _means(prefix: str, headers: Sequence[TrajectoryHeader]) -> dict[str, float]:
    if not headers:
        return {}
    figures = defaultdict(list, {"reward": [header.reward for header in headers]})
    for header in headers:
        for key, value in header.score.items():
            figures[key].append(value)
    lengths = [header.num_trained for header in headers]
    return {f"{prefix}_{key}": float(np.mean(values)) for key, values in figures.items()} | {
        f"{prefix}_response_length": float(np.mean(lengths))
    }


def _pass_at_k(name: str, headers: Sequence[TrajectoryHeader]) -> dict[str, float]:
    rewards = defaultdict(list)
    for header in headers:
        rewards[header.group_id].append(header.reward)
    samples = min((len(group) for group in rewards.values()), default=0)
    metrics, k = {}, 1
    while samples > 1 and k <= samples:
        values = [pass_at_k(len(group), sum(r >= 1 for r in group), k) for group in rewards.values()]
        metrics[f"val/{name}_pass@{k}"] = float(np.mean(values))
        k *= 2
    return metrics
