import pytest

from nexrl import errors
from nexrl.activity import ErrorReporter, HealthPolicy
from nexrl.config.schema import ExceptionHandlingConfig


@pytest.mark.parametrize(
    ("policy", "error", "exit_code"),
    [
        ("stop_on_error", errors.InferenceError("engine refused"), 8),
        ("stop_on_error", RuntimeError("user code"), 1),
        ("stop_on_critical", errors.InferenceError("critical in the text means nothing"), None),
        ("stop_on_critical", errors.TrainingError("NaN"), 7),
        ("continue", errors.TrainingError("NaN"), None),
    ],
)
def test_policy_judges_by_type(policy, error, exit_code):
    reporter = ErrorReporter()
    reporter.remark("m", "w", "only a warning")
    reporter.report("m", "w", error)
    reason = HealthPolicy(ExceptionHandlingConfig(policy=policy)).reason_to_stop(reporter.all())
    assert (reason and reason.exit_code) == exit_code


def test_the_first_fatal_error_is_the_reason():
    reporter = ErrorReporter()
    reporter.report("rollout-0", "episode", errors.InferenceError("worked around"))
    reporter.report("trainer-0", "update 3", errors.TrainingError("the cause"))
    reporter.report("controller", "publish", errors.WeightSyncError("the consequence"))
    policy = HealthPolicy(ExceptionHandlingConfig(policy="stop_on_critical"))
    assert str(policy.reason_to_stop(reporter.all())) == "trainer-0, update 3: the cause"


def test_warnings_never_stop_a_run():
    reporter = ErrorReporter()
    reporter.remark("pool", "expiry", "group dropped")
    assert HealthPolicy(ExceptionHandlingConfig(policy="stop_on_error")).reason_to_stop(reporter.all()) is None
