"""Processes of one run on this machine: each in a session of its own, with a log, none of them left behind."""

import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from launch.guard import signal_groups
from launch.plan import PlannedProcess
from nexrl.errors import RoleError

LIFELINE = "NEXRL_LIFELINE_FD"
"""Names the read end of a pipe whose write end only the launcher holds: at its end of file the launcher is gone."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended."""

    process: PlannedProcess
    returncode: int
    """Exit code, or minus the number of the signal that ended it."""
    log: Path


@dataclass(frozen=True)
class _Running:
    process: PlannedProcess
    handle: subprocess.Popen[bytes]
    pidfd: int
    log: Path


class ProcessGroup:
    """Starts processes, tells which have ended, and signals them with all their descendants in their process group.

    Leaving the `with` block kills what still runs. A guard process does the same, with SIGTERM and `guard_seconds` of
    patience first, when this process itself is killed. Linux only (pidfd).
    """

    def __init__(self, *, log_dir: Path, guard_seconds: float) -> None:
        self._log_dir = log_dir
        self._guard_seconds = guard_seconds
        self._running: dict[str, _Running] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        self._lifeline, self._lifeline_write = os.pipe()
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", str(Path(__file__).with_name("guard.py")), str(self._guard_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.signal_all(signal.SIGKILL)
        while self._running:
            self.wait(None)
        os.close(self._lifeline)
        os.close(self._lifeline_write)
        if self._guard.stdin:
            self._guard.stdin.close()
        self._guard.wait()
        self._selector.close()

    @property
    def names(self) -> list[str]:
        """Processes that run."""
        return list(self._running)

    def wake_on(self, fileno: int) -> None:
        """Let `wait` return when `fileno` becomes readable, too."""
        self._selector.register(fileno, selectors.EVENT_READ, "")

    def start(self, process: PlannedProcess) -> int:
        """Start one, appending its output to `<log dir>/<name>.log`; returns its pid. Raises RoleError."""
        log = self._log_dir / f"{process.name}.log"
        try:
            with log.open("ab") as output:
                handle = subprocess.Popen(
                    process.command,
                    env={**os.environ, **process.environment, LIFELINE: str(self._lifeline)},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    umask=0o077,
                    pass_fds=(self._lifeline,),
                )
        except OSError as error:
            raise RoleError(f"cannot start {process.name}: {error}") from error
        running = _Running(process, handle, os.pidfd_open(handle.pid), log)
        self._running[process.name] = running
        self._selector.register(running.pidfd, selectors.EVENT_READ, process.name)
        self._tell_guard("+", handle.pid)
        return handle.pid

    def wait(self, seconds: float | None) -> list[Ended]:
        """Wait until a process ends, a file of `wake_on` is readable, or `seconds` are over; who has ended since."""
        ready = [key.data for key, _ in self._selector.select(seconds)]
        return [self._reap(self._running[name]) for name in ready if name]

    def send(self, name: str, number: signal.Signals) -> None:
        """Signal one process alone; does nothing when it has ended."""
        if name in self._running:
            signal.pidfd_send_signal(self._running[name].pidfd, number)

    def signal_all(self, number: signal.Signals) -> None:
        """Signal every process group that runs."""
        signal_groups({running.handle.pid: running.pidfd for running in self._running.values()}, number)

    def _reap(self, running: _Running) -> Ended:
        # WNOWAIT keeps the pid taken until its group is swept, so that the signal cannot meet a stranger.
        os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED | os.WNOWAIT)
        signal_groups({running.handle.pid: running.pidfd}, signal.SIGKILL)
        self._tell_guard("-", running.handle.pid)
        self._selector.unregister(running.pidfd)
        os.close(running.pidfd)
        del self._running[running.process.name]
        return Ended(running.process, running.handle.wait(), running.log)

    def _tell_guard(self, sign: str, pid: int) -> None:
        if self._guard.stdin:
            with suppress(BrokenPipeError):  # somebody killed the guard: the roles still watch their lifeline
                self._guard.stdin.write(f"{sign}{pid}\n".encode())
