"""Threads of the controller: none ends unseen."""

import logging
import threading
from collections.abc import Callable

from nexrl.errors import NexRLError, RoleError

logger = logging.getLogger(__name__)


def start_thread(name: str, target: Callable[[], None], *, on_error: Callable[[NexRLError], None]) -> threading.Thread:
    """Run `target` on a daemon thread; what it raises goes to `on_error`, wrapped where it is none of ours."""

    def run() -> None:
        try:
            target()
        except NexRLError as error:
            on_error(error)
        except (Exception, SystemExit) as error:  # a thread's SystemExit would pass unseen
            logger.exception("thread %s", name)
            on_error(RoleError(f"thread {name}: {type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, daemon=True, name=name)
    thread.start()
    return thread
