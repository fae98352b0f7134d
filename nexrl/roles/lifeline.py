"""A pipe from the launcher: when the launcher is gone, however it went, the role ends itself."""

import os
import threading
import time
from collections.abc import Callable

from nexrl.errors import ConfigError

LIFELINE_VARIABLE = "NEXRL_LIFELINE_FD"

STOP_TIMEOUT_VARIABLE = "NEXRL_STOP_TIMEOUT"
"""`launch.stop_timeout`: seconds for a clean end."""
_DEFAULT_STOP_TIMEOUT = 30.0

MARGIN = 5.0
"""Seconds on top of it, so that what ends in time is never cut off."""


def watch_lifeline(on_lost: Callable[[], None], *, leads: bool) -> None:
    """Call `on_lost` when the pipe's other end has closed; a stop timeout later the process ends hard: there is nobody
    left to kill it.

    Roles that do not lead leave a stop timeout to the controller first: it saves with their help, and then tells them
    to end. Raises ConfigError where NEXRL_STOP_TIMEOUT is no number of seconds.
    """
    patience = _stop_timeout() + MARGIN
    text = os.environ.get(LIFELINE_VARIABLE)
    if text is None:
        return

    def watch() -> None:
        os.read(int(text), 1)  # nothing is ever written: this returns at end of file
        if not leads:
            time.sleep(patience)
        on_lost()
        time.sleep(patience)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()


def _stop_timeout() -> float:
    text = os.environ.get(STOP_TIMEOUT_VARIABLE, "")
    try:
        return float(text) if text else _DEFAULT_STOP_TIMEOUT
    except ValueError as error:
        raise ConfigError(f"found {text!r}, needs seconds", key=STOP_TIMEOUT_VARIABLE) from error
