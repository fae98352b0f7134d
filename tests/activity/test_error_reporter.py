import threading

import pytest

from nexrl import errors
from nexrl.activity import ErrorInfo, ErrorReporter, severity_of
from nexrl.types import ErrorReport


@pytest.mark.parametrize(
    ("error", "severity"),
    [
        (errors.InferenceError("x"), "error"),
        (errors.CommError("x"), "error"),
        (RuntimeError("user code"), "error"),
        (errors.TrainingError("x"), "critical"),
        (errors.WeightSyncError("x"), "critical"),
        (errors.StoreError("x"), "critical"),
        (errors.ConfigError("x", key="a.b"), "critical"),
    ],
)
def test_the_type_says_how_bad_an_error_is(error, severity):
    assert severity_of(error) == severity
    assert ErrorReporter().report("m", "w", error).severity == severity


def test_the_oldest_errors_are_forgotten():
    reporter = ErrorReporter(max_errors=3)
    for index in range(5):
        reporter.remark("m", "w", f"n{index}")
    assert [info.message for info in reporter.all()] == ["n2", "n3", "n4"]
    assert len({info.id for info in reporter.all()}) == 3


def test_health_counts_the_last_five_minutes():
    clock = [0.0]
    reporter = ErrorReporter(now=lambda: clock[0])
    assert reporter.health().status == "healthy"
    reporter.report("engine", "request", errors.InferenceError("refused"))
    clock[0] = 200.0
    reporter.remark("pool", "expiry", "group g1 dropped")
    reporter.remark("pool", "expiry", "a remark", severity="info")
    health = reporter.health()
    assert (health.status, health.recent_error_count, health.error_level_count, health.warning_level_count) == (
        "error",
        3,
        1,
        1,
    )
    assert health.message == "engine, request: refused"
    clock[0] = 301.0
    assert (reporter.health().status, reporter.health().message) == ("warning", "pool, expiry: group g1 dropped")
    clock[0] = 501.0
    assert (reporter.health().status, reporter.health().recent_error_count) == ("healthy", 0)


def test_a_listener_hears_every_report():
    heard = []
    reporter = ErrorReporter(on_report=heard.append)
    reporter.report("m", "w", ValueError("no"))
    reporter.remark("m", "w", "careful")
    assert [(info.severity, info.message) for info in heard] == [("error", "no"), ("warning", "careful")]


def test_a_report_crosses_processes_and_keeps_its_exit_code():
    there = ErrorReporter().report("trainer-1", "update 4", errors.TrainingError("loss is NaN"))
    here = ErrorInfo.from_report(there.to_report())
    assert here.to_report() == there.to_report()
    error = here.to_exception()
    assert type(error) is errors.TrainingError
    assert error.exit_code == 7
    assert str(error) == "trainer-1, update 4: loss is NaN"


def test_a_foreign_exception_comes_back_as_the_root_of_the_tree():
    error = ErrorReporter().report("rollout-0", "episode", ZeroDivisionError("division by zero")).to_exception()
    assert type(error) is errors.NexRLError
    assert str(error) == "rollout-0, episode: ZeroDivisionError: division by zero"


def test_an_unknown_severity_from_a_peer_is_refused():
    report = ErrorReport(module="m", work="w", severity="awful", error="", message="", traceback="")
    with pytest.raises(errors.CommError, match="awful"):
        ErrorInfo.from_report(report)


def test_reports_of_many_threads_all_arrive():
    reporter = ErrorReporter(max_errors=10_000)

    def work():
        for _ in range(100):
            reporter.remark("m", "w", "x")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reporter.all()) == 800
