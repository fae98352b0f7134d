"""What a user can get wrong, and the one message that says so."""

import contextlib
import subprocess

import pytest
from e2e_runs import HERE, LOCAL, MODEL_KEY, SLOW, errors_said, left_behind, run, start, trajectories_tool

pytestmark = [pytest.mark.processes, pytest.mark.slow]

REWARDS = HERE / "e2e_rewards.py"


def refused(folder, model, *overrides, code, options=()):
    """The whole message of a run that must end with `code`."""
    launch = start(folder, model, *overrides, options=options)
    assert launch.wait() == code, launch.text
    text = launch.text
    assert len(errors_said(text)) == 1, text
    assert "Traceback" not in text
    assert left_behind(folder) == []
    return text


def data_file(folder, *lines):
    path = folder / "words.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_missing_data_file(model, tmp_path):
    text = refused(tmp_path / "run", model, f"data.data_files=[{tmp_path}/nowhere.jsonl]", code=2)
    assert "data.data_files" in text
    assert f"{tmp_path}/nowhere.jsonl" in text
    assert not (tmp_path / "run").exists()


def test_empty_data_file(model, tmp_path):
    path = data_file(tmp_path)
    text = refused(tmp_path / "run", model, f"data.data_files=[{path}]", code=3)
    assert str(path) in text


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"prompt": "ab>", "ground_truth": ', "2"),
        ('{"question": "ab>", "ground_truth": "ba"}', "prompt"),
        ('{"prompt": "abcdefghijklmnopqrst>", "ground_truth": "?"}', "data.max_prompt_length"),
    ],
    ids=["broken JSON", "missing column", "long prompt"],
)
def test_bad_row(line, named, model, tmp_path):
    path = data_file(tmp_path, '{"prompt": "ab>", "ground_truth": "ba"}', line)
    text = refused(tmp_path / "run", model, f"data.data_files=[{path}]", "data.shuffle=false", code=3)
    assert str(path.name) in text
    assert named in text


def test_missing_model_folder(tmp_path):
    text = refused(tmp_path / "run", tmp_path / "nowhere", code=2)
    assert MODEL_KEY in text
    assert f"{tmp_path}/nowhere" in text


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many MiB."""
    folder = tmp_path / "small"
    folder.mkdir()

    def make(mebibytes):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", folder]
        if subprocess.run(mount, check=False).returncode:
            pytest.skip("may not mount a small file system")
        return folder

    yield make
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def test_no_free_disk(model, small_disk):
    folder = small_disk(1)
    text = refused(folder / "run", model, code=4)
    assert "not enough free disk" in text
    assert str(folder) in text


def test_disk_that_fills_up(model, small_disk):
    folder = small_disk(1100)
    launch = start(folder / "run", model, *SLOW)
    launch.wait_until(lambda: launch.steps and launch.audit.trained)
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(2**20)):
            pass
    assert launch.wait(60) == 4, launch.text
    assert len(errors_said(launch.text)) == 1, launch.text
    assert f"{folder}/run" in launch.text
    assert "Traceback" not in launch.text
    assert trajectories_tool("info", launch.folder).returncode == 0
    assert launch.audit.trained > 0


@pytest.mark.parametrize(
    ("evaluator", "options", "said"),
    [("Raises", (), "raised KeyError"), ("ReturnsNan", LOCAL, "nan")],
)
def test_bad_reward_names_evaluator_and_task(evaluator, options, said, model, tmp_path):
    text = refused(tmp_path / "run", model, f"rollout_worker.evaluator={REWARDS}:{evaluator}", code=9, options=options)
    assert f"{evaluator} on task train.parquet:" in text
    assert said in text


def test_hanging_reward_costs_its_group_only(model, tmp_path):
    lines = [f'{{"prompt": "{letter}b>", "ground_truth": "b{letter}"}}' for letter in "acde"]
    launch = run(
        tmp_path / "run",
        model,
        f"data.data_files=[{data_file(tmp_path, *lines)}]",
        "data.shuffle=false",
        "trainer.total_train_steps=1",
        f"rollout_worker.evaluator={REWARDS}:HangsOn",
        "rollout_worker.evaluator_args={letters: c}",
        "rollout_worker.episode_timeout=1",
        "trajectory_pool.max_attempts=2",
    )
    assert [step["rollout/num_groups"] for step in launch.steps] == [3]
    assert launch.audit.is_settled
    assert launch.audit.trained == 3
    entries = [line for line in (launch.folder / "ledger" / "1.jsonl").read_text().splitlines() if "dropped" in line]
    assert any("words.jsonl:2@0" in line and "episode_timeout" in line for line in entries)


def test_stall_says_what_is_waited_for(model, tmp_path):
    text = refused(
        tmp_path / "run", model, *SLOW, "rollout_worker.evaluator_args={seconds: 3600}",
        "runtime_monitor.stall_timeout=3", "launch.stop_timeout=5", code=6,
    )  # fmt: skip
    assert "nothing moved for" in text
    assert "rollout-0" in text
    assert "samples missing" in text
