"""Signs of life."""

from collections.abc import Callable
from threading import Event, Thread, current_thread


class Heartbeat:
    """Calls `send` every `interval` seconds on a thread of its own, the first time at once.

    What `send` raises ends the heartbeats and goes to `on_failure`, on the same thread: whoever listens is gone, and
    the role has to act on that.
    """

    def __init__(
        self, interval: float, *, send: Callable[[], None], on_failure: Callable[[BaseException], None]
    ) -> None:
        self._interval = interval
        self._send = send
        self._on_failure = on_failure
        self._closed = Event()
        self._thread = Thread(target=self._beat, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Send no more; returns once a `send` that is under way has ended. `on_failure` may call this."""
        self._closed.set()
        if self._thread.is_alive() and self._thread is not current_thread():
            self._thread.join()

    def _beat(self) -> None:
        try:
            self._send()
            while not self._closed.wait(self._interval):
                self._send()
        except Exception as error:  # noqa: BLE001 - the top of a thread: nobody else can see it
            if not self._closed.is_set():
                self._on_failure(error)
