"""A second attempt goes on where the checkpoint of the first one stands: nothing twice, nothing left out."""

import pytest
from controller_parts import events

from nexrl.config.schema import ResumeConfig
from nexrl.controller import Checkpoints, read_state
from nexrl.errors import CheckpointError, RoleError
from nexrl.metrics import read_json_lines
from nexrl.pool import LedgerReader
from nexrl.store import StepsReader

AUTO = ResumeConfig(mode="auto")


def in_one_go(make, folder, steps):
    (folder / "trajectories").mkdir(parents=True)
    whole = make(steps=steps, folder=folder)
    assert whole.controller.run() == 0
    return whole.trainer.trained


def dies_in(step):
    def during(here):
        if here == step:
            raise RoleError("killed")

    return during


@pytest.mark.parametrize("slots", [2, 8], ids=["synchronous", "reading ahead"])
def test_a_stopped_run_goes_on(make, run_dir, tmp_path, slots):
    def during(step):
        if step == 3:
            first.stop(143)

    first = make(steps=6, during=during, slots=slots)
    assert first.controller.run() == 143
    second = make(steps=6, attempt=2, resume=AUTO, slots=slots)
    assert second.controller.run() == 0
    assert second.log[:3] == ["initialize", "load 3", "publish 3"]
    assert first.trainer.trained + second.trainer.trained == in_one_go(make, tmp_path / "whole", 6)
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert audit.trained == 12
    with StepsReader(run_dir) as steps:
        assert steps.columns()["step"].tolist() == sorted([*range(1, 7)] * 4)
    assert read_state(run_dir / "checkpoints" / "step_000006").progress.tokens == 6 * 8
    assert events(run_dir, "resumed")[0]["step"] == 3


@pytest.mark.parametrize("slots", [2, 8], ids=["synchronous", "reading ahead"])
def test_a_killed_run_goes_back_to_its_checkpoint(make, run_dir, tmp_path, slots):
    first = make(steps=6, save_freq=2, during=dies_in(4), slots=slots)
    with pytest.raises(RoleError):
        first.controller.run()
    second = make(steps=6, save_freq=2, attempt=2, resume=AUTO, slots=slots)
    assert second.controller.run() == 0
    assert first.trainer.trained[:2] + second.trainer.trained == in_one_go(make, tmp_path / "whole", 6)
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert audit.trained == 12
    with StepsReader(run_dir) as steps:
        assert steps.columns()["attempt"].tolist() == [1] * 8 + [2] * 16
    lines = [line["step"] for line in read_json_lines(run_dir / "metrics.jsonl")]
    assert lines == [1, 2, 3, 3, 4, 5, 6]


def test_a_run_killed_before_its_first_checkpoint_begins_again(make, run_dir):
    with pytest.raises(RoleError):
        make(steps=3, during=dies_in(2)).controller.run()
    assert make(steps=3, attempt=2, resume=AUTO).controller.run() == 0
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert (audit.issued, audit.trained) == (6, 6)


def test_a_finished_run_has_nothing_to_do(make, run_dir):
    assert make(steps=2).controller.run() == 0
    again = make(steps=2, attempt=2, resume=AUTO)
    assert again.controller.run() == 0
    assert again.trainer.trained == []
    assert "save 2" not in again.log
    assert LedgerReader(run_dir / "ledger").audit().is_settled


@pytest.mark.parametrize("slots", [2, 8], ids=["synchronous", "reading ahead"])
def test_the_checkpoint_of_another_run(make, run_dir, tmp_path, slots):
    """The new folder's account begins here: it says nothing of prompts that the other run has issued."""
    other = tmp_path / "other"
    (other / "trajectories").mkdir(parents=True)
    first = make(steps=2, folder=other, slots=slots)
    assert first.controller.run() == 0
    path = str(other / "checkpoints" / "step_000002")
    second = make(steps=3, resume=ResumeConfig(mode="from_path", resume_path=path), slots=slots)
    assert second.controller.run() == 0
    assert first.trainer.trained + second.trainer.trained == in_one_go(make, tmp_path / "whole", 3)
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert audit.trained == 2


def test_a_run_from_a_path_that_is_stopped_at_once_can_go_on_in_its_own_folder(make, run_dir, tmp_path):
    other = tmp_path / "other"
    (other / "trajectories").mkdir(parents=True)
    assert make(steps=2, folder=other).controller.run() == 0
    path = str(other / "checkpoints" / "step_000002")
    second = make(steps=3, resume=ResumeConfig(mode="from_path", resume_path=path))
    second.stop(130)
    assert second.controller.run() == 130
    assert (run_dir / "checkpoints" / "step_000002" / "READY").exists()


def test_a_checkpoint_that_does_not_exist_is_named(make, run_dir):
    path = str(run_dir / "checkpoints" / "step_000007")
    run = make(resume=ResumeConfig(mode="from_path", resume_path=path))
    with pytest.raises(CheckpointError, match="step_000007 is not a folder"):
        run.controller.run()


def test_a_checkpoint_of_other_data_is_refused(make, run_dir):
    assert make(steps=1).controller.run() == 0
    with pytest.raises(CheckpointError, match="num_rows 32, this run's data has 48"):
        make(steps=2, prompts=3, attempt=2, resume=AUTO).controller.run()


def test_checkpoints_are_due_every_so_many_steps(tmp_path):
    def make_checkpoints(freq):
        return Checkpoints(
            tmp_path, None, save_freq=freq, keep=1, before_publish=lambda: None, on_saved=lambda step, path: None
        )

    assert [step for step in range(1, 9) if make_checkpoints(3).due(step)] == [3, 6]
    assert not any(make_checkpoints(0).due(step) for step in range(1, 9))
