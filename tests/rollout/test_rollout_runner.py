import threading
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import pytest
from rollout_parts import ScriptedEngine, context, task

from nexrl.activity import ActivityTracker, ErrorReporter
from nexrl.errors import CommError, InferenceError, RefusedRequestError, RewardError
from nexrl.rollout import BaseRolloutWorker, RolloutRunner, SimpleRolloutWorker

PATIENCE = 20.0
"""Seconds; only a broken test waits so long."""


class Controller:
    """The pool and the recorder as a rollout process sees them; `log` holds what it was told, in order."""

    def __init__(self):
        self.limits = []
        self.log = []
        self._condition = threading.Condition()
        self._tasks = []
        self._waiting = None
        self._over = False
        self.report_error = None

    def give(self, *tasks):
        with self._condition:
            self._tasks += tasks
        self._answer()

    def end(self):
        """No task follows."""
        with self._condition:
            self._over = True
        self._answer()

    def lease(self, limit):
        with self._condition:
            self.limits.append(limit)
            self._waiting = (future, _) = (Future(), limit)
            self._condition.notify_all()
        self._answer()
        return future

    def append(self, trajectories):
        with self._condition:
            self.log += [("append", one.header.trajectory_id) for one in trajectories]
        return [one.with_recorder("recorder-0").header for one in trajectories]

    def report(self, report):
        if self.report_error is not None:
            raise self.report_error
        with self._condition:
            self.log += [("result", result.group_id, result.headers) for result in report.results]
            self.log += [("failure", failure) for failure in report.failures]
            self._condition.notify_all()

    def wait_for(self, *, reports=0, leases=0):
        with self._condition:
            assert self._condition.wait_for(
                lambda: len(self.reported()) >= reports and len(self.limits) >= leases, PATIENCE
            ), self.log
        return self.reported()

    def reported(self):
        return [entry for entry in self.log if entry[0] != "append"]

    def failures(self):
        return [entry[1] for entry in self.log if entry[0] == "failure"]

    def _answer(self):
        with self._condition:
            if self._waiting is None or not (self._tasks or self._over):
                return
            future, limit = self._waiting
            given, self._tasks, self._waiting = self._tasks[:limit], self._tasks[limit:], None
        future.set_result(given)


class Gated(BaseRolloutWorker):
    """Begins episodes as told, and ends them when their gate is open."""

    def __init__(self, context):
        super().__init__(context)
        self.changed = threading.Condition()
        self.running = set()
        self.most = 0
        self._open = set()

    def open(self, *names):
        with self.changed:
            self._open |= set(names)
            self.changed.notify_all()

    def wait_running(self, *names):
        with self.changed:
            assert self.changed.wait_for(lambda: self.running == set(names), PATIENCE), self.running

    def rollout(self, task):
        with self.changed:
            self.running.add(task.task_id)
            self.most = max(self.most, len(self.running))
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: task.task_id in self._open, PATIENCE)
            self.running.discard(task.task_id)
            self.changed.notify_all()
        return SimpleRolloutWorker(self.context).rollout(task)


@pytest.fixture
def controller():
    return Controller()


@pytest.fixture
def start(controller, tokenizer):
    """Runs a worker on a thread; at the end of the test it is stopped."""
    runners = []
    with ThreadPoolExecutor(1) as executor:

        def begin(kind=SimpleRolloutWorker, replies="z" * 100, **config):
            worker = kind(context(tokenizer, ScriptedEngine(tokenizer, replies), **config))
            runner = RolloutRunner(
                worker,
                sink=controller,
                lease=controller.lease,
                report=controller.report,
                tracker=ActivityTracker(ErrorReporter()),
            )
            runners.append(runner)
            return worker, runner, executor.submit(runner.run)

        yield begin
        for runner in runners:
            runner.stop()


def test_what_is_reported_is_with_the_recorder_already(controller, start):
    _, _, run = start()
    controller.give(task(name="a", samples=2), task(name="b"))
    controller.wait_for(reports=3)
    controller.end()
    run.result(PATIENCE)
    order = [(entry[0], entry[1]) for entry in controller.log]
    for name, run_id in (("a", 0), ("a", 1), ("b", 0)):
        assert order.index(("append", f"{name}@0/{run_id}.0.0")) < order.index(("result", f"{name}@0"))
    headers = [header for entry in controller.reported() for header in entry[2]]
    assert {header.trajectory_id for header in headers} == {"a@0/0.0.0", "a@0/1.0.0", "b@0/0.0.0"}
    assert {header.recorder for header in headers} == {"recorder-0"}


def test_no_more_episodes_at_once_than_allowed(controller, start):
    worker, _, run = start(Gated, concurrency=2)
    controller.give(*[task(name=name) for name in "abcde"])
    worker.wait_running("a", "b")
    worker.open("b")
    worker.wait_running("a", "c")
    worker.open(*"acde")
    controller.wait_for(reports=5)
    controller.end()
    run.result(PATIENCE)
    assert worker.most == 2
    assert controller.limits[0] == 2
    assert max(controller.limits) == 2


def test_samples_of_one_prompt_may_be_leased_apart(controller, start):
    worker, _, _ = start(Gated)
    whole = task(name="a", samples=2)
    controller.give(*[msgspec.structs.replace(whole, run_ids=(run_id,)) for run_id in whole.run_ids])
    controller.wait_for(leases=2)  # both episodes have begun
    worker.open("a")
    headers = [header for entry in controller.wait_for(reports=2) for header in entry[2]]
    assert {header.run_id for header in headers} == {0, 1}


class Breaks(BaseRolloutWorker):
    """Raises what it was given, at each first attempt."""

    error = InferenceError("the engine is away")

    def rollout(self, task):
        if task.attempt == 0:
            raise self.error
        return SimpleRolloutWorker(self.context).rollout(task)


def test_a_failed_episode_is_reported_with_all_its_samples(controller, start):
    start(Breaks)
    controller.give(task(name="a", samples=3, is_val=True))
    controller.wait_for(reports=1)
    (failure,) = controller.failures()
    assert (failure.group_id, failure.run_ids, failure.attempt, failure.is_val) == ("a@0", (0, 1, 2), 0, True)
    assert failure.reason == "InferenceError: the engine is away"
    assert not failure.fatal
    controller.give(task(name="a", samples=3, attempt=1))
    controller.wait_for(reports=4)
    assert controller.log[1] == ("append", "a@0/0.1.0")


@pytest.mark.parametrize(
    ("error", "fatal"),
    [
        (RewardError("is nan"), True),
        (RefusedRequestError("prompt too long"), True),
        (CommError("gone"), False),
        (KeyError("x"), False),
        (OSError("x"), False),
        (SystemExit(3), False),
    ],
)
def test_an_error_that_comes_again_is_fatal(controller, start, error, fatal):
    start(type("Raising", (Breaks,), {"error": error}))
    controller.give(task())
    controller.wait_for(reports=1)
    (failure,) = controller.failures()
    assert failure.reason == f"{type(error).__name__}: {error}"
    assert failure.fatal is fatal


class Forgets(BaseRolloutWorker):
    """Leaves samples 1 and 2 out."""

    def rollout(self, task):
        return SimpleRolloutWorker(self.context).rollout(task) | {1: [], 2: ()}


def test_a_worker_that_leaves_samples_out(controller, start):
    start(Forgets)
    controller.give(task(samples=4))
    controller.wait_for(reports=1)
    (failure,) = controller.failures()
    assert failure.reason == "DataError: task a: the rollout worker returned no trajectory for run ids [1, 2]"
    assert failure.fatal
    assert [entry for entry in controller.log if entry[0] == "append"] == []


def test_an_episode_that_hangs_is_given_up_and_makes_room(controller, start):
    worker, _, run = start(Gated, concurrency=1, episode_timeout=0.2)
    worker.open("b")
    controller.give(task(name="a"), task(name="b"))
    controller.wait_for(reports=2)
    (failure,) = controller.failures()
    assert (failure.group_id, failure.fatal) == ("a@0", False)
    assert failure.reason == "TimeoutError: no end after rollout_worker.episode_timeout = 0.2 s"
    worker.open("a")
    worker.wait_running()
    controller.give(task(name="b", attempt=1))
    controller.wait_for(reports=3)
    controller.end()
    run.result(PATIENCE)
    assert [entry[1] for entry in controller.log if entry[0] == "append"] == ["b@0/0.0.0", "b@0/0.1.0"]


def test_stop_while_it_waits_for_a_place(controller, start):
    worker, runner, run = start(Gated, concurrency=1)
    controller.give(task(name="a"))
    worker.wait_running("a")
    runner.stop()
    run.result(PATIENCE)
    worker.open("a")
    assert controller.limits == [1]


def test_a_report_that_does_not_arrive_ends_the_loop(controller, start):
    controller.report_error = CommError("the controller is gone")
    _, _, run = start()
    controller.give(task())
    with pytest.raises(CommError, match="the controller is gone"):
        run.result(PATIENCE)
    assert controller.log == [("append", "a@0/0.0.0")]
