"""`python -m nexrl.roles ROLE --run-dir DIR`."""

import os
import signal
import sys
from types import FrameType


def _end_quietly(number: int, frame: FrameType | None) -> None:
    """Exit code 130 or 143: nothing has begun that would have to be ended cleanly."""
    os._exit(128 + number)


def _run() -> int:
    """Signals end the role from its first moment on; once it is built, `main` has handlers of its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end_quietly)
    from nexrl.roles.main import main  # takes seconds

    return main()


sys.exit(_run())
