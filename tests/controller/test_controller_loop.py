"""The loop: in which order the work of a step is done, and how a run ends by itself."""

import threading

import msgspec
import pytest
from controller_parts import HELD_OUT, LONG, events, phases, summary

from nexrl.config.schema import SamplingOverride, ValidateConfig
from nexrl.errors import NexRLError, RewardError, RunFolderError, StallError, StoreError
from nexrl.metrics import read_json_lines
from nexrl.pool import LedgerReader
from nexrl.store import StepsReader


def test_the_order_of_a_step(make, run_dir):
    run = make(steps=2, save_freq=1)
    assert run.controller.run() == 0
    assert run.log == [
        "initialize",
        "publish 0",
        *("take", "train 1", "save 1", "publish 1", "release", "saved 1"),
        *("take", "train 2", "save 2", "publish 2", "saved 2"),  # no slot is freed for a prompt that nobody would train
    ]
    assert phases(run_dir) == ["starting", "training", "saving", "stopping"]
    assert events(run_dir, "done")[0]["exit_code"] == 0


def test_what_a_run_leaves_behind(make, run_dir):
    run = make(steps=3, export_hf=True)
    assert run.controller.run() == 0
    assert run.log[-2:] == ["save 3", "saved 3"]
    assert run.log.count("export") == 1
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert (audit.issued, audit.trained, audit.dropped) == (6, 6, {})
    with StepsReader(run_dir) as steps:
        columns = steps.columns()
    assert columns["step"].tolist() == [1] * 4 + [2] * 4 + [3] * 4
    assert columns["weight_version"].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(run.recorders.released) == sorted(columns["trajectory_id"])
    lines = list(read_json_lines(run_dir / "metrics.jsonl"))
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"actor/loss", "pool/trained", "timing/rollout", "timing/train", "timing/publish"} < set(lines[0])
    told = summary(run_dir)
    assert (told["exit_code"], told["error"], told["steps"]) == (0, "", 3)
    assert set(told["phases"]) == {"starting", "rollout", "train", "publish", "export", "save"}
    assert (run_dir / "reward.png").read_bytes().startswith(b"\x89PNG")


def test_weights_are_published_before_their_slots_are_free(make):
    """In synchronous mode every sample of step n is issued after version n - 1 is out."""
    issued_after = []

    def answer(run, task):
        issued_after.append(len([entry for entry in run.log if entry.startswith("publish")]) - 1)

    run = make(steps=3, answer=answer)
    assert run.controller.run() == 0
    assert issued_after == [0, 0, 1, 1, 2, 2]


def test_validation_when_it_is_due(make, run_dir):
    validate = ValidateConfig(
        data=HELD_OUT,
        validate_freq=2,
        sampling={"sampled": SamplingOverride(repeat_n=2), "greedy": SamplingOverride(temperature=0.0)},
    )
    run = make(steps=4, validate=validate)
    assert run.controller.run() == 0
    passes = [(event["when"], event["step"]) for event in events(run_dir, "validation")]
    assert passes == [("before", 0), ("step", 2), ("end", 4)]  # after the last step one pass is enough
    passes_between = ["validating", "training"] * 2
    assert phases(run_dir) == ["starting", *passes_between, "validating", "saving", "stopping"]
    after = summary(run_dir)["after"]
    assert after["val/sampled_num_samples"] == 32
    assert after["val/greedy_num_samples"] == 16
    assert after["val/greedy_reward"] == 1.0
    assert summary(run_dir)["before"]["val/sampled_pass@2"] == 1.0


def test_without_a_pass_at_the_end_the_last_step_is_validated_as_any_other(make, run_dir):
    validate = ValidateConfig(data=HELD_OUT, validate_freq=2, validate_before_train=False, validate_at_end=False)
    assert make(steps=4, validate=validate).controller.run() == 0
    assert [event["step"] for event in events(run_dir, "validation")] == [2, 4]
    assert summary(run_dir)["before"] == {}


def test_the_data_ends_before_the_steps_do(make, run_dir):
    run = make(steps=1000)
    assert run.controller.run() == 0
    assert len(run.trainer.trained) == 16  # an epoch of 32 prompts
    told = summary(run_dir)
    assert (told["steps"], told["ended"]) == (16, "data ended after step 16 of 1000 (data.epochs)")
    assert (told["dropped"], told["skipped_steps"], told["failed_validation"]) == (0, 0, 0)
    assert (run_dir / "checkpoints" / "step_000016" / "READY").exists()


def test_a_batch_that_was_dropped_whole_is_passed_over(make, run_dir):
    def answer(run, task):
        if task.order < 4:
            run.pool.fail(task.group_id, task.run_ids, task.attempt, "InferenceError: gone")
            return True
        return False

    run = make(steps=1, answer=answer)
    assert run.controller.run() == 0
    assert [name.partition("@")[0] for name in run.trainer.trained[0]] == ["mock:5", "mock:6"]
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert audit.dropped == {"attempts used up": 4}
    assert (summary(run_dir)["dropped"], summary(run_dir)["ended"]) == (4, "")
    assert run.log[:5] == ["initialize", "publish 0", "take", "take", "take"]


@pytest.mark.parametrize("epochs", [0, 1], ids=["endless data", "all of the data"])
def test_a_run_whose_every_prompt_is_dropped_ends(make, run_dir, epochs):
    def answer(run, task):
        run.pool.fail(task.group_id, task.run_ids, task.attempt, "InferenceError: gone")
        return True

    run = make(steps=3, epochs=epochs, answer=answer, slots=2 if epochs == 0 else 32)
    said = r"nothing to train on after step 0.*ledger/1\.jsonl.* attempts used up: InferenceError: gone"
    with pytest.raises(StallError, match=said):
        run.controller.run()
    assert run.trainer.trained == []
    assert summary(run_dir)["exit_code"] == 6
    assert LedgerReader(run_dir / "ledger").audit().is_settled


def test_data_of_which_only_dropped_prompts_are_left_is_no_good_end(make, run_dir):
    def answer(run, task):
        if task.order >= 30:
            run.pool.fail(task.group_id, task.run_ids, task.attempt, "InferenceError: gone")
        return task.order >= 30

    run = make(steps=1000, answer=answer)
    with pytest.raises(StallError, match=r"nothing to train on after step 15: .*InferenceError: gone"):
        run.controller.run()
    told = summary(run_dir)
    assert (told["steps"], told["dropped"], told["ended"]) == (15, 2, "")


def test_steps_with_nothing_to_learn_from_are_counted_and_warned_of(make, run_dir, caplog):
    run = make(steps=12)
    run.trainer.skips = True
    assert run.controller.run() == 0
    assert summary(run_dir)["skipped_steps"] == 12
    [warning] = [record for record in caplog.records if "in a row had nothing to learn from" in record.getMessage()]
    assert warning.getMessage().startswith("10 steps in a row had nothing to learn from, step 10 the last")


def test_what_fails_while_a_failed_run_is_closed_does_not_hide_why(make, run_dir, caplog):
    def during(step):
        raise RewardError("broken evaluator")

    run = make(during=during)
    close = run.bookkeeper.close

    def close_badly():
        close()
        raise StoreError("disk full")

    run.bookkeeper.close = close_badly
    with pytest.raises(RewardError, match="broken evaluator"):
        run.controller.run()
    told = summary(run_dir)
    assert (told["exit_code"], told["error"]) == (9, "RewardError: broken evaluator")
    assert "while the run was closed: StoreError: disk full" in caplog.text
    assert events(run_dir, "done")[0]["exit_code"] == 9


def test_an_error_of_the_closing_alone_is_the_run_s(make, run_dir):
    run = make(steps=1)
    run.pool.write_off = None  # a bug
    with pytest.raises(TypeError):
        run.controller.run()
    assert summary(run_dir)["exit_code"] == 1
    assert summary(run_dir)["error"].startswith("NexRLError: TypeError")


def test_a_trainer_that_calls_sys_exit_fails_the_run(make, run_dir):
    def during(step):
        raise SystemExit(0)

    with pytest.raises(NexRLError, match="SystemExit: 0"):
        make(during=during).controller.run()
    assert summary(run_dir)["exit_code"] == 1


def test_an_error_of_a_step_ends_the_run_and_is_in_the_books(make, run_dir):
    def during(step):
        if step == 2:
            raise RewardError("broken evaluator")

    run = make(steps=3, during=during)
    with pytest.raises(RewardError, match="broken evaluator"):
        run.controller.run()
    told = summary(run_dir)
    assert (told["exit_code"], told["error"], told["steps"]) == (9, "RewardError: broken evaluator", 1)
    assert events(run_dir, "error")[0]["message"] == "RewardError: broken evaluator"
    assert events(run_dir, "done")[0]["exit_code"] == 9
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert (audit.trained, audit.dropped) == (2, {"run ended": 2})


def test_a_bug_ends_the_run_and_is_in_the_books(make, run_dir):
    def during(step):
        raise ZeroDivisionError("division by zero")

    with pytest.raises(ZeroDivisionError):
        make(during=during).controller.run()
    told = summary(run_dir)
    assert (told["exit_code"], told["error"]) == (1, "NexRLError: ZeroDivisionError: division by zero")


def test_a_failing_recorder_ends_the_run(make, run_dir):
    run = make(steps=1000)
    run.recorders.failure = StoreError("disk full")
    with pytest.raises(StoreError, match="disk full"):
        run.controller.run()
    assert summary(run_dir)["exit_code"] == 4
    assert LedgerReader(run_dir / "ledger").audit().trained == 0  # nothing is trained that is not durable


def test_the_books_are_closed_where_one_of_them_cannot_be(make, run_dir):
    """A broken plot, here through a line of metrics that is none, keeps nothing else from its end."""

    def during(step):
        with (run_dir / "metrics.jsonl").open("a") as file:
            file.write("no json\n")

    with pytest.raises(RunFolderError, match=r"metrics\.jsonl"):
        make(steps=1, during=during).controller.run()
    assert summary(run_dir)["steps"] == 1
    assert events(run_dir, "done")


def test_metrics_of_steps_count_what_was_trained(make, run_dir):
    run = make(steps=2)
    assert run.controller.run() == 0
    state = msgspec.json.decode((run_dir / "checkpoints" / "step_000002" / "state.json").read_bytes())
    assert state["progress"] == {"step": 2, "tokens": 16, "trajectories": 8}
    assert not any(thread.name in ("feeder", "bookkeeper") for thread in threading.enumerate())
    assert run.pool.wait_for_slot(LONG) is False
