"""When an error ends the run."""

from collections.abc import Iterable

from nexrl.activity.reporter import ErrorInfo, Severity
from nexrl.config.schema import ExceptionHandlingConfig
from nexrl.errors import NexRLError

_STOPS_AT: dict[str, tuple[Severity, ...]] = {
    "stop_on_error": ("error", "critical"),
    "stop_on_critical": ("critical",),
    "continue": (),
}


class HealthPolicy:
    """`runtime_monitor.exception_handling.policy`: judges by severity, which comes from the exception's type and never
    from its text."""

    def __init__(self, config: ExceptionHandlingConfig) -> None:
        self._stops_at = _STOPS_AT[config.policy]

    def reason_to_stop(self, infos: Iterable[ErrorInfo]) -> NexRLError | None:
        """The first error that ends the run, as an exception with its exit code; None = go on."""
        fatal = next((info for info in infos if info.severity in self._stops_at), None)
        return None if fatal is None else fatal.to_exception()
