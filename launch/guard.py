"""Ends a run's processes when their launcher is gone: `python guard.py SECONDS`, a process of its own.

Standard input is a pipe from the launcher: `+PID` for a process group that is born, `-PID` for one that is gone. At the
end of the pipe, also by the launcher's SIGKILL, the first-born (the controller) gets SIGTERM and has SECONDS to save,
for which it needs the others; then those get SIGTERM, and what is left SIGKILL. Imports only what a bare interpreter
has, so that it is up in milliseconds.
"""

import os
import select
import signal
import sys
import time

GRACE = 10.0
"""Seconds for the others, once the first-born has ended or has had its time."""


def main(seconds: float) -> None:
    """Read births and deaths to the end of standard input, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pipe ends a guard
    alive: dict[int, int] = {}
    first = 0
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            first = first or pid
            note_birth(alive, pid)
        elif pid in alive:
            os.close(alive.pop(pid))
    if first in alive:
        end_groups({first: alive[first]}, seconds=seconds, kill=False)
    end_groups(alive, seconds=min(seconds, GRACE), kill=True)


def note_birth(alive: dict[int, int], pid: int) -> None:
    """Open a pidfd for `pid`, unless it is gone already."""
    try:
        alive[pid] = os.pidfd_open(pid)
    except ProcessLookupError:
        return


def end_groups(alive: dict[int, int], *, seconds: float, kill: bool) -> None:
    """SIGTERM to each process group (leader's pid → its pidfd); wait until all leaders have ended, `seconds` at most;
    then, to `kill`, SIGKILL to what is left of the groups."""
    signal_groups(alive, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    waiting = dict(alive)
    while waiting and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(list(waiting.values()), [], [], left)
        waiting = {pid: handle for pid, handle in waiting.items() if handle not in ended}
    if kill:
        signal_groups(alive, signal.SIGKILL)


def signal_groups(pids: dict[int, int], number: signal.Signals) -> None:
    """Send a signal to the process groups that still exist."""
    for pid in pids:
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main(float(sys.argv[1]))
