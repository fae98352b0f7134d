"""What is going on in a run, what went wrong, and whether anything still moves."""

from nexrl.activity.heartbeat import Heartbeat
from nexrl.activity.policy import HealthPolicy
from nexrl.activity.reporter import ErrorInfo, ErrorReporter, Health, Severity, severity_of
from nexrl.activity.tracker import Activity, ActivityTracker
from nexrl.activity.watchdog import StallWatchdog

__all__ = [
    "Activity",
    "ActivityTracker",
    "ErrorInfo",
    "ErrorReporter",
    "Health",
    "HealthPolicy",
    "Heartbeat",
    "Severity",
    "StallWatchdog",
    "severity_of",
]
