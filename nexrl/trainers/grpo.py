"""Group relative policy optimization."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nexrl.algorithms.advantages import grpo_advantages, zero_variance
from nexrl.trainers.self_hosted import SelfHostedTrainer
from nexrl.trainers.statistics import spread
from nexrl.types import Batch, BatchRow, TrajectoryGroup


class SelfHostedGrpoTrainer(SelfHostedTrainer):
    """Advantages from the rewards of a prompt's samples (algorithms.advantages)."""

    def _prepare_batch(self, groups: Sequence[TrajectoryGroup], *, step: int) -> Batch:
        algorithm = self.recipe.algorithm
        advantages = [
            grpo_advantages(group.rewards, _runs(group), normalize_std=algorithm.normalize_std) for group in groups
        ]
        flat = [algorithm.filter_zero_variance and zero_variance(group.rewards) for group in groups]
        rows_of_groups = [
            [] if nothing_to_learn else _rows(group, of_group)
            for group, of_group, nothing_to_learn in zip(groups, advantages, flat, strict=True)
        ]
        metrics = _advantage_metrics(advantages) | _group_metrics(groups)
        metrics["critic/zero_variance_groups"] = float(sum(flat))
        return self.plan(groups, rows_of_groups, step=step, metrics=metrics)


def _runs(group: TrajectoryGroup) -> list[int]:
    """Which run each sequence belongs to, numbered within the group: with a `key_list` of one's own a group holds the
    runs of several prompts."""
    numbers: dict[tuple[str, int], int] = {}
    return [numbers.setdefault((header.group_id, header.run_id), len(numbers)) for header in group.headers]


def _rows(group: TrajectoryGroup, advantages: np.ndarray) -> list[BatchRow]:
    return [
        BatchRow(header.trajectory_id, header.recorder, header.num_tokens, header.num_trained, float(advantage))
        for header, advantage in zip(group.headers, advantages, strict=True)
        if header.num_trained
    ]


def _advantage_metrics(advantages: Sequence[np.ndarray]) -> dict[str, float]:
    values = np.concatenate(advantages) if advantages else np.zeros(0)
    if not len(values):
        return {}
    figures = {"critic/advantage_mean": float(values.mean()), "critic/advantage_std": float(values.std())}
    return spread("critic/advantages", values) | spread("critic/returns", values) | figures


def _group_metrics(groups: Sequence[TrajectoryGroup]) -> dict[str, float]:
    """`critic/grpo_std/…`: spread of the deviations (N - 1) that the runs' mean rewards have within each group."""
    deviations = []
    for group in groups:
        of_runs: dict[int, list[float]] = defaultdict(list)
        for run, reward in zip(_runs(group), group.rewards, strict=True):
            of_runs[run].append(reward)
        if len(of_runs) > 1:
            deviations.append(np.std([np.mean(rewards) for rewards in of_runs.values()], ddof=1))
    return {"critic/grpo_num_groups": float(len(groups))} | spread("critic/grpo_std", np.array(deviations))
