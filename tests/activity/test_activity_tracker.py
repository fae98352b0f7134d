import threading
from contextlib import ExitStack

import pytest

from nexrl.activity import ActivityTracker, ErrorReporter
from nexrl.errors import RewardError


def test_nested_and_overlapping_work_is_counted_by_module():
    tracker = ActivityTracker(ErrorReporter())
    with tracker.track("pool", "waiting"), tracker.track("trainer", "step 1"):
        with tracker.track("pool", "putting"):
            assert [one.module for one in tracker.active()] == ["pool", "trainer", "pool"]
        assert [one.module for one in tracker.active()] == ["pool", "trainer"]
        assert not tracker.is_quiescent()
    assert tracker.is_quiescent()
    assert tracker.active() == ()


def test_an_exception_is_reported_and_goes_on_unchanged():
    reporter = ErrorReporter()
    tracker = ActivityTracker(reporter)
    raised = RewardError("math: NaN")
    with pytest.raises(RewardError) as caught, tracker.track("rollout-1", "episode g3"):
        raise raised
    assert caught.value is raised
    (info,) = reporter.all()
    assert (info.module, info.work, info.severity, info.exception_type) == (
        "rollout-1",
        "episode g3",
        "critical",
        "RewardError",
    )
    assert "raise raised" in info.traceback
    assert tracker.is_quiescent()


def test_reports_can_be_left_to_the_caller():
    reporter = ErrorReporter()
    tracker = ActivityTracker(reporter)
    with pytest.raises(ValueError, match="no"), tracker.track("m", "w", auto_report_errors=False):
        raise ValueError("no")
    assert reporter.all() == ()


def test_wait_quiescent_ends_with_the_work_or_at_the_timeout():
    tracker = ActivityTracker(ErrorReporter())
    started, release = threading.Event(), threading.Event()

    def work():
        with tracker.track("m", "w"):
            started.set()
            release.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert started.wait(30)
    assert not tracker.wait_quiescent(0.01)
    release.set()
    assert tracker.wait_quiescent(30)
    thread.join()


def test_counts_hold_under_many_threads():
    tracker = ActivityTracker(ErrorReporter())

    def work(name):
        for _ in range(200):
            with tracker.track(name, "w"):
                tracker.active()

    threads = [threading.Thread(target=work, args=(f"m{i % 3}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.is_quiescent()
    assert tracker.active() == ()


def test_description_names_work_and_its_age():
    clock = [100.0]
    tracker = ActivityTracker(ErrorReporter(), now=lambda: clock[0])
    assert tracker.describe() == "no work in flight"
    with tracker.track("trainer", "update 7"):
        clock[0] = 161.0
        assert tracker.describe() == "trainer: update 7 (61 s)"


def test_a_description_of_much_work_names_the_oldest():
    tracker = ActivityTracker(ErrorReporter(), now=lambda: 0.0)
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(tracker.track("rollout-0", f"episode {number}"))
        assert tracker.describe() == (
            "rollout-0: episode 0 (0 s); rollout-0: episode 1 (0 s); rollout-0: episode 2 (0 s); … and 2 more"
        )


def test_training_step_is_kept():
    tracker = ActivityTracker(ErrorReporter())
    assert tracker.training_step == 0
    tracker.set_training_step(12)
    assert tracker.training_step == 12
