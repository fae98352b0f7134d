import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_parts import (
    MemorySource,
    make_recipe,
    make_trajectories,
    make_trajectory,
    make_worker,
    one_shard,
    rows_of,
    weights_of,
)

from nexrl.config.schema import AlgorithmConfig, FsdpConfig, KLControlConfig, OptimConfig
from nexrl.errors import CommError, TrainingError
from nexrl.models import load_policy
from nexrl.train_service import TrainWorker
from nexrl.types import BatchRow

LENGTHS = (5, 9, 7, 12, 3, 8, 8, 2, 15)
TRAJECTORIES = make_trajectories(LENGTHS)
ROWS = rows_of(TRAJECTORIES)
OPTIM = OptimConfig(lr=1e-2, weight_decay=0.1)


@pytest.fixture
def build(model_folder):
    def build(*, trajectories=TRAJECTORIES, **options):
        return make_worker(make_recipe(model_folder, **({"optim": OPTIM} | options)), trajectories)

    return build


def metrics_after(worker, *, steps=1, rows=ROWS, **plan):
    return [worker.update_actor(one_shard(rows, step=step + 1, **plan)).metrics for step in range(steps)][-1]


def close(worker, other):
    mine, theirs = weights_of(worker), weights_of(other)
    return all(torch.allclose(mine[name], theirs[name], rtol=1e-6, atol=1e-9) for name in theirs)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
def test_updates_do_not_depend_on_how_the_batch_is_packed(build, mode):
    algorithm = AlgorithmConfig(loss_agg_mode=mode, entropy_coeff=0.01, use_kl_loss=True, kl_loss_coef=0.1)
    whole, split, single = (build(algorithm=algorithm) for _ in range(3))
    expected = metrics_after(whole, steps=2)
    assert metrics_after(split, steps=2, max_tokens=20) == pytest.approx(expected, rel=1e-6)
    assert metrics_after(single, steps=2, max_tokens=1) == pytest.approx(expected, rel=1e-6)
    assert close(split, whole)
    assert close(single, whole)


def test_gradient_checkpointing_changes_nothing_but_memory(build):
    plain, checkpointed = build(), build(gradient_checkpointing=True)
    assert metrics_after(checkpointed, steps=2) == pytest.approx(metrics_after(plain, steps=2), rel=1e-9)
    assert close(checkpointed, plain)


@pytest.fixture
def plain(model_folder):
    """The model that `build` starts from, under transformers' own attention."""
    config = make_recipe(model_folder).service.actor_service.actor.model
    return load_policy(config, seed=7, device=torch.device("cpu"))


def plain_logprobs(model, trajectory, *, temperature=1.0):
    """Log-probs of the trained tokens."""
    tokens = torch.as_tensor(trajectory.tokens).long()
    scores = torch.log_softmax(model(input_ids=tokens[None]).logits[0, :-1] / temperature, -1)
    logprobs = scores.gather(-1, tokens[1:, None])[:, 0]
    return logprobs[torch.as_tensor(trajectory.loss_mask[1:] > 0)].detach().numpy()


TWO = [
    make_trajectory("a", [2, 3, 4], [0, 1, 1], [0, -0.5, -9.0]),
    make_trajectory("b", [5, 6], [0, 1], [0, -3.0]),
]
TWO_ROWS = [BatchRow("a", "r", 3, 2, 2.0), BatchRow("b", "r", 2, 1, -1.0)]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_loss_by_hand(build, plain, temperature):
    """One optimizer step: the ratio is 1, so a token's loss is -A min(p_trainer / p_sampler, cap)."""
    first, second = (plain_logprobs(plain, item, temperature=temperature or 1.0) for item in TWO)
    weights = np.minimum(np.exp(np.concatenate([first - [-0.5, -9.0], second - [-3.0]])), 1.5)
    worker = build(trajectories=TWO, algorithm=AlgorithmConfig(importance_cap=1.5))
    metrics = metrics_after(worker, rows=TWO_ROWS, temperature=temperature)
    assert metrics["actor/policy_loss"] == pytest.approx(float(weights @ [-2, -2, 1]) / 3, rel=1e-6)
    assert metrics["actor/importance_weight_mean"] == pytest.approx(weights.mean(), rel=1e-6)
    assert metrics["actor/avg_ratio"] == 1.0


def test_log_probs_are_those_of_a_plain_forward(build, plain):
    reply = build().compute_log_prob(one_shard(ROWS, max_tokens=20))
    expected = {item.header.trajectory_id: plain_logprobs(plain, item).sum() for item in TRAJECTORIES}
    assert reply.logprob_sums == pytest.approx(expected, rel=1e-9)
    assert reply.kl_sums == {}


def test_kl_to_the_reference_is_zero_before_the_first_update_only(build):
    worker = build(algorithm=AlgorithmConfig(use_kl_loss=True))
    shard = one_shard(ROWS)
    for expected in (True, False):
        worker.compute_log_prob(shard)
        kl = worker.compute_log_prob(shard, reference=True).kl_sums
        assert (max(kl.values()) == 0.0) is expected
        worker.update_actor(shard)


def test_remembered_log_probs_and_those_computed_on_the_way_are_the_same(build):
    asked, unasked = build(), build()
    asked.compute_log_prob(one_shard(ROWS))
    assert metrics_after(asked, parts=3) == pytest.approx(metrics_after(unasked, parts=3), rel=1e-9)
    assert close(asked, unasked)


def test_log_probs_of_another_batch_are_refused(build):
    worker = build()
    worker.compute_log_prob(one_shard(ROWS[:2]))
    with pytest.raises(TrainingError, match="another batch: it lacks t2"):
        worker.update_actor(one_shard(ROWS))


CHANGES = {
    "clip_ratio_low": {"clip_ratio_low": 0.01},
    "clip_ratio_high": {"clip_ratio_high": 0.01},
    "clip_ratio_c": {"clip_ratio_c": 1.0},
    "loss_agg_mode": {"loss_agg_mode": "seq-mean-token-sum"},
    "entropy_coeff": {"entropy_coeff": 0.5},
    "use_kl_loss": {"use_kl_loss": True, "kl_loss_coef": 5.0},
    "importance_correction": {"importance_correction": False},
    "importance_cap": {"importance_cap": 0.5},
    "do_old_log_prob_compute": {"do_old_log_prob_compute": False},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_every_option_of_the_loss_changes_the_update(build, changes):
    """Several optimizer steps, so that ratios leave 1."""
    base, changed = build(), build(algorithm=AlgorithmConfig(**changes))
    for worker in (base, changed):
        metrics_after(worker, steps=2, parts=3, epochs=2)
    assert not close(changed, base)


@pytest.mark.parametrize("kind", ["kl", "abs", "mse"])
def test_kinds_of_kl_penalty_differ(build, kind):
    base, other = (
        build(algorithm=AlgorithmConfig(use_kl_loss=True, kl_loss_coef=5.0, kl_penalty=penalty))
        for penalty in ("low_var_kl", kind)
    )
    for worker in (base, other):
        metrics_after(worker, steps=2)
    assert not close(other, base)


def test_loss_is_the_sum_of_its_parts(build):
    algorithm = AlgorithmConfig(entropy_coeff=0.3, use_kl_loss=True, kl_loss_coef=0.2)
    found = metrics_after(build(algorithm=algorithm), steps=2, parts=2)
    parts = found["actor/pg_loss"] - 0.3 * found["actor/entropy_loss"] + 0.2 * found["actor/kl_loss"]
    assert found["actor/policy_loss"] == pytest.approx(parts)
    assert found["actor/kl_loss_coef"] == 0.2


def test_entropy_bonus_and_kl_loss_pull_where_they_should(build):
    still = [BatchRow(row.trajectory_id, row.recorder, row.num_tokens, row.num_trained, 0.0) for row in ROWS]
    bonus = build(algorithm=AlgorithmConfig(entropy_coeff=1.0), optim=OptimConfig(lr=1e-2, weight_decay=0.0))
    entropies = [bonus.update_actor(one_shard(still, step=step)).metrics["actor/entropy_loss"] for step in range(1, 6)]
    assert entropies == sorted(entropies)
    free, held = (
        metrics_after(build(algorithm=AlgorithmConfig(use_kl_loss=True, kl_loss_coef=value)), steps=5)
        for value in (0.0, 10.0)
    )
    assert held["actor/kl_loss"] < free["actor/kl_loss"]


def test_adaptive_kl_coefficient_moves_between_steps_and_survives_a_checkpoint(build, tmp_path):
    control = KLControlConfig(type="adaptive", target_kl=1e-9, horizon=100)
    algorithm = AlgorithmConfig(use_kl_loss=True, kl_loss_coef=0.1, kl_ctrl=control)
    worker = build(algorithm=algorithm)
    found = [worker.update_actor(one_shard(ROWS, step=step)).metrics["actor/kl_loss_coef"] for step in (1, 2, 3)]
    low, high = 1 - 0.2 * len(ROWS) / 100, 1 + 0.2 * len(ROWS) / 100
    assert found == pytest.approx([0.1, 0.1 * low, 0.1 * low * high])
    worker.save_checkpoint(tmp_path / "saved", global_step=3)
    worker.checkpoint_written().result()
    resumed = build(algorithm=algorithm)
    resumed.load_checkpoint(tmp_path / "saved")
    assert metrics_after(resumed)["actor/kl_loss_coef"] == pytest.approx(0.1 * low * high * high)


def test_optimizer_settings_change_the_update(build):
    base = build()
    metrics_after(base, steps=3)
    for optim in (
        replace(OPTIM, lr=2e-2),
        replace(OPTIM, betas=(0.5, 0.999)),
        replace(OPTIM, eps=1e-2),
        replace(OPTIM, weight_decay=0.5),
        replace(OPTIM, lr_warmup_steps=5),
        replace(OPTIM, warmup_style="linear"),
    ):
        other = build(optim=optim)
        metrics_after(other, steps=3)
        assert not close(other, base), optim


def test_learning_rate_is_reported(build):
    worker = build(optim=OptimConfig(lr=1e-2, lr_warmup_steps=4))
    assert [worker.update_actor(one_shard(ROWS, step=step)).metrics["actor/lr"] for step in (1, 2)] == [2.5e-3, 5e-3]


def test_gradients_are_clipped_to_their_norm(build):
    """Plain AdamW does not feel the scale of gradients; with a large eps it does."""
    optim = OptimConfig(lr=1e-2, eps=1e3, weight_decay=0.0)
    free, clipped = build(optim=optim, grad_clip=0.0), build(optim=optim, grad_clip=0.1)
    start = weights_of(free)
    norm = metrics_after(free)["actor/grad_norm"]
    assert norm > 0.1
    assert metrics_after(clipped)["actor/grad_norm"] == pytest.approx(norm)
    moved, held = (
        torch.cat([(tensor - start[name]).flatten() for name, tensor in worker.tensors()]) for worker in (free, clipped)
    )
    torch.testing.assert_close(held, moved * 0.1 / norm, rtol=1e-2, atol=0)


def test_updates_that_are_not_finite_are_skipped_then_end_the_run(build):
    worker = build(max_nonfinite_steps=3)
    before = weights_of(worker)
    bad = [BatchRow(row.trajectory_id, row.recorder, row.num_tokens, row.num_trained, math.inf) for row in ROWS]
    for step in (1, 2):
        assert worker.update_actor(one_shard(bad, step=step)).metrics["actor/skipped_updates"] == 1.0
    assert all(torch.equal(before[name], tensor) for name, tensor in worker.tensors())
    assert metrics_after(worker)["actor/skipped_updates"] == 0.0  # a good one starts the count afresh
    for step in (1, 2):
        worker.update_actor(one_shard(bad, step=step))
    with pytest.raises(TrainingError, match=r"training step 9: loss .*; 3 updates in a row were not finite"):
        worker.update_actor(one_shard(bad, step=9))


def test_rows_without_trained_tokens_change_nothing(build):
    empty = make_trajectory("empty", [4, 5, 6], [0, 0, 0], [0, 0, 0])
    row = BatchRow("empty", "r", 3, 0, 7.0)
    for mode in ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean"):
        algorithm = AlgorithmConfig(loss_agg_mode=mode)
        base, more = build(algorithm=algorithm), build(trajectories=[*TRAJECTORIES, empty], algorithm=algorithm)
        assert metrics_after(more, rows=[*ROWS, row]) == pytest.approx(metrics_after(base), rel=1e-9)
        assert close(more, base)
    before = weights_of(more)
    assert metrics_after(more, rows=[row])["actor/lr"] == OPTIM.lr
    assert all(torch.equal(before[name], tensor) for name, tensor in more.tensors())


def test_demonstrations_are_learned_whatever_their_advantage(build):
    worker = build(supervised=True, optim=OptimConfig(lr=2e-2, weight_decay=0.0), steps=40)
    nothing = [BatchRow(row.trajectory_id, row.recorder, row.num_tokens, row.num_trained, 0.0) for row in ROWS]
    losses = [
        worker.update_actor(one_shard(nothing, step=step, max_tokens=30)).metrics["actor/policy_loss"]
        for step in range(1, 41)
    ]
    assert losses[0] > 2.5
    assert losses[-1] < 0.5


def test_demonstration_loss_is_the_mean_over_trained_tokens(build, plain):
    logprobs = np.concatenate([plain_logprobs(plain, item) for item in TRAJECTORIES])
    metrics = metrics_after(build(supervised=True), max_tokens=20)
    assert metrics["actor/policy_loss"] == pytest.approx(-logprobs.mean(), rel=1e-9)


def test_rewarded_tokens_become_likelier(build):
    worker = build(trajectories=TWO)
    before = worker.compute_log_prob(one_shard(TWO_ROWS)).logprob_sums
    metrics_after(worker, steps=3, rows=TWO_ROWS)
    after = worker.compute_log_prob(one_shard(TWO_ROWS)).logprob_sums
    assert after["a"] > before["a"]
    assert after["b"] < before["b"]


def test_mixed_precision_stays_near_full_precision(build):
    full = build(dtype="float32")
    mixed = build(dtype="float32", fsdp_config=FsdpConfig(param_dtype="bfloat16"))
    assert {tensor.dtype for _, tensor in mixed.tensors()} == {torch.float32}
    assert metrics_after(mixed, steps=3)["actor/entropy_loss"] == pytest.approx(
        metrics_after(full, steps=3)["actor/entropy_loss"], rel=0.02
    )
    assert not close(mixed, full)


def test_rows_are_fetched_once(model_folder):
    source = MemorySource(TRAJECTORIES)
    worker = TrainWorker(make_recipe(model_folder), source=source, device=torch.device("cpu"))
    worker.init_model()
    worker.compute_log_prob(one_shard(ROWS))
    worker.update_actor(one_shard(ROWS, parts=2, epochs=2))
    assert sorted(source.asked) == sorted(row.trajectory_id for row in ROWS)


def test_rows_that_are_gone_are_named_and_nothing_is_trained(build):
    worker = build(trajectories=TRAJECTORIES[1:])
    before = weights_of(worker)
    with pytest.raises(CommError, match="does not hold"):
        worker.update_actor(one_shard(ROWS))
    assert all(torch.equal(before[name], tensor) for name, tensor in worker.tensors())


def test_commands_before_the_model_are_refused(model_folder):
    worker = TrainWorker(make_recipe(model_folder), source=MemorySource([]), device=torch.device("cpu"))
    assert worker.worker_info().parameters == 0
    with pytest.raises(TrainingError, match="init_model comes first"):
        worker.update_actor(one_shard(ROWS))
