import math

import pytest
import torch

from nexrl.algorithms.losses import cross_entropy, entropy, importance_weights, policy_loss


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def loss_of(advantage, ratio, *, low=0.2, high=0.2, dual=0.0):
    return policy_loss(
        tensor(math.log(ratio)), tensor(0.0), tensor(advantage), clip_low=low, clip_high=high, clip_dual=dual
    )


@pytest.mark.parametrize(
    ("advantage", "ratio", "options", "value"),
    [
        (1, 1.5, {}, -1.2),
        (-1, 0.5, {}, 0.8),
        (-1, 1.5, {}, 1.5),
        (1, 0.5, {}, -0.5),
        (1, 1.5, {"high": 0.28}, -1.28),
        (-1, 0.5, {"low": 0.4}, 0.6),
        (-1, 5, {"dual": 3.0}, 3.0),
        (-1, 5, {}, 5.0),
        (1, 5, {"dual": 3.0}, -1.2),
    ],
)
def test_clipped_surrogate_golden_numbers(advantage, ratio, options, value):
    assert float(loss_of(advantage, ratio, **options).values) == pytest.approx(value)


def test_gradient_vanishes_where_the_clip_bites_and_only_there():
    logprobs = tensor(math.log(1.5), math.log(1.1)).requires_grad_()
    policy_loss(logprobs, tensor(0, 0), tensor(1, 1), clip_low=0.2, clip_high=0.2).values.sum().backward()
    torch.testing.assert_close(logprobs.grad, tensor(0.0, -1.1))


def test_metrics_say_where_the_clips_bite():
    ratios = tensor(1.5, 0.5, 1.0, 5.0)
    metrics = policy_loss(
        ratios.log(), tensor(0, 0, 0, 0), tensor(1, -1, 1, -1), clip_low=0.2, clip_high=0.2, clip_dual=3.0
    ).metrics
    assert metrics["pg_clipfrac"].tolist() == [1, 1, 0, 0]
    assert metrics["pg_clipfrac_high"].tolist() == [1, 0, 0, 0]
    assert metrics["pg_clipfrac_low"].tolist() == [0, 1, 0, 0]
    assert metrics["pg_clipfrac_dual"].tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(metrics["avg_ratio"], ratios)
    torch.testing.assert_close(metrics["ppo_kl"], -ratios.log())


def test_importance_weights_are_truncated_and_detached():
    old = tensor(0.0, -1.0, math.log(3.0)).requires_grad_()
    weights, metrics = importance_weights(old, tensor(0, 0, 0), cap=2.0)
    torch.testing.assert_close(weights, tensor(1.0, math.exp(-1), 2.0))
    assert not weights.requires_grad
    torch.testing.assert_close(metrics["sampler_kl"], tensor(0.0, math.exp(-1), 2.0 - math.log(3.0)))


def test_cross_entropy_is_the_negative_log_likelihood():
    assert cross_entropy(tensor(-0.5, -2.0)).values.tolist() == [0.5, 2.0]


def test_entropy_of_a_uniform_and_a_certain_distribution():
    rows = torch.log_softmax(torch.stack([tensor(0, 0, 0, 0), tensor(0, 0, 0, 500)]), -1)
    torch.testing.assert_close(entropy(rows), tensor(math.log(4), 0.0))
