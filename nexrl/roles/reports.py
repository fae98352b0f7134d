"""What rollout workers ask of the controller and tell it."""

from collections.abc import Callable
from concurrent.futures import Future

from nexrl.activity import ErrorReporter, HealthPolicy, Severity, StallWatchdog
from nexrl.comm import Caller
from nexrl.controller import Recorders
from nexrl.errors import NexRLError, error_named
from nexrl.pool import TrajectoryPool
from nexrl.types import LeaseRequest, RolloutReport, SampleFailure, Task
from nexrl.validator import Validator


class ReportDesk:
    """Hands tasks out, and gives results and failures to the pool, or to the validator where they are its own."""

    def __init__(
        self,
        pool: TrajectoryPool,
        validator: Validator | None,
        recorders: Recorders,
        reporter: ErrorReporter,
        policy: HealthPolicy,
        watchdog: StallWatchdog,
        *,
        on_fatal: Callable[[NexRLError], None],
    ) -> None:
        self._pool = pool
        self._validator = validator
        self._recorders = recorders
        self._reporter = reporter
        self._policy = policy
        self._watchdog = watchdog
        self._on_fatal = on_fatal

    def lease(self, caller: Caller, request: LeaseRequest) -> "Future[list[Task]]":
        """A long poll: answered when there is work."""
        return self._pool.lease(caller.name, request.limit)

    def report(self, caller: Caller, report: RolloutReport) -> None:
        """Everything that ended at one worker since its last report."""
        for result in report.results:
            if result.is_val and self._validator is not None:
                self._pool.settle(result.group_id, [result.run_id])
                self._validator.put(result)
                continue
            if not self._pool.put(
                result.group_id, attempt=result.attempt, run_id=result.run_id, headers=result.headers
            ):
                self._recorders.release([header.trajectory_id for header in result.headers])
        for failure in report.failures:
            self._fail(caller, failure)
        self._watchdog.progressed(f"rollouts of {caller.name}")

    def _fail(self, caller: Caller, failure: SampleFailure) -> None:
        severity: Severity = "critical" if failure.fatal else "error"
        info = self._reporter.remark(caller.name, failure.group_id, failure.reason, severity=severity)
        if self._policy.reason_to_stop([info]) is not None:
            where = f" (rollout of {failure.group_id} on {caller.name})"
            self._on_fatal(error_named(failure.reason, where=where))
        elif failure.is_val and self._validator is not None:
            self._pool.settle(failure.group_id, failure.run_ids)
            self._validator.fail(failure)
        else:
            self._pool.fail(failure.group_id, run_ids=failure.run_ids, attempt=failure.attempt, reason=failure.reason)
