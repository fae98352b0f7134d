"""Runs the processes of a plan to their end: who may fail, who is waited for, how long, and the exit code."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from launch.excerpt import log_excerpt
from launch.interrupts import Interrupts
from launch.plan import LaunchPlan
from launch.processes import Ended, ProcessGroup
from launch.run_folder import is_disk_full
from nexrl.errors import NexRLError, RoleError, RunFolderError

_TICK = 0.5
"""Seconds between two looks of the display at the run's files."""
_LOG_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Patience:
    """Seconds that a run's processes are given to end by themselves."""

    failure: float = 5.0
    """The leader, after another role has failed: it notices, too, and says why."""
    grace: float = 10.0
    """The others, after the leader's end."""


class _Stage(Enum):
    RUNNING = auto()
    """Waits for the leader; unblocked by any end or signal."""
    FAILED = auto()
    """A role has failed: waits for the leader's own end."""
    SAVING = auto()
    """A role has failed, and the leader was asked to save: waits for its checkpoint and end."""
    INTERRUPTED = auto()
    """The leader was told to stop: waits for its checkpoint and end."""
    DRAINING = auto()
    """The leader has ended: waits for the others' own end."""
    TERMINATING = auto()
    """All got SIGTERM."""
    KILLING = auto()
    """All got SIGKILL."""


class Supervisor:
    """Starts a plan's processes and returns when none is left.

    - The leader (controller) ends: the others have `patience.grace` seconds, then SIGTERM, then SIGKILL; after a failed
      leader they get SIGTERM at once.
    - Another role fails: it is named, with its log; the leader has `patience.failure` seconds to end by itself, then
      SIGTERM and `stop_timeout` to save with the help of the others; then those get SIGTERM, then SIGKILL.
    - SIGINT or SIGTERM to this process goes to the leader, which has `stop_timeout`; a second one kills at once.
    """

    def __init__(
        self, plan: LaunchPlan, *, log_dir: Path, say: Callable[[str], None], patience: Patience | None = None
    ) -> None:
        self._plan = plan
        self._log_dir = log_dir
        self._say = say
        self._patience = patience or Patience()
        self._stage = _Stage.RUNNING
        self._deadline = float("inf")
        self._leader: Ended | None = None
        self._failure: Ended | None = None
        self._interrupt: signal.Signals | None = None
        self._leader_was_ended = False

    def run(self, tick: Callable[[], None]) -> int:
        """Run to the end, calling `tick` a few times a second; the exit code of the run.

        RoleError's where a role was killed, whatever the leader made of it; else the leader's where that ended by
        itself, else that of the role that failed; 130 or 143 after a signal that the leader did not answer.
        """
        group = ProcessGroup(log_dir=self._log_dir, guard_seconds=self._plan.stop_timeout)
        with Interrupts() as interrupts, group:
            group.wake_on(interrupts.fileno())
            for process in self._plan.processes:
                group.start(process)
            while group.names:
                at_once = group.wait(max(0.0, min(_TICK, self._deadline - time.monotonic())))
                for ended in sorted(at_once, key=lambda one: one.process == self._plan.leader):
                    self._on_end(ended, group)  # the leader last: it may have ended because of another
                for number in interrupts.take():
                    self._on_signal(number, group)
                if time.monotonic() >= self._deadline:
                    self._on_deadline(group)
                tick()
        return self._exit_code()

    def _on_end(self, ended: Ended, group: ProcessGroup) -> None:
        if ended.process == self._plan.leader:
            self._on_leader_end(ended, group)
        elif ended.returncode and self._stage is _Stage.RUNNING:
            self._failure = ended
            self._say_error(ended)
            self._enter(_Stage.FAILED, self._patience.failure)
        elif ended.returncode and self._stage not in (_Stage.TERMINATING, _Stage.KILLING):
            self._say(f"also {named(ended)}")

    def _on_leader_end(self, ended: Ended, group: ProcessGroup) -> None:
        self._leader = ended
        if self._stage in (_Stage.TERMINATING, _Stage.KILLING):
            return
        if self._stage is _Stage.SAVING:
            self._leader_was_ended = True
            self._terminate(group, self._patience.grace)
            return
        number = self._interrupt  # ended by it, or killed by it before it could answer
        answered = number is not None and ended.returncode in (128 + number, -number)
        if ended.returncode and not answered:
            if self._failure:
                self._say(f"also {named(ended)}")
            else:
                self._say_error(ended)
        if ended.returncode < 0 or (ended.returncode and not answered):  # it may have told nobody
            self._terminate(group, self._patience.grace)
        else:
            self._enter(_Stage.DRAINING, self._patience.grace)

    def _on_signal(self, number: signal.Signals, group: ProcessGroup) -> None:
        if self._interrupt is not None:
            self._say(f"{number.name} again: killing {', '.join(group.names)}")
            self._kill(group)
            return
        self._interrupt = number
        if self._stage in (_Stage.RUNNING, _Stage.FAILED, _Stage.SAVING):
            leader, seconds = self._plan.leader.name, self._plan.stop_timeout
            self._say(f"{number.name}: {leader} has {seconds:g} s to save and end; once more kills at once")
            group.send(leader, number)
            self._enter(_Stage.INTERRUPTED, seconds)

    def _on_deadline(self, group: ProcessGroup) -> None:
        if self._stage is _Stage.TERMINATING:
            self._say(f"killing what did not end on SIGTERM: {', '.join(group.names)}")
            self._kill(group)
            return
        if self._stage is _Stage.FAILED:
            leader, seconds = self._plan.leader.name, self._plan.stop_timeout
            self._say(f"{leader} has {seconds:g} s to save and end")
            group.send(leader, signal.SIGTERM)
            self._enter(_Stage.SAVING, seconds)
            return
        if self._stage is _Stage.DRAINING:
            self._say(
                f"still there {self._patience.grace:g} s after {self._plan.leader.name}: {', '.join(group.names)}"
            )
        self._terminate(group, self._patience.grace)

    def _terminate(self, group: ProcessGroup, seconds: float) -> None:
        self._leader_was_ended |= self._leader is None
        group.signal_all(signal.SIGTERM)
        self._enter(_Stage.TERMINATING, seconds)

    def _kill(self, group: ProcessGroup) -> None:
        self._leader_was_ended |= self._leader is None
        group.signal_all(signal.SIGKILL)
        self._enter(_Stage.KILLING, float("inf"))

    def _say_error(self, ended: Ended) -> None:
        lines = log_excerpt(ended.log, _LOG_LINES)
        shown = "\n".join(f"  | {line}" for line in lines) if lines else "  (the log is empty)"
        self._say(f"error: {named(ended)}\n{shown}")
        if ended.returncode == RunFolderError.exit_code and is_disk_full(self._log_dir):
            self._say(f"no space left on the disk of {self._plan.run_dir}")

    def _enter(self, stage: _Stage, seconds: float) -> None:
        self._stage = stage
        self._deadline = time.monotonic() + seconds

    def _exit_code(self) -> int:
        if self._failure is not None and self._failure.returncode < 0:
            return RoleError.exit_code
        if self._leader is not None and self._leader.returncode >= 0 and not self._leader_was_ended:
            return self._leader.returncode
        if self._interrupt is not None:
            return 128 + self._interrupt
        blamed = self._failure or self._leader
        return blamed.returncode if blamed and blamed.returncode > 0 else RoleError.exit_code


def named(ended: Ended) -> str:
    """Who ended, how, and where its log is."""
    return f"{ended.process.name} {how(ended.returncode)}; log: {ended.log}"


def how(returncode: int) -> str:
    """`ended with exit code 7 (TrainingError)` or `was killed by SIGKILL`."""
    if returncode < 0:
        name = signal.Signals(-returncode).name if -returncode in list(signal.Signals) else f"signal {-returncode}"
        memory = " (by hand, or by the kernel for want of memory)" if -returncode == signal.SIGKILL else ""
        return f"was killed by {name}{memory}"
    names = [kind.__name__ for kind in NexRLError.__subclasses__() if kind.exit_code == returncode]
    return f"ended with exit code {returncode}" + (f" ({' or '.join(names)})" if names else "")
