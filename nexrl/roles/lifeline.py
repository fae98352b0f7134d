"""A pipe from the launcher: when the launcher is gone, however it went, the role ends itself."""

import os
import threading
import time
from collections.abc import Callable

LIFELINE_VARIABLE = "NEXRL_LIFELINE_FD"

GRACE = 30.0
"""Seconds for a clean end once the launcher is gone; there is nobody left to kill a role that does not end."""


CONTROLLER_FIRST = 20.0
"""Seconds that the other roles leave to the controller: it saves with their help, and then tells them to end."""


def watch_lifeline(on_lost: Callable[[], None], *, delay: float = 0.0) -> None:
    """Call `on_lost` `delay` seconds after the pipe's other end closed; GRACE seconds later the process ends hard."""
    text = os.environ.get(LIFELINE_VARIABLE)
    if text is None:
        return

    def watch() -> None:
        os.read(int(text), 1)  # nothing is ever written: this returns at end of file
        time.sleep(delay)
        on_lost()
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="lifeline").start()
