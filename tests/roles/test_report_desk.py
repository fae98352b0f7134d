"""What rollout workers report goes to the pool, to the validator, or ends the run."""

import threading

import pytest

from nexrl.activity import ErrorReporter, HealthPolicy, StallWatchdog
from nexrl.comm import Caller
from nexrl.config.schema import ExceptionHandlingConfig, TrajectoryPoolConfig
from nexrl.errors import InferenceError, NexRLError, RewardError
from nexrl.pool import Ledger, TrajectoryPool
from nexrl.roles.reports import ReportDesk
from nexrl.types import LeaseRequest, RolloutReport, SampleFailure, SampleResult, SamplingParams, Task, TrajectoryHeader
from nexrl.validator import Validator

WORKER = Caller("rollout-0")


def task(name, *, is_val=False):
    return Task(
        task_id=name,
        group_id=name,
        order=0,
        run_ids=(0, 1),
        attempt=0,
        is_val=is_val,
        prompt="p",
        ground_truth=None,
        data_source="src",
        seed=1,
        sampling=SamplingParams(max_tokens=4),
    )


def result(name, run_id, *, is_val=False, attempt=0):
    header = TrajectoryHeader(
        trajectory_id=f"{name}/{run_id}.{attempt}.0",
        group_id=name,
        task_id=name,
        order=0,
        run_id=run_id,
        attempt=attempt,
        sequence=0,
        model_tag="default",
        is_val=is_val,
        num_tokens=3,
        num_trained=2,
        reward=1.0,
        score={},
        finish_reason="stop",
        version_min=0,
        version_max=0,
        data_source="src",
        worker="rollout-0@here",
        seed=1,
        temperature=1.0,
        started=0.0,
        finished=1.0,
        recorder="recorder-0",
    )
    return SampleResult(group_id=name, run_id=run_id, attempt=attempt, is_val=is_val, headers=(header,))


def failure(name, *run_ids, reason="InferenceError: gone", is_val=False, fatal=False, attempt=0):
    return SampleFailure(group_id=name, run_ids=run_ids, attempt=attempt, is_val=is_val, reason=reason, fatal=fatal)


class Desk:
    """A desk, its pool, and lists of what else it calls."""

    def __init__(self, folder, policy):
        self.ledger = Ledger(folder, attempt=1)
        self.pool = TrajectoryPool(TrajectoryPoolConfig(), groups_per_batch=1, slots=1, ledger=self.ledger)
        self.validator = Validator(lambda step: {}, enqueue=self.pool.enqueue)
        self.released = []
        self.fatal = []
        self.moved = []
        self.reporter = ErrorReporter()
        watchdog = StallWatchdog(60.0, describe=str, on_stall=self.fatal.append)
        watchdog.progressed = self.moved.append
        self.desk = ReportDesk(
            self.pool,
            self.validator,
            self,
            self.reporter,
            HealthPolicy(ExceptionHandlingConfig(policy=policy)),
            watchdog,
            on_fatal=self.fatal.append,
        )

    def release(self, trajectory_ids):
        self.released += trajectory_ids

    def lease(self):
        return self.desk.lease(WORKER, LeaseRequest(4)).result(0)

    def report(self, *results, failures=()):
        self.desk.report(WORKER, RolloutReport(results=results, failures=tuple(failures)))


@pytest.fixture
def make(tmp_path):
    made = []

    def make_desk(policy="stop_on_critical"):
        made.append(Desk(tmp_path, policy))
        return made[-1]

    yield make_desk
    for desk in made:
        desk.pool.close()
        desk.ledger.close()


def test_training_results_go_to_the_pool(make):
    desk = make()
    desk.pool.admit(task("a"))
    assert [each.group_id for each in desk.lease()] == ["a"]
    desk.report(result("a", 0), result("a", 1))
    [group] = desk.pool.take_batch(0)
    assert [header.run_id for header in group.headers] == [0, 1]
    assert desk.released == []
    assert desk.moved == ["rollouts of rollout-0"]


def test_what_comes_twice_is_let_go(make):
    desk = make()
    desk.pool.admit(task("a"))
    desk.lease()
    desk.report(result("a", 0), result("a", 0), result("unknown", 0))
    assert desk.released == ["a/0.0.0", "unknown/0.0.0"]


def test_a_failure_is_issued_again(make):
    desk = make()
    desk.pool.admit(task("a"))
    desk.lease()
    desk.report(result("a", 0), failures=[failure("a", 1)])
    [again] = desk.lease()
    assert (again.run_ids, again.attempt) == ((1,), 1)
    assert desk.fatal == []
    assert [(one.module, one.severity) for one in desk.reporter.all()] == [("rollout-0", "error")]


def test_validation_goes_to_the_validator(make):
    desk = make()
    figures = []
    tasks = {"sampled": [task("v", is_val=True)]}
    desk.validator = desk.desk._validator = Validator(lambda step: tasks, enqueue=desk.pool.enqueue)
    passing = threading.Thread(target=lambda: figures.append(desk.validator.run(0)))
    passing.start()
    [leased] = desk.desk.lease(WORKER, LeaseRequest(4)).result(30)
    desk.report(result("v", 0, is_val=True), failures=[failure("v", 1, is_val=True)])
    [again] = desk.desk.lease(WORKER, LeaseRequest(4)).result(30)
    assert (leased.run_ids, again.run_ids, again.attempt) == ((0, 1), (1,), 1)
    desk.report(result("v", 1, is_val=True, attempt=1))
    passing.join(30)
    assert figures[0]["val/sampled_num_samples"] == 2
    assert desk.released == []
    assert desk.pool.metrics()["pool/leased"] == 0


@pytest.mark.parametrize(
    ("reason", "kind", "message"),
    [
        ("RewardError: mine.py: found nan", RewardError, "mine.py: found nan (rollout of a on rollout-0)"),
        ("ValueError: bad", NexRLError, "ValueError: bad (rollout of a on rollout-0)"),
        ("EXIT_OK: bad", NexRLError, "EXIT_OK: bad (rollout of a on rollout-0)"),
        ("gone", NexRLError, "gone (rollout of a on rollout-0)"),
    ],
)
def test_a_fatal_failure_ends_the_run_by_its_name(make, reason, kind, message):
    desk = make()
    desk.pool.admit(task("a"))
    desk.lease()
    desk.report(failures=[failure("a", 0, reason=reason, fatal=True)])
    [error] = desk.fatal
    assert type(error) is kind
    assert str(error) == message


def test_the_patient_policy_goes_on_even_after_a_broken_reward(make):
    desk = make("continue")
    desk.pool.admit(task("a"))
    desk.lease()
    desk.report(failures=[failure("a", 0, reason="RewardError: found nan", fatal=True)])
    assert desk.fatal == []
    assert [(each.run_ids, each.attempt) for each in desk.lease()] == [((0,), 1)]
    assert [one.severity for one in desk.reporter.all()] == ["critical"]


def test_the_strict_policy_ends_the_run_at_any_failure(make):
    desk = make("stop_on_error")
    desk.pool.admit(task("a"))
    desk.lease()
    desk.report(failures=[failure("a", 0)])
    assert [type(error) for error in desk.fatal] == [InferenceError]
