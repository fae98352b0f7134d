"""The loss of one micro-batch, made of the parts of nexrl.algorithms."""

from dataclasses import dataclass

import numpy as np
import torch

from nexrl.algorithms.aggregation import token_weights
from nexrl.algorithms.kl import kl_penalty
from nexrl.algorithms.losses import Metrics, cross_entropy, importance_weights, policy_loss
from nexrl.config.schema import AlgorithmConfig
from nexrl.train_service.collate import PackedRows
from nexrl.types import MiniBatch


@dataclass(frozen=True)
class MicroLoss:
    """A micro-batch's share of the loss."""

    loss: torch.Tensor
    """Scalar; the shares of all micro-batches of all ranks add up to the loss of the optimizer step."""
    parts: Metrics
    """Detached scalars, shares like `loss`: what the loss is made of."""
    sums: Metrics
    """Detached scalars: sums over trained tokens."""


@dataclass(frozen=True)
class Policy:
    """The clipped surrogate, with everything that AlgorithmConfig adds to it."""

    config: AlgorithmConfig
    kl_coefficient: float

    @property
    def entropy_grad(self) -> bool:
        """Whether entropies need a gradient."""
        return self.config.entropy_coeff > 0.0

    def __call__(
        self,
        packed: PackedRows,
        mini: MiniBatch,
        *,
        logprobs: torch.Tensor,
        entropies: torch.Tensor,
        old: torch.Tensor | None,
        reference: torch.Tensor | None,
    ) -> MicroLoss:
        """`old` None: the weights have not moved since the batch was made, so old log-probs are the current ones."""
        config = self.config
        old = logprobs.detach() if old is None else old
        surrogate = policy_loss(
            logprobs,
            old,
            packed.advantages,
            clip_low=config.clip_ratio_low,
            clip_high=config.clip_ratio_high,
            clip_dual=config.clip_ratio_c,
        )
        weights, correction = importance_weights(old, packed.sampler_logprobs, cap=config.importance_cap)
        pg = surrogate.values * weights if config.importance_correction else surrogate.values
        parts = {"pg_loss": pg, "entropy_loss": entropies}
        total = pg - config.entropy_coeff * entropies if self.entropy_grad else pg
        sums = surrogate.metrics | correction
        if reference is not None:
            parts["kl_loss"] = kl_penalty(logprobs, reference, config.kl_penalty)
            sums["kl"] = parts["kl_loss"].detach()
            total = total + self.kl_coefficient * parts["kl_loss"]
        return _weighed(total, parts, sums, _weights(packed, mini, config))


@dataclass(frozen=True)
class CrossEntropy:
    """Likelihood of demonstrations; every trained token alike, whatever its row's advantage."""

    entropy_grad = False

    def __call__(
        self,
        packed: PackedRows,
        mini: MiniBatch,
        *,
        logprobs: torch.Tensor,
        entropies: torch.Tensor,
        old: torch.Tensor | None,
        reference: torch.Tensor | None,
    ) -> MicroLoss:
        """`old` and `reference` play no part."""
        values = cross_entropy(logprobs).values
        weights = token_weights(
            packed.lengths, "token-mean", global_tokens=mini.global_tokens, global_sequences=mini.global_sequences
        )
        return _weighed(values, {"entropy_loss": entropies}, {}, weights)


Objective = Policy | CrossEntropy


def _weights(packed: PackedRows, mini: MiniBatch, config: AlgorithmConfig) -> np.ndarray:
    return token_weights(
        packed.lengths,
        config.loss_agg_mode,
        global_tokens=mini.global_tokens,
        global_sequences=mini.global_sequences,
    )


def _weighed(total: torch.Tensor, parts: Metrics, sums: Metrics, weights: np.ndarray) -> MicroLoss:
    weights_M = torch.as_tensor(weights).to(total)
    loss = total @ weights_M
    with torch.no_grad():
        parts = {"policy_loss": loss.detach()} | {name: value.detach() @ weights_M for name, value in parts.items()}
        return MicroLoss(loss, parts, {name: value.sum() for name, value in sums.items()})
