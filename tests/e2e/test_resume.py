"""A run that is interrupted and goes on as if nothing had been."""

import os
import signal

import pytest
from e2e_runs import MODEL_KEY, SLOW, STEPS, TINY, errors_said, left_behind, run, start, start_command

from nexrl.store import StepsReader

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def rewards(launch):
    """By step; the last line of a step counts."""
    return {step["step"]: step["rollout/reward_mean"] for step in launch.steps}


@pytest.fixture(scope="module")
def interrupted(model, tmp_path_factory):
    """SIGTERM in the middle of training."""
    launch = start(
        tmp_path_factory.mktemp("interrupted") / "run",
        model,
        f"trainer.total_train_steps={STEPS}",
        "trainer.save_freq=2",
        "trainer.keep_checkpoints=0",
        "rollout_worker.evaluator_args={seconds: 0.1}",
    )
    launch.wait_for_step(5)
    launch.process.send_signal(signal.SIGTERM)
    code = launch.wait(60)
    assert code == 143, launch.text
    return launch


@pytest.fixture(scope="module")
def stopped_at(interrupted):
    """The step of its last checkpoint."""
    return interrupted.summary["steps"]


@pytest.fixture(scope="module")
def resumed(interrupted, stopped_at, model):
    """The same folder to the end, past a checkpoint that was never completed."""
    (interrupted.folder / "checkpoints" / "step_000099" / "model").mkdir(parents=True)
    return run(
        interrupted.folder,
        model,
        f"trainer.total_train_steps={STEPS}",
        "trainer.keep_checkpoints=0",
        "resume.mode=auto",
    )


def test_sigterm_saves_and_ends(interrupted, stopped_at):
    assert 5 <= stopped_at < STEPS
    assert interrupted.events("checkpoint")[-1]["step"] == stopped_at
    assert (interrupted.folder / "checkpoints" / f"step_{stopped_at:06d}" / "READY").exists()
    assert interrupted.audit.is_settled
    assert left_behind(interrupted.folder) == []
    assert errors_said(interrupted.text) == []
    assert "Traceback" not in interrupted.text


def test_resume_goes_on_in_the_same_folder(resumed, stopped_at):
    [event] = resumed.events("resumed")
    assert event["step"] == stopped_at
    assert event["path"].endswith(f"step_{stopped_at:06d}")
    assert sorted(path.name for path in (resumed.folder / "logs").iterdir()) == ["1", "2"]
    assert [step["step"] for step in resumed.steps] == list(range(1, STEPS + 1))


def test_resumed_run_equals_one_that_was_never_interrupted(resumed, reference):
    assert rewards(resumed) == rewards(reference)
    for name, tensor in reference.weights.items():
        assert tensor.equal(resumed.weights[name]), name


def test_books_cover_both_attempts(resumed, stopped_at, reference):
    with StepsReader(resumed.folder) as steps, StepsReader(reference.folder) as whole:
        trained, expected = steps.columns(), whole.columns()
    assert list(trained["trajectory_id"]) == list(expected["trajectory_id"])
    assert list(trained["step"]) == list(expected["step"])
    assert set(trained["attempt"][trained["step"] <= stopped_at]) == {1}
    assert set(trained["attempt"][trained["step"] > stopped_at]) == {2}
    audit = resumed.audit
    assert audit.is_settled
    assert audit.trained == 4 * STEPS


def test_a_new_run_from_a_checkpoint_of_another(resumed, reference, model, tmp_path):
    checkpoint = resumed.folder / "checkpoints" / "step_000004"
    other = run(
        tmp_path / "run",
        model,
        f"trainer.total_train_steps={STEPS}",
        "resume.mode=from_path",
        f"resume.resume_path={checkpoint}",
    )
    assert [step["step"] for step in other.steps] == list(range(5, STEPS + 1))
    assert other.audit.is_settled
    for name, tensor in reference.weights.items():
        assert tensor.equal(other.weights[name]), name


def test_a_crashed_run_goes_back_to_its_last_checkpoint(reference, model, tmp_path):
    steps = f"trainer.total_train_steps={STEPS}"
    slow = "rollout_worker.evaluator_args={seconds: 0.1}"
    crashed = start(tmp_path / "run", model, steps, slow, "trainer.save_freq=4")
    crashed.wait_for_step(6)
    os.kill(crashed.pid("controller-0"), signal.SIGKILL)
    assert crashed.wait(60) == 5
    [saved] = crashed.events("checkpoint")
    assert saved["step"] == 4

    again = run(tmp_path / "run", model, steps, "resume.mode=auto")
    assert again.events("resumed")[0]["step"] == 4
    assert rewards(again) == rewards(reference)
    for name, tensor in reference.weights.items():
        assert tensor.equal(again.weights[name]), name
    with StepsReader(again.folder) as trained, StepsReader(reference.folder) as whole:
        assert list(trained.columns()["trajectory_id"]) == list(whole.columns()["trajectory_id"])
    assert again.audit.is_settled
    assert again.audit.trained == 4 * STEPS


def test_an_incomplete_checkpoint_is_named(resumed, model, tmp_path):
    incomplete = resumed.folder / "checkpoints" / "step_000099"
    launch = start(tmp_path / "run", model, "resume.mode=from_path", f"resume.resume_path={incomplete}")
    assert launch.wait() == 2
    [message] = errors_said(launch.text)
    assert "READY" in message
    assert str(incomplete) in message


def test_an_occupied_folder_is_refused(resumed, model):
    launch = start(resumed.folder, model)
    assert launch.wait() == 4
    [message] = errors_said(launch.text)
    assert str(resumed.folder) in message
    assert "resume.mode=auto" in message


def test_ctrl_c_ends_one_of_two_runs_that_started_together(model, tmp_path):
    arguments = [str(TINY), f"{MODEL_KEY}={model}", f"launch.run_root={tmp_path}/runs", *SLOW]
    first = start_command(tmp_path / "first", *arguments)
    second = start_command(tmp_path / "second", *arguments, "trainer.total_train_steps=30")
    for launch in (first, second):
        launch.wait_until(lambda launch=launch: "attempt 1" in launch.text)
        launch.folder = tmp_path / "runs" / "tiny" / launch.text.splitlines()[0].partition(",")[0].rpartition("/")[2]
    assert first.folder != second.folder
    first.wait_for_step(2)
    first.process.send_signal(signal.SIGINT)
    assert first.wait(60) == 130, first.text
    assert first.events("checkpoint")[-1]["step"] == first.summary["steps"] >= 2
    assert "Ctrl-C" in first.text
    assert left_behind(first.folder) == []
    assert second.wait() == 0, second.text
    assert len(second.steps) == 30
