"""Stand-in roles: real processes that sleep, crash, ignore signals or fork; and the means to see them go."""

import sys
import time
from pathlib import Path

import psutil

from launch.plan import LaunchPlan, PlannedProcess
from launch.supervisor import Patience, Supervisor

TELL = """
import os, pathlib, signal, sys, time
def tell(suffix=""):
    pathlib.Path(sys.argv[1], sys.argv[2] + suffix).write_text(str(os.getpid()))
def answer(number, does):
    signal.signal(number, does)
tell()
"""
WAIT = """
print("ready", flush=True)
time.sleep(60)
"""
SLEEP = TELL + WAIT
POLITE = (
    TELL
    + """
answer(signal.SIGTERM, lambda *_: sys.exit(143))
answer(signal.SIGINT, lambda *_: sys.exit(130))
"""
    + WAIT
)
STUBBORN = (
    TELL
    + """
answer(signal.SIGTERM, signal.SIG_IGN)
answer(signal.SIGINT, signal.SIG_IGN)
"""
    + WAIT
)
FORKS = (
    TELL
    + """
if os.fork() == 0:
    tell(".child")
"""
    + WAIT
)
QUICK = Patience(failure=0.5, grace=0.5)


def ends(code: int, *, after: float = 0.0, says: str = "") -> str:
    """A role that ends by itself."""
    return TELL + f"time.sleep({after})\nprint({says!r}, flush=True)\nsys.exit({code})"


def ends_when(file: str, code: int, *, says: str = "") -> str:
    """A role that ends once another stand-in has told its pid in `file`."""
    waits = f"while not pathlib.Path(sys.argv[1], {file!r}).exists():\n    time.sleep(0.01)"
    return f"{TELL}{waits}\nprint({says!r}, flush=True)\nsys.exit({code})"


def plan_of(folder: Path, programs: dict[str, str], *, stop_timeout: float = 1.0) -> LaunchPlan:
    """A plan of stand-ins, the first one leading; each writes its pid to a file of its name in `folder`."""
    processes = [
        PlannedProcess(role=name, rank=0, command=(sys.executable, "-c", code, str(folder), name), environment={})
        for name, code in programs.items()
    ]
    return LaunchPlan(run_dir=folder, attempt=1, stop_timeout=stop_timeout, processes=tuple(processes))


def supervise(folder, programs, *, stop_timeout=1.0, patience=QUICK, tick=lambda: None):
    """Run stand-ins to the end: exit code and what was said."""
    said = []
    plan = plan_of(folder, programs, stop_timeout=stop_timeout)
    code = Supervisor(plan, log_dir=folder, say=said.append, patience=patience).run(tick)
    return code, "\n".join(said)


def pid_in(path: Path) -> int:
    """The pid that a stand-in told; waits for it."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if path.exists() and (text := path.read_text()):
            return int(text)
        time.sleep(0.01)
    raise AssertionError(f"no pid in {path}")


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie that nobody collects counts as ended)."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_gone(pids: list[int], *, seconds: float = 30.0) -> list[int]:
    """Wait until all have ended; those that have not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(map(is_gone, pids)):
        time.sleep(0.02)
    return [pid for pid in pids if not is_gone(pid)]
