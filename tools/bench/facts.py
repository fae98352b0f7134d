"""What a measurement ran on."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

from tools.bench.rows import Detail, Record, Row

ROOT = Path(__file__).resolve().parents[2]
_COUNTED = ("torch", "transformers", "trl", "vllm", "h5py", "isal")


def make_record(
    benchmark: str, rows: Sequence[Row], *, details: Sequence[Detail] = (), environments: Iterable[Path] = ()
) -> Record:
    """The record of a benchmark that ran in this process, with the versions of further `environments` that it used."""
    return Record(
        benchmark=benchmark,
        command=command_line(sys.argv[1:]),
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        commit=commit(),
        hardware=hardware(),
        versions=versions([Path(sys.prefix), *environments]),
        rows=tuple(rows),
        details=tuple(details),
    )


def command_line(arguments: Sequence[str]) -> str:
    """The command without the places that are this machine's own: of an absolute path, its name."""
    shown = [Path(argument).name if argument.startswith("/") else argument for argument in arguments]
    return shlex.join(["python", "-m", "tools.bench", *shown])


def hardware() -> str:
    """Processor, cores, memory, as Linux tells them."""
    told = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{told[0] if told else platform.machine()}, {cores} cores, {memory:.0f} GiB"


def commit() -> str:
    """The short hash, with `+` where files differ from it; empty outside a git checkout."""
    found = _git("rev-parse", "--short", "HEAD")
    return f"{found}+" if found and _git("status", "--porcelain", "--untracked-files=no") else found


def versions(environments: Iterable[Path]) -> dict[str, str]:
    """Of the distributions that decide the figures. A version that differs between environments names its folder."""
    found: dict[str, str] = {"python": platform.python_version()}
    for folder in environments:
        packages = [str(path) for path in folder.glob("lib/python3.*/site-packages")]
        for name in _COUNTED:
            for distribution in distributions(name=name, path=packages):
                known = found.setdefault(name, distribution.version)
                if known != distribution.version:
                    found[f"{name} in {folder.name}"] = distribution.version
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _lines(path: str) -> list[str]:
    file = Path(path)
    return file.read_text().splitlines() if file.is_file() else []
