"""The end of a role's log, as far as it tells why the role ended."""

import re
from collections import deque
from pathlib import Path

_WINDOW = 2000
"""Lines from the end that are looked at."""
_PROGRESS_BAR = re.compile(r"\d+%\|.*\|")
_ROUTINE = re.compile(r"^\S+ \S+ [ID] \S+: |^(INFO|DEBUG):")
_TROUBLE = re.compile(r"^\S+ \S+ [WEC] \S+: |^(WARNING|ERROR|CRITICAL):|^Traceback \(most recent call last\)")


def log_excerpt(path: Path, count: int) -> list[str]:
    """The last `count` lines of a log, without progress bars, and without INFO lines where there are worse ones; none
    where the file is missing."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip() for line in deque(file, maxlen=_WINDOW)]
    except FileNotFoundError:
        return []
    lines = [line for line in lines if not _PROGRESS_BAR.search(line)]
    if any(map(_TROUBLE.search, lines)):
        lines = [line for line in lines if not _ROUTINE.search(line)]
    return lines[-count:]
