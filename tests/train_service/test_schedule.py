import pytest

from nexrl.config.schema import OptimConfig
from nexrl.train_service.schedule import learning_rate


def rates(**options):
    optim = OptimConfig(lr=1.0, **options)
    return [learning_rate(optim, step=step, total_steps=10) for step in range(1, 12)]


def test_constant():
    assert rates() == [1.0] * 11


def test_warm_up_reaches_the_rate_at_its_last_step():
    assert rates(lr_warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates(lr_warmup_steps_ratio=0.4) == rates(lr_warmup_steps=4)
    assert rates(lr_warmup_steps=2, lr_warmup_steps_ratio=0.4) == rates(lr_warmup_steps=2)


def test_linear_falls_to_its_floor_at_the_last_step_and_stays():
    found = rates(warmup_style="linear", lr_warmup_steps=5, min_lr_ratio=0.1)
    assert found[4:] == pytest.approx([1.0, 0.82, 0.64, 0.46, 0.28, 0.1, 0.1])


def test_cosine_is_half_way_in_the_middle():
    found = rates(warmup_style="cosine", lr_warmup_steps=4, min_lr_ratio=0.2)
    assert found[3] == 1.0
    assert found[6] == pytest.approx(0.6)
    assert found[9] == pytest.approx(0.2)
    assert found[10] == pytest.approx(0.2)


def test_warm_up_over_the_whole_run():
    assert rates(warmup_style="linear", lr_warmup_steps=10)[9] == 1.0
