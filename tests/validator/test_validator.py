import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

import msgspec
import pytest
from validation_parts import failure, header, result, task

from nexrl.errors import InferenceError, RewardError, RoleError
from nexrl.types import SampleResult
from nexrl.validator import Validator
from nexrl.validator.validator import MAX_ATTEMPTS

PATIENCE = 20.0
"""Seconds; only a broken test waits so long."""


class Pass:
    """A validator whose `run` waits on a thread of its own; the test plays the rollout workers."""

    def __init__(self, executor, tasks):
        self.issued = SimpleQueue()
        self.steps = []
        self.validator = Validator(self._tasks_of(tasks), enqueue=self.issued.put)
        self._executor = executor

    def start(self, step=0):
        return self._executor.submit(self.validator.run, step)

    def next_task(self):
        return self.issued.get(timeout=PATIENCE)

    def nothing_issued(self):
        try:
            return self.issued.get_nowait()
        except Empty:
            return True

    def _tasks_of(self, tasks):
        def of_step(step):
            self.steps.append(step)
            return tasks

        return of_step


@pytest.fixture
def begin():
    started = []
    with ThreadPoolExecutor(4) as executor:

        def make(tasks):
            started.append(Pass(executor, tasks))
            return started[-1]

        yield make
        for one in started:
            one.validator.close(RoleError("the test is over"))


def test_every_way_to_sample_is_a_pass_of_its_own(begin):
    tasks = {"greedy": [task("g/a"), task("g/b")], "sampled": [task("s/a", samples=2)]}
    run = begin(tasks)
    metrics = run.start(step=7)
    assert [run.next_task(), run.next_task()] == tasks["greedy"]
    assert run.nothing_issued() is True
    run.validator.put(result("g/b", reward=0.0))
    run.validator.put(result("g/a", reward=1.0))
    assert run.next_task() == tasks["sampled"][0]
    run.validator.put(result("s/a", 1, reward=1.0))
    assert run.validator.describe() == "validation: 1 samples missing"
    run.validator.put(result("s/a", 0, reward=1.0))
    found = metrics.result(PATIENCE)
    assert run.steps == [7]
    assert found["val/greedy_reward"] == 0.5
    assert found["val/sampled_reward"] == 1.0
    assert found["val/sampled_pass@2"] == 1.0
    assert found["timing/validation"] >= 0
    assert run.validator.describe() == ""


def test_a_failed_sample_is_tried_again_then_given_up(begin, caplog):
    run = begin({"sampled": [task("a", samples=2)]})
    metrics = run.start()
    first = run.next_task()
    run.validator.put(result("a", 0, reward=0.5))
    run.validator.fail(failure(first))
    for attempt in range(1, MAX_ATTEMPTS):
        again = run.next_task()
        assert (again.group_id, again.run_ids, again.attempt) == ("a", (1,), attempt)
        run.validator.fail(failure(again))
    found = metrics.result(PATIENCE)
    assert run.nothing_issued() is True
    assert found["val/sampled_failed"] == 1.0
    assert found["val/sampled_num_samples"] == 1.0
    assert found["val/sampled_reward"] == 0.5
    assert "validation 'sampled' after step 0: 1 samples failed" in caplog.text
    assert "InferenceError: no answer" in caplog.text


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("InferenceError: no answer", InferenceError),
        ("RewardError: found nan", RewardError),
        ("TimeoutError: no end after 3 s", InferenceError),
    ],
)
def test_a_pass_of_nothing_but_failures_is_an_error(reason, kind):
    """The last reason names it; figures of no sample at all would look like a good end."""

    def enqueue(task):
        validator.fail(msgspec.structs.replace(failure(task), reason=reason))

    validator = Validator(lambda step: {"greedy": [task("a"), task("b")]}, enqueue=enqueue)
    with pytest.raises(kind, match=r"'greedy' after step 7: all 2 samples failed 3 times") as raised:
        validator.run(7)
    assert reason.partition(": ")[2] in str(raised.value)


def test_a_retry_that_succeeds_counts(begin):
    run = begin({"sampled": [task("a")]})
    metrics = run.start()
    run.validator.fail(failure(run.next_task()))
    run.validator.put(result("a", attempt=run.next_task().attempt, reward=0.25))
    found = metrics.result(PATIENCE)
    assert found["val/sampled_reward"] == 0.25
    assert found["val/sampled_failed"] == 0.0


def test_a_failure_told_twice_is_tried_again_once(begin):
    """The second one is of an attempt that has another behind it."""
    run = begin({"sampled": [task("a")]})
    metrics = run.start()
    first = run.next_task()
    run.validator.fail(failure(first))
    run.validator.fail(failure(first))
    assert run.next_task().attempt == 1
    assert run.nothing_issued() is True
    run.validator.put(result("a", attempt=1))
    assert metrics.result(PATIENCE)["val/sampled_failed"] == 0.0


def test_late_and_repeated_results_are_ignored(begin):
    run = begin({"sampled": [task("a"), task("b")]})
    metrics = run.start()
    run.next_task()
    run.next_task()
    run.validator.put(result("of an earlier pass", reward=0.0))
    run.validator.fail(failure(task("of an earlier pass")))
    run.validator.put(result("a", reward=1.0))
    run.validator.put(result("a", attempt=1, reward=0.0))
    run.validator.fail(failure(task("a")))
    run.validator.put(result("b", reward=1.0))
    found = metrics.result(PATIENCE)
    run.validator.put(result("b", reward=0.0))
    assert run.nothing_issued() is True
    assert found["val/sampled_num_samples"] == 2.0
    assert found["val/sampled_reward"] == 1.0
    assert found["val/sampled_failed"] == 0.0


def test_all_sequences_of_a_sample_arrive_together(begin):
    run = begin({"sampled": [task("a")]})
    metrics = run.start()
    run.next_task()
    headers = (header("a", reward=1.0), header("a", reward=1.0, sequence=1))
    run.validator.put(SampleResult(group_id="a", run_id=0, attempt=0, is_val=True, headers=headers))
    assert metrics.result(PATIENCE)["val/sampled_num_samples"] == 1.0


def test_one_pass_after_another(begin):
    run = begin({"sampled": [task("a")]})
    for reward in (0.25, 0.75):
        metrics = run.start()
        run.next_task()
        run.validator.put(result("a", reward=reward))
        assert metrics.result(PATIENCE)["val/sampled_reward"] == reward


def test_results_that_come_while_tasks_are_issued():
    """A worker may be faster than the loop that hands tasks out."""
    validator = Validator(
        lambda step: {"sampled": [task("a"), task("b")]}, enqueue=lambda task: validator.put(result(task.group_id))
    )
    assert validator.run(0)["val/sampled_num_samples"] == 2.0


def test_no_held_out_prompts():
    validator = Validator(lambda step: {"sampled": []}, enqueue=lambda task: None)
    assert validator.run(0)["val/sampled_num_samples"] == 0.0


def test_close_ends_a_pass_that_waits(begin):
    run = begin({"sampled": [task("a")]})
    metrics = run.start()
    run.next_task()
    run.validator.close(RoleError("inference-0 died"))
    with pytest.raises(RoleError, match="inference-0 died"):
        metrics.result(PATIENCE)


def test_no_pass_after_close():
    issued = []
    validator = Validator(lambda step: {"sampled": [task("a")]}, enqueue=issued.append)
    validator.close(RoleError("the run is over"))
    with pytest.raises(RoleError, match="the run is over"):
        validator.run(0)
    assert issued == []


def test_a_retry_may_come_back_at_once():
    """Leasing out may end a task on the same thread, and another thread may report meanwhile."""
    calls = []

    def enqueue(task):
        calls.append(task.attempt)
        reporter = threading.Thread(target=validator.fail, args=(failure(task),))
        reporter.start()
        reporter.join(PATIENCE)
        assert not reporter.is_alive()

    validator = Validator(lambda step: {"sampled": [task("a")]}, enqueue=enqueue)
    with pytest.raises(InferenceError, match="no answer"):
        validator.run(0)
    assert calls == list(range(MAX_ATTEMPTS))
