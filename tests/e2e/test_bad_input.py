"""What a user can get wrong, and the one message that says so."""

import subprocess

import pytest
from e2e_runs import HERE, MODEL_KEY, SLOW, errors_said, left_behind, run, start

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


def test_no_free_disk(model, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=False).returncode:
        pytest.skip("may not mount a small file system")
    try:
        text = refused(small / "run", model, code=4)
    finally:
        subprocess.run(["umount", small], check=True)
    assert "not enough free disk" in text
    assert str(small) in text


@pytest.mark.parametrize(
    ("evaluator", "options", "said"),
    [("Raises", (), "raised KeyError"), ("ReturnsNan", ("--launch-mode", "local"), "nan")],
)
def test_bad_reward_names_evaluator_and_task(evaluator, options, said, model, tmp_path):
    text = refused(
        tmp_path / "run", model, f"rollout_worker.evaluator={REWARDS}:{evaluator}", code=9, options=options
    )
    assert f"{evaluator} on task train.parquet:" in text
    assert said in text


def test_hanging_reward_costs_its_group_only(model, tmp_path):
    lines = [f'{{"prompt": "{letter}b>", "ground_truth": "b{letter}"}}' for letter in "acde"]
    launch = run(
        tmp_path / "run",
        model,
        f"data.data_files=[{data_file(tmp_path, *lines)}]",
        "data.shuffle=false",
        "trainer.total_train_steps=2",
        f"rollout_worker.evaluator={REWARDS}:HangsOn",
        "rollout_worker.evaluator_args={letters: c}",
        "rollout_worker.episode_timeout=1",
        "trajectory_pool.max_attempts=2",
    )
    assert [step["rollout/num_groups"] for step in launch.steps] == [3, 3]
    assert launch.audit.is_settled
    assert launch.audit.trained == 6
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
