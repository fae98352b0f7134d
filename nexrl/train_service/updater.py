"""One training step: log-probs that stay fixed, then optimizer steps."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from nexrl.algorithms.kl import kl_penalty
from nexrl.algorithms.kl_control import AdaptiveKL, FixedKL
from nexrl.config.schema import ActorConfig, AlgorithmConfig
from nexrl.errors import TrainingError
from nexrl.train_service.collate import PackedRows, pack_rows
from nexrl.train_service.fsdp import FsdpBackend, packed_logits
from nexrl.train_service.logprobs import entropies, log_softmax, of_tokens
from nexrl.train_service.metrics import StepSums, UpdateSums
from nexrl.train_service.objective import CrossEntropy, MicroLoss, Objective, Policy
from nexrl.train_service.schedule import learning_rate
from nexrl.types import MicroBatch, MiniBatch, Shard, Trajectory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

Trajectories = Mapping[str, Trajectory]


class Updater:
    """Trains one rank's model. Every method is collective over the ranks; `step`, `streak`, `kl` are equal on all."""

    def __init__(
        self,
        backend: FsdpBackend,
        reference: "PreTrainedModel | None",
        *,
        actor: ActorConfig,
        algorithm: AlgorithmConfig | None,
        total_steps: int,
    ) -> None:
        """`algorithm` None: cross-entropy. `reference` is asked where the algorithm has a KL loss."""
        self.backend = backend
        self.step = 0
        """Last training step done."""
        self.streak = 0
        """Updates skipped in a row."""
        self.kl = kl_control(algorithm)
        self._reference = reference
        self._actor = actor
        self._algorithm = algorithm
        self._total_steps = total_steps
        self._dtype = torch.promote_types(next(backend.model.parameters()).dtype, torch.float32)
        self._old: dict[str, torch.Tensor] | None = None
        self._of_reference: dict[str, torch.Tensor] | None = None

    def remember(self, shard: Shard, trajectories: Trajectories, *, reference: bool) -> dict[str, torch.Tensor]:
        """Log-probs [trained tokens] by trajectory id, kept for the next `update`: under the reference model, or
        under the current weights."""
        if not reference:
            self._old = self._collect(self.backend.model, shard, trajectories)
            return self._old
        if self._reference is None:
            raise TrainingError("log-probs under the reference model need algorithm.use_kl_loss: true")
        self._of_reference = self._collect(self._reference, shard, trajectories)
        return self._of_reference

    def kl_sums(self) -> dict[str, float]:
        """KL penalty to the reference by trajectory id, where both log-probs are remembered."""
        if self._algorithm is None or self._old is None or self._of_reference is None:
            return {}
        old, reference, kind = self._old, self._of_reference, self._algorithm.kl_penalty
        both = sorted(old.keys() & reference.keys())
        return {name: float(kl_penalty(old[name], reference[name], kind).sum()) for name in both}

    def update(self, shard: Shard, trajectories: Trajectories) -> dict[str, float]:
        """All optimizer steps of one shard; returns the metrics of the whole batch.

        Log-probs that were not remembered are computed first where they are needed. With one optimizer step in all the
        weights have not moved when the loss is taken: old log-probs are then the current ones, without a forward of
        their own. Raises TrainingError after `max_nonfinite_steps` skipped updates in a row.
        """
        mini_batches = [mini for mini in shard.mini_batches if mini.global_tokens] * shard.epochs
        self._complete(shard, trajectories, optimizer_steps=len(mini_batches))
        lr = learning_rate(self._actor.optim, step=shard.step, total_steps=self._total_steps)
        objective = self._objective()
        sums = UpdateSums()
        for mini in mini_batches:
            self._optimizer_step(mini, objective, trajectories, sums, shard=shard, lr=lr)
        self._old = self._of_reference = None
        self.step = shard.step
        metrics = sums.metrics() | {"actor/lr": lr}
        if sums.kl_per_sequence is not None:
            metrics["actor/kl_loss_coef"] = self.kl.coefficient
            metrics["actor/kl_per_sequence"] = sums.kl_per_sequence
            sequences = sum(mini.global_sequences for mini in shard.mini_batches)
            self.kl = self.kl.updated(kl=sums.kl_per_sequence, sequences=sequences)
        return metrics

    def _objective(self) -> Objective:
        return CrossEntropy() if self._algorithm is None else Policy(self._algorithm, self.kl.coefficient)

    def _complete(self, shard: Shard, trajectories: Trajectories, *, optimizer_steps: int) -> None:
        """Compute what the loss needs and `remember` was not asked for."""
        algorithm = self._algorithm
        if algorithm is None:
            return
        if algorithm.do_old_log_prob_compute and optimizer_steps > 1 and self._old is None:
            self.remember(shard, trajectories, reference=False)
        if algorithm.use_kl_loss and self._of_reference is None:
            self.remember(shard, trajectories, reference=True)

    def _optimizer_step(
        self,
        mini: MiniBatch,
        objective: Objective,
        trajectories: Trajectories,
        sums: UpdateSums,
        *,
        shard: Shard,
        lr: float,
    ) -> None:
        step = StepSums()
        for index, micro in enumerate(mini.micro_batches):
            loss = self._micro_loss(micro, mini, objective, trajectories, temperature=shard.temperature)
            self.backend.backward(loss.loss, last=index == len(mini.micro_batches) - 1)
            step.add(loss)
        parts, totals = step.named(self.backend.total(step.vector))
        norm = self.backend.gradient_norm()
        if sums.add(parts, totals, norm=norm, tokens=mini.global_tokens, sequences=mini.global_sequences):
            self.backend.update(norm=norm, lr=lr)
            self.streak = 0
            return
        self.backend.discard()
        self.streak += 1
        found = f"training step {shard.step}: loss {parts['policy_loss']}, gradient norm {norm}"
        if self.streak >= self._actor.max_nonfinite_steps:
            raise TrainingError(f"{found}; {self.streak} updates in a row were not finite (actor.max_nonfinite_steps)")
        logger.warning("%s: this update is skipped", found)

    def _micro_loss(
        self,
        micro: MicroBatch,
        mini: MiniBatch,
        objective: Objective,
        trajectories: Trajectories,
        *,
        temperature: float,
    ) -> MicroLoss:
        packed = self._pack(micro, trajectories)
        scores = log_softmax(self.backend.logits(packed), temperature=temperature)
        return objective(
            packed,
            mini,
            logprobs=of_tokens(scores, packed.targets),
            entropies=entropies(scores, gradient=objective.entropy_grad),
            old=self._old_logprobs(packed),
            reference=_joined(self._of_reference, packed, self._dtype),
        )

    def _old_logprobs(self, packed: PackedRows) -> torch.Tensor | None:
        if self._algorithm is not None and not self._algorithm.do_old_log_prob_compute:
            return packed.sampler_logprobs
        return _joined(self._old, packed, self._dtype)

    @torch.no_grad()
    def _collect(self, model: "PreTrainedModel", shard: Shard, trajectories: Trajectories) -> dict[str, torch.Tensor]:
        found: dict[str, torch.Tensor] = {}
        for mini in shard.mini_batches:
            for micro in mini.micro_batches:
                packed = self._pack(micro, trajectories)
                scores = log_softmax(packed_logits(model, packed), temperature=shard.temperature)
                parts = torch.split(of_tokens(scores, packed.targets), list(packed.lengths)) if packed.rows else ()
                found |= {row.trajectory_id: part for row, part in zip(packed.rows, parts, strict=True)}
        return found

    def _pack(self, micro: MicroBatch, trajectories: Trajectories) -> PackedRows:
        return pack_rows(micro.rows, trajectories, device=self.backend.device, dtype=self._dtype)


def kl_control(algorithm: AlgorithmConfig | None) -> FixedKL | AdaptiveKL:
    """The KL coefficient that a run starts with, and how it moves."""
    if algorithm is None:
        return FixedKL(0.0)
    control = algorithm.kl_ctrl
    if control.type == "fixed":
        return FixedKL(algorithm.kl_loss_coef)
    return AdaptiveKL(algorithm.kl_loss_coef, control.target_kl, control.horizon)


def _joined(
    remembered: Mapping[str, torch.Tensor] | None, packed: PackedRows, dtype: torch.dtype
) -> torch.Tensor | None:
    """Remembered log-probs [M] of packed rows."""
    if remembered is None:
        return None
    missing = [row.trajectory_id for row in packed.rows if row.trajectory_id not in remembered]
    if missing:
        raise TrainingError(f"log-probs were computed for another batch: it lacks {', '.join(missing[:5])}")
    if not packed.rows:
        return packed.sampler_logprobs.new_zeros(0, dtype=dtype)
    return torch.cat([remembered[row.trajectory_id] for row in packed.rows])
