import math

import pytest
import torch

from nexrl.algorithms.kl import kl_penalty
from nexrl.algorithms.kl_control import AdaptiveKL, FixedKL


def penalty(kind, difference):
    return float(kl_penalty(torch.tensor([difference], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), kind))


@pytest.mark.parametrize(
    ("kind", "difference", "value"),
    [
        ("kl", 0.5, 0.5),
        ("kl", -0.5, -0.5),
        ("abs", -0.5, 0.5),
        ("mse", -0.5, 0.125),
        ("low_var_kl", 0.5, 0.106531),
        ("low_var_kl", -0.5, 0.148721),
        ("low_var_kl", 9.0, math.exp(-5) + 5 - 1),  # log ratio clipped to 5
        ("low_var_kl", -9.0, 10.0),  # result clipped to 10
    ],
)
def test_golden_numbers(kind, difference, value):
    assert penalty(kind, difference) == pytest.approx(value, abs=5e-7)


def test_adaptive_coefficient_golden_number():
    control = AdaptiveKL(0.1, target=6.0, horizon=10000)
    assert control.updated(kl=12.0, sequences=256).coefficient == pytest.approx(0.100512)
    assert control.updated(kl=0.0, sequences=256).coefficient == pytest.approx(0.1 * (1 - 0.2 * 256 / 10000))
    assert control.updated(kl=6.0, sequences=256).coefficient == pytest.approx(0.1)
    assert control.coefficient == 0.1


def test_fixed_coefficient_stays():
    assert FixedKL(0.3).updated(kl=100.0, sequences=5).coefficient == 0.3
