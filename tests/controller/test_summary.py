"""summary.json says how the run ended; its plot may fail, the summary stands."""

import pytest
from controller_parts import summary

from nexrl.controller import Outcome, Summary
from nexrl.errors import RunFolderError


def test_a_run_without_a_step(run_dir):
    outcome = Outcome(
        exit_code=5, error="RoleError: trainer-0 died", steps=0, dropped=2, skipped_steps=1, ended="early"
    )
    Summary(run_dir).write(outcome, phases={"starting": 1.5})
    told = summary(run_dir)
    assert told.pop("wall_s") >= 0
    assert told == {
        "exit_code": 5,
        "error": "RoleError: trainer-0 died",
        "steps": 0,
        "dropped": 2,
        "skipped_steps": 1,
        "ended": "early",
        "failed_validation": 0,
        "before": {},
        "after": {},
        "phases": {"starting": 1.5},
        "paths": {"run": str(run_dir), "trajectories": str(run_dir / "trajectories")},
    }
    assert not list(run_dir.glob("reward.png"))


def test_before_and_after(run_dir):
    (run_dir / "hf").mkdir()
    told = Summary(run_dir)
    for when, reward in (("before", 0.25), ("step", 0.5), ("end", 0.75)):
        told.validated(when, {"val/greedy_reward": reward, "val/greedy_failed": 2.0})
    told.write(Outcome(exit_code=0, error="", steps=3), phases={})
    content = summary(run_dir)
    assert content["before"] == {"val/greedy_reward": 0.25, "val/greedy_failed": 2.0}
    assert content["after"] == {"val/greedy_reward": 0.75, "val/greedy_failed": 2.0}
    assert content["failed_validation"] == 6  # of all passes
    assert set(content["paths"]) == {"run", "trajectories", "plot", "hf"}
    assert (run_dir / "reward.png").exists()
    assert sorted(path.name for path in run_dir.iterdir()) == ["hf", "reward.png", "summary.json", "trajectories"]


def test_a_folder_that_takes_no_summary_is_named(run_dir):
    (run_dir / "summary.json").mkdir()
    with pytest.raises(RunFolderError, match=r"run.*summary.*Is a directory"):
        Summary(run_dir).write(Outcome(exit_code=0, error="", steps=0), phases={})
