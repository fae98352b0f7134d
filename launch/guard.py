"""Ends a run's processes when their launcher is gone: `python guard.py SECONDS`, a process of its own.

Standard input is a pipe from the launcher: `+PID` for a process group that is born, `-PID` for one that is gone. At the
end of the pipe, also by the launcher's SIGKILL, every group left gets SIGTERM, and SIGKILL after SECONDS. Imports only
what a bare interpreter has, so that it is up in milliseconds.
"""

import os
import select
import signal
import sys
import time


def main(seconds: float) -> None:
    """Read births and deaths to the end of standard input, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pipe ends a guard
    alive: dict[int, int] = {}
    for line in sys.stdin:
        pid = int(line[1:])
        if line[0] == "+":
            note_birth(alive, pid)
        elif pid in alive:
            os.close(alive.pop(pid))
    end_groups(alive, seconds=seconds)


def note_birth(alive: dict[int, int], pid: int) -> None:
    """Open a pidfd for `pid`, unless it is gone already."""
    try:
        alive[pid] = os.pidfd_open(pid)
    except ProcessLookupError:
        return


def end_groups(alive: dict[int, int], *, seconds: float) -> None:
    """SIGTERM to each process group (leader's pid → its pidfd), SIGKILL to those left after `seconds`."""
    signal_groups(alive, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    waiting = dict(alive)
    while waiting and (left := deadline - time.monotonic()) > 0:
        ended, _, _ = select.select(list(waiting.values()), [], [], left)
        waiting = {pid: handle for pid, handle in waiting.items() if handle not in ended}
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
