"""Supervised training on demonstrations."""

from collections.abc import Sequence

from nexrl.trainers.self_hosted import SelfHostedTrainer
from nexrl.types import Batch, BatchRow, TrajectoryGroup


class SelfHostedCrossEntropyTrainer(SelfHostedTrainer):
    """Every trained token of every trajectory counts alike; rewards play no part."""

    def _prepare_batch(self, groups: Sequence[TrajectoryGroup], *, step: int) -> Batch:
        rows_of_groups = [
            [
                BatchRow(header.trajectory_id, header.recorder, header.num_tokens, header.num_trained, 1.0)
                for header in group.headers
                if header.num_trained
            ]
            for group in groups
        ]
        return self.plan(groups, rows_of_groups, step=step, metrics={})
