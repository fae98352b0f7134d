"""Who plays which role, where, and whether it still lives. The controller holds it; the others register and beat."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import msgspec

from nexrl.errors import RoleError

_CHECK_SECONDS = 0.2
"""How often a waiting controller asks whether anybody has died."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """One live process. Any role → controller; controller → whoever asks for a role."""

    role: str
    rank: int
    group: str
    host: str
    pid: int
    endpoints: dict[str, str]
    """Purpose → address (`bulk`, `http`, …): what others may connect to."""
    log: str
    """Path of its log file."""

    @property
    def name(self) -> str:
        """`<role>-<rank>`."""
        return f"{self.role}-{self.rank}"


class Directory:
    """Registrations and heartbeats; every method may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._entries: dict[str, Registration] = {}
        self._beats: dict[str, float] = {}
        self._discoveries: list[tuple[str, int, Future[list[Registration]]]] = []

    def register(self, registration: Registration) -> None:
        """Enter a process, or enter it anew after a restart; counts as a heartbeat."""
        with self._changed:
            self._entries[registration.name] = registration
            self._beats[registration.name] = time.monotonic()
            self._changed.notify_all()
            ready = [entry for entry in self._discoveries if not self._missing(entry[0], entry[1])]
            self._discoveries = [entry for entry in self._discoveries if entry not in ready]
        for role, count, future in ready:
            if future.set_running_or_notify_cancel():
                future.set_result(self.of(role)[:count])

    def remove(self, name: str) -> None:
        """Strike a process that has ended; RoleError where it is not entered."""
        with self._changed:
            self._require(name)
            del self._entries[name], self._beats[name]

    def of(self, role: str) -> list[Registration]:
        """Those entered now, sorted by rank."""
        with self._changed:
            return self._of(role)

    def wait_for(
        self, role: str, count: int, timeout: float, alive: Callable[[], None] = lambda: None
    ) -> list[Registration]:
        """Ranks 0 to `count - 1` of `role`, sorted; waits for those that have not registered.

        `alive` is called several times a second and raises when a process has died, which ends the wait. Raises
        RoleError naming every missing rank after `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            alive()
            with self._changed:
                missing = self._missing(role, count)
                if not missing:
                    return self._of(role)[:count]
                left = deadline - time.monotonic()
                if left > 0:
                    self._changed.wait(min(left, _CHECK_SECONDS))
                    continue
            names = ", ".join(f"{role}-{rank}" for rank in missing)
            raise RoleError(f"{names}: not registered within {timeout:g} s; {count - len(missing)} of {count} are")

    def discover(self, role: str, count: int) -> "Future[list[Registration]]":
        """A future of what `wait_for` returns: the deferred reply to somebody who asks for a role."""
        future: Future[list[Registration]] = Future()
        with self._changed:
            if self._missing(role, count):
                self._discoveries.append((role, count, future))
                return future
            future.set_result(self._of(role)[:count])
        return future

    def beat(self, name: str) -> None:
        """The process `name` lives; RoleError where it has not registered."""
        with self._changed:
            self._require(name)
            self._beats[name] = time.monotonic()

    def overdue(self, timeout: float) -> list[Registration]:
        """Processes without a heartbeat for more than `timeout` seconds, longest first."""
        now = time.monotonic()
        with self._changed:
            late = sorted((beat, name) for name, beat in self._beats.items() if now - beat > timeout)
            return [self._entries[name] for _, name in late]

    def _of(self, role: str) -> list[Registration]:
        return sorted((entry for entry in self._entries.values() if entry.role == role), key=lambda entry: entry.rank)

    def _missing(self, role: str, count: int) -> list[int]:
        return sorted(set(range(count)) - {entry.rank for entry in self._of(role)})

    def _require(self, name: str) -> None:
        if name not in self._entries:
            raise RoleError(f"{name}: not registered; found {', '.join(sorted(self._entries)) or 'nobody'}")
