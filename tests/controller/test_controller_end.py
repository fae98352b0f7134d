"""How a run ends when it is told to: in every phase, with a checkpoint, or with the error that ended it."""

import pytest
from controller_parts import HELD_OUT, events, phases, summary

from nexrl.config.schema import ValidateConfig
from nexrl.controller import read_state
from nexrl.errors import RoleError, StallError
from nexrl.pool import LedgerReader


def audit_of(run_dir):
    return LedgerReader(run_dir / "ledger").audit()


def hold_back(*, after, then):
    """An `answer` that finishes tasks up to `after` prompts, and calls `then` instead of finishing the next one."""
    seen = []

    def answer(run, task):
        seen.append(task.group_id)
        if len(seen) == after + 1:
            then(run)
        return len(seen) > after

    return answer


def test_a_stop_before_the_start(make, run_dir):
    run = make()
    run.stop(130)
    assert run.controller.run() == 130
    assert run.trainer.trained == []
    assert not (run_dir / "checkpoints").exists()
    told = summary(run_dir)
    assert (told["exit_code"], told["steps"], told["error"]) == (130, 0, "")
    assert audit_of(run_dir).is_settled


def test_a_stop_while_rollouts_are_waited_for(make, run_dir):
    run = make(steps=9, answer=hold_back(after=3, then=lambda run: run.stop(143)))
    assert run.controller.run() == 143
    assert run.log[-2:] == ["save 1", "saved 1"]
    audit = audit_of(run_dir)
    assert audit.is_settled
    assert (audit.trained, audit.dropped) == (2, {"run ended": 2})
    state = read_state(run_dir / "checkpoints" / "step_000001")
    assert [item.order for item in state.loader.front] == [2, 3]
    assert summary(run_dir)["exit_code"] == 143


def test_a_stop_in_the_middle_of_a_step_ends_after_it(make, run_dir):
    def during(step):
        if step == 2:
            run.stop(130)

    run = make(steps=9, during=during, export_hf=True)
    assert run.controller.run() == 130
    assert len(run.trainer.trained) == 2
    assert "export" not in run.log
    state = read_state(run_dir / "checkpoints" / "step_000002")
    assert state.progress.step == 2
    assert state.loader.front == ()  # what this step trained is not issued again
    assert audit_of(run_dir).trained == 4


@pytest.mark.parametrize("when", ["before", "step", "end"])
def test_a_stop_during_validation(make, run_dir, when):
    validate = ValidateConfig(
        data=HELD_OUT,
        validate_freq=2 if when == "step" else 0,
        validate_before_train=when == "before",
        validate_at_end=when == "end",
    )

    def answer(run, task):
        if task.is_val:
            run.stop(130)
        return task.is_val

    run = make(steps=3, validate=validate, answer=answer, export_hf=True)
    assert run.controller.run() == 130
    steps = {"before": 0, "step": 2, "end": 3}[when]
    assert summary(run_dir)["exit_code"] == 130
    assert summary(run_dir)["steps"] == steps
    assert (run_dir / "checkpoints" / f"step_{steps:06d}" / "READY").exists() == (steps > 0)
    assert "export" not in run.log
    assert events(run_dir, "validation") == []
    assert audit_of(run_dir).is_settled


def test_the_first_of_two_stops_counts(make):
    run = make()
    run.stop(130)
    run.stop(143)
    assert run.controller.run() == 130


def test_a_failure_while_rollouts_are_waited_for(make, run_dir):
    lost = RoleError("trainer-0 died")
    run = make(steps=9, answer=hold_back(after=3, then=lambda run: run.fail(lost)))
    with pytest.raises(RoleError, match="trainer-0 died"):
        run.controller.run()
    assert not (run_dir / "checkpoints").exists()
    told = summary(run_dir)
    assert (told["exit_code"], told["error"], told["steps"]) == (5, "RoleError: trainer-0 died", 1)
    assert [event["message"] for event in events(run_dir, "error")] == ["RoleError: trainer-0 died"]
    assert phases(run_dir)[-1] == "stopping"
    assert audit_of(run_dir).is_settled


def test_a_failure_during_validation(make, run_dir):
    def answer(run, task):
        run.fail(StallError("nothing moved"))
        return True

    run = make(validate=ValidateConfig(data=HELD_OUT), answer=answer)
    with pytest.raises(StallError, match="nothing moved"):
        run.controller.run()
    assert summary(run_dir)["exit_code"] == 6


def test_the_first_failure_counts(make, run_dir):
    def during(step):
        run.fail(RoleError("recorder-0 died"))
        run.fail(StallError("nothing moved"))

    run = make(during=during)
    with pytest.raises(RoleError, match="recorder-0 died"):
        run.controller.run()
    assert summary(run_dir)["error"] == "RoleError: recorder-0 died"


def test_a_failure_after_a_stop_is_not_lost(make, run_dir):
    def during(step):
        run.stop(143)
        run.fail(RoleError("recorder-0 died"))

    run = make(during=during)
    with pytest.raises(RoleError, match="recorder-0 died"):
        run.controller.run()
    assert summary(run_dir)["exit_code"] == 5
