"""Group relative policy optimization."""

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
            grpo_advantages(
                group.rewards, [header.run_id for header in group.headers], normalize_std=algorithm.normalize_std
            )
            for group in groups
        ]
        flat = [algorithm.filter_zero_variance and zero_variance(group.rewards) for group in groups]
        rows_of_groups = [
            [] if nothing_to_learn else _rows(group, of_group)
            for group, of_group, nothing_to_learn in zip(groups, advantages, flat, strict=True)
        ]
        metrics = _advantage_metrics(advantages) | {
            "critic/grpo_num_groups": float(len(groups)),
            "critic/zero_variance_groups": float(sum(flat)),
        }
        return self.plan(groups, rows_of_groups, step=step, metrics=metrics)


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
    return spread("critic/advantages", values) | {"critic/advantage_std": float(values.std())}
