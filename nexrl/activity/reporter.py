"""Errors as they are collected from all modules, and what their kind means for the run."""

import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from threading import Lock
from typing import Literal, Self

import msgspec

from nexrl import errors
from nexrl.types import ErrorReport

Severity = Literal["info", "warning", "error", "critical"]

SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error", "critical")
"""From harmless to fatal."""

_WORKED_AROUND = (errors.CommError, errors.InferenceError)
"""What another attempt, or another peer, can mend; all else of ours is critical."""


class ErrorInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One error, or a remark of lesser severity. Module → reporter → controller."""

    id: str
    timestamp: float
    """Unix time in seconds."""
    module: str
    work: str
    """What the module was doing, as it was given to `ActivityTracker.track`."""
    severity: Severity
    message: str
    exception_type: str
    """Class name; empty where no exception was involved."""
    traceback: str

    @classmethod
    def from_report(cls, report: ErrorReport) -> Self:
        """What another process reported, stamped with the time of its arrival."""
        if report.severity not in SEVERITIES:
            raise errors.CommError(
                f"error report of {report.module}: severity {report.severity!r} is none of {SEVERITIES}"
            )
        return cls(
            id=uuid.uuid4().hex,
            timestamp=time.time(),
            module=report.module,
            work=report.work,
            severity=report.severity,
            message=report.message,
            exception_type=report.error,
            traceback=report.traceback,
        )

    def to_report(self) -> ErrorReport:
        """The same for the command socket."""
        return ErrorReport(
            module=self.module,
            work=self.work,
            severity=self.severity,
            error=self.exception_type,
            message=self.message,
            traceback=self.traceback,
        )

    def to_exception(self) -> errors.NexRLError:
        """An exception of the reported class, so that the run ends with its exit code; the root of the tree where the
        class is not ours. The message names the module and its work."""
        named = getattr(errors, self.exception_type, None)
        found = named if isinstance(named, type) and issubclass(named, errors.NexRLError) else errors.NexRLError
        foreign = f"{self.exception_type}: " if found is errors.NexRLError and self.exception_type else ""
        return found(f"{self.module}, {self.work}: {foreign}{self.message}")


def severity_of(error: BaseException) -> Severity:
    """How bad an exception is, by its type: `error` where the run can work around it (a request that can be repeated,
    anything that user code raises inside an episode), `critical` for the rest of our tree."""
    if isinstance(error, errors.RefusedRequestError):
        return "critical"
    if isinstance(error, errors.NexRLError) and not isinstance(error, _WORKED_AROUND):
        return "critical"
    return "error"


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """How the last five minutes were."""

    status: Literal["healthy", "warning", "error"]
    message: str
    """The newest error, or the newest warning where there is no error."""
    recent_error_count: int
    """Everything reported, remarks included."""
    error_level_count: int
    """Errors and critical ones."""
    warning_level_count: int


class ErrorReporter:
    """Keeps the newest errors of all modules. Safe to use from several threads.

    `on_report` hears of each one as it comes, on the thread that reports it: a role passes it on to the controller,
    the controller writes it to the event log and asks its policy.
    """

    window = 300.0
    """Seconds that `health` looks back."""

    def __init__(
        self,
        *,
        max_errors: int = 1000,
        on_report: Callable[[ErrorInfo], None] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._errors: deque[ErrorInfo] = deque(maxlen=max_errors)
        self._on_report = on_report
        self._now = now
        self._lock = Lock()

    def report(self, module: str, work: str, error: BaseException, *, severity: Severity | None = None) -> ErrorInfo:
        """Take an exception, with its traceback; without a severity its type says how bad it is."""
        info = ErrorInfo(
            id=uuid.uuid4().hex,
            timestamp=self._now(),
            module=module,
            work=work,
            severity=severity or severity_of(error),
            message=str(error),
            exception_type=type(error).__name__,
            traceback="".join(traceback.format_exception(error)),
        )
        self.add(info)
        return info

    def remark(self, module: str, work: str, message: str, *, severity: Severity = "warning") -> ErrorInfo:
        """Take something that raised nothing."""
        info = ErrorInfo(
            id=uuid.uuid4().hex,
            timestamp=self._now(),
            module=module,
            work=work,
            severity=severity,
            message=message,
            exception_type="",
            traceback="",
        )
        self.add(info)
        return info

    def add(self, info: ErrorInfo) -> None:
        """Take a record that is complete, such as one from another process."""
        with self._lock:
            self._errors.append(info)
        if self._on_report is not None:
            self._on_report(info)

    def all(self) -> tuple[ErrorInfo, ...]:
        """Everything that is kept, oldest first."""
        with self._lock:
            return tuple(self._errors)

    def health(self) -> Health:
        """Counts over the last `window` seconds."""
        since = self._now() - self.window
        recent = [info for info in self.all() if info.timestamp >= since]
        bad = [info for info in recent if info.severity in ("error", "critical")]
        warnings = [info for info in recent if info.severity == "warning"]
        return Health(
            status="error" if bad else "warning" if warnings else "healthy",
            message=_newest(bad) or _newest(warnings),
            recent_error_count=len(recent),
            error_level_count=len(bad),
            warning_level_count=len(warnings),
        )


def _newest(infos: Iterable[ErrorInfo]) -> str:
    *_, last = [None, *infos]
    return f"{last.module}, {last.work}: {last.message}" if last else ""
