"""Compares mathematical expressions in a process of its own.

A model can write an expression that keeps sympy busy for hours inside one C call, where no thread and no Python signal
handler can stop it; a process can be ended. Parent and child (math_child) speak JSON lines over the child's standard
input and output: request `[truth, answer]`, reply `true` or `false`. The child ends when its input closes, and the
kernel ends it when a comparison takes too long, so it outlives neither.
"""

import json
import logging
import subprocess
import sys
import threading
import weakref
from pathlib import Path

from nexrl.errors import RewardError

logger = logging.getLogger(__name__)

_CHILD = Path(__file__).with_name("math_child.py")


class MathJudge:
    """One child, one comparison at a time; started at first use, and again after a comparison that ended it."""

    def __init__(self, *, timeout: float) -> None:
        """`timeout`: seconds for one comparison."""
        self._timeout = timeout
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def equal(self, truth: str, answer: str) -> bool:
        """Whether both mean the same; False where that cannot be said within the timeout."""
        with self._lock:
            if self._child is None:
                self._child = self._start()
            reply = _ask(self._child, truth, answer)
            if not reply:
                _end(self._child)
                self._child = None
                logger.info("no verdict within %s s on %.80r == %.80r", self._timeout, truth, answer)
            return reply == "true"

    def _start(self) -> subprocess.Popen[str]:
        # -P: the folder of the script stays off the import path, its modules have names such as `base`
        command = [sys.executable, "-P", str(_CHILD), str(self._timeout)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        weakref.finalize(self, _end, child)
        if _ask(child, "1", "1") != "true":
            _end(child)
            raise RewardError(
                f"the process that compares expressions cannot start (exit code {child.returncode}): {command}"
            )
        return child


def _ask(child: subprocess.Popen[str], truth: str, answer: str) -> str:
    """The child's reply; empty where it has ended instead."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps([truth, answer]) + "\n")
    except BrokenPipeError:
        return ""
    return child.stdout.readline().strip()


def _end(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()
