"""A whole GRPO run with one process per role: what it learns, and what it leaves behind."""

import json
import stat
import struct

import numpy as np
import psutil
import pytest
from e2e_forward import largest_difference
from e2e_runs import LOCAL, STEPS, left_behind, run, trajectories_tool

from launch.plan import make_topology
from nexrl.config import read_resolved
from nexrl.store import StepsReader, TrajectoryReader

pytestmark = [pytest.mark.processes, pytest.mark.slow]

CHANGING = ("timing/", "throughput/", "progress/", "pool/", "t")
"""Figures that depend on the clock, or on who came first."""


def lasting(step):
    """Figures of a step that a second run with the same seed must repeat."""
    return {name: value for name, value in step.items() if not name.startswith(CHANGING)}


def test_policy_learns(reference):
    rewards = [step["rollout/reward_mean"] for step in reference.steps]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.15
    before, after = reference.summary["before"], reference.summary["after"]
    assert after["val/greedy_reward"] > before["val/greedy_reward"]


def test_every_step_is_reported_with_the_known_names(reference):
    assert [step["step"] for step in reference.steps] == list(range(1, STEPS + 1))
    names = {
        "rollout/reward_mean", "rollout/truncated_ratio", "staleness/mean", "staleness/max", "response_length/mean",
        "response_length/clip_ratio", "prompt_length/mean", "critic/advantages/mean", "critic/grpo_num_groups",
        "actor/pg_loss", "actor/entropy_loss", "actor/grad_norm", "actor/lr", "actor/ppo_kl", "actor/pg_clipfrac",
        "timing/step", "timing/rollout", "timing/train", "timing/publish", "throughput/tokens_per_s",
    }  # fmt: skip
    for step in reference.steps:
        assert names <= set(step)
        assert step["staleness/max"] == 0


def test_events_tell_the_run(reference):
    assert {event["role"] for event in reference.events("role")} == {"recorder", "rollout", "inference", "trainer"}
    assert [event["name"] for event in reference.events("phase")] == [
        "starting", "validating", "training", "validating", "saving", "stopping",
    ]  # fmt: skip
    assert [event["when"] for event in reference.events("validation")] == ["before", "end"]
    assert [event["step"] for event in reference.events("checkpoint")] == [4, 8, 12]
    assert [event["exit_code"] for event in reference.events("done")] == [0]
    assert not reference.events("error")


def test_summary_and_closing_table(reference):
    summary = reference.summary
    assert (summary["exit_code"], summary["error"], summary["steps"]) == (0, "", STEPS)
    assert {"starting", "rollout", "train", "publish", "validation", "save"} <= set(summary["phases"])
    for said in ("reward, sampled", "reward, greedy", "→", "finished (exit code 0)", str(reference.folder)):
        assert said in reference.text
    assert "Traceback" not in reference.text


def test_plot_is_an_image(reference):
    data = (reference.folder / "reward.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert width > 200
    assert height > 200


def test_exported_model_is_the_one_that_was_validated(reference):
    with TrajectoryReader(reference.folder) as reader:
        last = [one for one in reader if one.header.is_val and one.header.version_max == STEPS]
    assert len(last) == 8 * 3
    assert largest_difference(reference.folder / "hf", last) < 1e-4


def test_trajectories_are_sound(reference):
    info = trajectories_tool("info", reference.folder)
    assert info.returncode == 0, info.stderr
    check = trajectories_tool("check", reference.folder)
    assert check.returncode == 0, check.stdout


def test_every_sample_was_drawn_from_the_weights_it_trains(reference):
    with StepsReader(reference.folder) as steps, TrajectoryReader(reference.folder) as reader:
        trained = steps.columns()
        headers = reader.headers()
    row_of = {name: row for row, name in enumerate(headers["trajectory_id"])}
    rows = [row_of[name] for name in trained["trajectory_id"]]
    assert len(rows) > 0
    for version in ("version_min", "version_max"):
        np.testing.assert_array_equal(headers[version][rows], trained["step"] - 1)
    np.testing.assert_array_equal(trained["weight_version"], trained["step"] - 1)
    assert not headers["is_val"][rows].any()


def test_every_prompt_is_accounted_for(reference):
    audit = reference.audit
    assert audit.is_settled
    assert audit.trained == 4 * STEPS
    assert audit.issued == audit.trained + sum(audit.dropped.values())


def test_nobody_is_left(reference):
    pids = [event["pid"] for event in reference.events("role")]
    assert len(pids) == 4
    assert left_behind(reference.folder) == []
    assert not any(map(psutil.pid_exists, pids))


def test_secrets_are_in_one_file_that_only_the_owner_reads(reference):
    file = reference.folder / "launch" / "secrets.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = json.loads(file.read_bytes())
    secrets = [keys["controller"]["secret"], keys["clients"]["secret"], keys["http_token"]]
    files = [path for path in reference.folder.rglob("*") if path.is_file() and path != file]
    assert len(files) > 10
    for path in [*files, reference.output]:
        content = path.read_bytes()
        assert not any(secret.encode() in content for secret in secrets), path


def test_sinks_that_were_asked_for(reference):
    assert list((reference.folder / "tensorboard").glob("events.out.tfevents*"))
    assert list((reference.folder / "wandb").rglob("*.wandb"))


def test_one_process_per_role_and_all_in_one_give_the_same(reference, model, tmp_path):
    local = run(tmp_path / "run", model, f"trainer.total_train_steps={STEPS}", options=LOCAL)
    groups = make_topology(read_resolved(local.folder / "recipe.yaml"), cores=2).groups
    assert [group.name for group in groups] == ["local"]
    assert list(map(lasting, local.steps)) == list(map(lasting, reference.steps))
    assert local.weights.keys() == reference.weights.keys()
    for name, tensor in reference.weights.items():
        assert tensor.equal(local.weights[name]), name


@pytest.fixture(scope="module")
def many(model, tmp_path_factory):
    """Two processes of every kind that may have several; buckets smaller than the largest tensor."""
    return run(
        tmp_path_factory.mktemp("many") / "run",
        model,
        *(f"launch.groups.{name}.tasks=2" for name in ("rollout", "inference", "trainer")),
        f"weight.bucket_mb={BUCKET / 2**20}",
        f"trainer.total_train_steps={STEPS}",
        "validate.validate_at_end=true",
    )


BUCKET = 4096
"""Bytes."""


def test_two_of_each_share_the_work(many):
    roles = sorted((event["role"], event["rank"]) for event in many.events("role"))
    assert roles == [("inference", 0), ("inference", 1), ("recorder", 0), ("rollout", 0), ("rollout", 1),
                     ("trainer", 0), ("trainer", 1)]  # fmt: skip
    with StepsReader(many.folder) as steps, TrajectoryReader(many.folder) as reader:
        assert set(steps.columns()["rank"]) == {0, 1}
        workers = {name.partition("@")[0] for name in reader.headers()["worker"]}
    assert workers == {"rollout-0", "rollout-1"}
    assert many.audit.is_settled


def test_two_trainers_learn_what_one_learns(many, reference):
    first, alone = many.steps[0], reference.steps[0]
    assert first["rollout/reward_mean"] == alone["rollout/reward_mean"]
    assert first["actor/grad_norm"] == pytest.approx(alone["actor/grad_norm"], rel=1e-4)
    assert np.mean([step["rollout/reward_mean"] for step in many.steps[-3:]]) > first["rollout/reward_mean"] + 0.15


def test_engines_have_the_trainers_weights_after_many_small_buckets(many):
    sizes = [tensor.nbytes for tensor in many.weights.values()]
    assert max(sizes) > BUCKET
    assert sum(sizes) > 5 * BUCKET
    with TrajectoryReader(many.folder) as reader:
        last = [one for one in reader if one.header.is_val and one.header.version_min == STEPS]
    assert len(last) == 8 * 3
    assert largest_difference(many.folder / "hf", last) < 1e-4
