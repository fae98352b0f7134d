"""Training by the job's own train service."""

from abc import abstractmethod
from collections.abc import Sequence

from nexrl.config.schema import Recipe
from nexrl.train_service import TrainServiceClient, plan_shards
from nexrl.trainers.base import BaseTrainer, TrainReport
from nexrl.trainers.statistics import rollout_metrics
from nexrl.types import Batch, BatchRow, TrajectoryGroup


class SelfHostedTrainer(BaseTrainer):
    """Prepares a batch, has the train service make one training step of it. Extend `_prepare_batch`.

    A subclass changes what is trained on: rows and advantages. By which loss, the trainer ranks read in the recipe:
    cross-entropy with `trainer.type: self_hosted_cross_entropy`, else that of `algorithm`.
    """

    def __init__(self, recipe: Recipe, client: TrainServiceClient) -> None:
        self.recipe = recipe
        self._train_service_client = client

    def initialize_workers(self) -> None:
        """Models loaded and optimizers built on every rank."""
        self._train_service_client.initialize_worker()
        self._train_service_client.init_model()

    @abstractmethod
    def _prepare_batch(self, groups: Sequence[TrajectoryGroup], *, step: int) -> Batch:
        """Advantages, filters, packing plan."""

    def train(self, groups: Sequence[TrajectoryGroup], *, step: int) -> TrainReport:
        """One training step; a batch without a row to learn from is skipped, and still counts as a step."""
        batch = self._prepare_batch(groups, step=step)
        version = step - 1 if self._train_service_client.changes_weights else 0
        metrics = rollout_metrics(groups, version=version, data=self.recipe.data) | batch.metrics
        rows = batch.rows
        metrics["training/global_step"] = float(step)
        metrics["training/num_rows"] = float(len(rows))
        metrics["training/skipped"] = float(not rows)
        if rows:
            trained = self._train_service_client.update_actor(batch)["metrics"]
            metrics |= {name if "/" in name else f"actor/{name}": value for name, value in trained.items()}
        return TrainReport(batch=batch, metrics=metrics, skipped=not rows)

    def plan(
        self,
        groups: Sequence[TrajectoryGroup],
        rows_of_groups: Sequence[Sequence[BatchRow]],
        *,
        step: int,
        metrics: dict[str, float],
    ) -> Batch:
        """The batch of `rows_of_groups` (rows to learn from, one list per prompt), cut into optimizer steps of
        `ppo_mini_batch_size` prompts, ranks and forwards."""
        actor = self.recipe.service.actor_service.actor
        shards = plan_shards(
            _mini_batches(rows_of_groups, prompts=actor.ppo_mini_batch_size),
            world_size=self._train_service_client.world_size,
            epochs=actor.ppo_epochs,
            max_tokens=actor.ppo_max_token_len_per_gpu,
            step=step,
            temperature=self.recipe.rollout_worker.temperature,
        )
        return Batch(step=step, shards=shards, group_ids=tuple(group.group_id for group in groups), metrics=metrics)


def _mini_batches(rows_of_groups: Sequence[Sequence[BatchRow]], *, prompts: int) -> list[list[BatchRow]]:
    """Rows of `prompts` prompts each (0 = all together), prompts in order; none is empty."""
    size = prompts or max(len(rows_of_groups), 1)
    cut = [rows_of_groups[start : start + size] for start in range(0, len(rows_of_groups), size)]
    flat = [[row for rows in mini for row in rows] for mini in cut]
    return [rows for rows in flat if rows]
