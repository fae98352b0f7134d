"""How a rollout process ends while it waits for tasks."""

import threading
from concurrent.futures import Future

import pytest
from rollout_parts import ScriptedEngine, context, task

from nexrl.activity import ActivityTracker, ErrorReporter
from nexrl.errors import CommError, StoreError
from nexrl.rollout import RolloutRunner, SimpleRolloutWorker

LONG = 30.0
"""Seconds that no test should need."""


class Pool:
    """Leases out `tasks` at first, then keeps the worker waiting."""

    def __init__(self, *tasks):
        self._tasks = list(tasks)
        self.waiting: Future = Future()
        self.asked = threading.Event()

    def lease(self, limit):
        if self._tasks:
            leased: Future = Future()
            leased.set_result(self._tasks[:limit])
            del self._tasks[:limit]
            return leased
        self.asked.set()
        return self.waiting


class Sink:
    def __init__(self, error=None):
        self._error = error

    def append(self, trajectories):
        if self._error is not None:
            raise self._error
        return [trajectory.header for trajectory in trajectories]


class Running:
    """A runner on a thread of its own; `raised` is what its `run` ended with."""

    def __init__(self, tokenizer, pool, *, error=None, report=lambda report: None):
        worker = SimpleRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, ["ba"] * 8)))
        tracker = ActivityTracker(ErrorReporter())
        self.runner = RolloutRunner(worker, sink=Sink(error), lease=pool.lease, report=report, tracker=tracker)
        self.raised: Exception | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.runner.run()
        except Exception as error:  # noqa: BLE001 - handed to the test
            self.raised = error

    def ends(self):
        self._thread.join(LONG)
        return not self._thread.is_alive()


@pytest.mark.parametrize("error", [StoreError("the disk is full"), KeyError("a bug")])
def test_what_a_recorder_refuses_ends_a_worker_that_waits_for_tasks(error, tokenizer):
    running = Running(tokenizer, Pool(task()), error=error)
    assert running.ends()
    assert running.raised is error


def test_stop_ends_a_worker_that_waits_for_tasks(tokenizer):
    pool = Pool()
    running = Running(tokenizer, pool)
    assert pool.asked.wait(LONG)
    running.runner.stop()
    assert running.ends()
    assert running.raised is None


def test_a_lease_that_fails_is_raised(tokenizer):
    pool = Pool()
    running = Running(tokenizer, pool)
    assert pool.asked.wait(LONG)
    pool.waiting.set_exception(CommError("the controller is gone"))
    assert running.ends()
    assert isinstance(running.raised, CommError)


def test_an_empty_lease_ends_the_worker_after_what_has_ended_was_reported(tokenizer):
    reports, reported = [], threading.Event()
    pool = Pool(task(name="a"), task(name="b"))

    def report(one):
        reports.extend(result.group_id for result in one.results)
        if len(reports) == 2:
            reported.set()

    running = Running(tokenizer, pool, report=report)
    assert reported.wait(LONG)
    pool.waiting.set_result([])
    assert running.ends()
    assert sorted(reports) == ["a@0", "b@0"]
