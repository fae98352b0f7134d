"""The child of math_judge, a script: reads `[truth, answer]` lines, writes `true` or `false` lines.

Its argument is the time for one comparison in seconds, after which SIGALRM ends the process.
"""

import json
import logging
import resource
import signal
import sys

_MEMORY = 2 << 30
"""Bytes of address space: a tower of powers asks for more, and its comparison fails."""


def equal(truth: str, answer: str) -> bool:
    """Whether two expressions, LaTeX or plain, mean the same; what cannot be parsed equals nothing."""
    import math_verify

    parsed = [
        math_verify.parse(f"${text}$", fallback_mode="no_fallback", parsing_timeout=None) for text in (truth, answer)
    ]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))


def main(timeout: float) -> None:
    """Answer until standard input closes."""
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we time it ourselves
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    equal("1", "1")  # imports take seconds, and count towards no comparison
    for line in sys.stdin:
        truth, answer = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        verdict = equal(truth, answer)
        signal.setitimer(signal.ITIMER_REAL, 0)
        print("true" if verdict else "false", flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]))
