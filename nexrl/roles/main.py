"""The main program of every role: environment → identity → role object → `run()` → exit code."""

import argparse
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from nexrl.cluster import Identity
from nexrl.config import read_resolved
from nexrl.config.schema import Recipe
from nexrl.errors import EXIT_INTERRUPT, EXIT_OK, EXIT_TERMINATED, NexRLError
from nexrl.roles.lifeline import watch_lifeline

logger = logging.getLogger(__name__)

_MODULES = {
    "controller": "nexrl.roles.controller",
    "recorder": "nexrl.roles.recorder",
    "rollout": "nexrl.roles.rollout",
    "inference": "nexrl.roles.inference",
    "trainer": "nexrl.roles.trainer",
    "local": "nexrl.roles.local",
}
"""Loaded on demand: a rollout worker must not pay for importing the trainer."""

SIGNAL_EXIT_CODES = {signal.SIGINT: EXIT_INTERRUPT, signal.SIGTERM: EXIT_TERMINATED}


class RoleProgram(Protocol):
    """What a role's module builds."""

    def run(self) -> int:
        """Until the run ends; returns the exit code, raises NexRLError."""
        ...

    def stop(self, exit_code: int) -> None:
        """End soon and cleanly; called from another thread than `run`."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one role; returns its exit code (nexrl.errors)."""
    parser = argparse.ArgumentParser(prog="python -m nexrl.roles", description="One role of a run (started by launch).")
    parser.add_argument("role", choices=sorted(_MODULES))
    parser.add_argument("--run-dir", type=Path, required=True, help="folder that holds recipe.yaml")
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=os.environ.get("NEXRL_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname).1s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("httpx", "httpcore", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers' too; read when it is imported
    try:
        identity = Identity.from_env(os.environ)
        program = _build(args.role, identity, args.run_dir)
        _end_on_signals(program, leads=args.role in ("controller", "local"))
        return program.run()
    except NexRLError as error:
        logger.debug("ended by", exc_info=True)
        logger.error("%s: %s", type(error).__name__, error)  # noqa: TRY400 - the message is written to be enough
        return error.exit_code
    except SystemExit as end:  # only code of the user's calls it: an evaluator, a worker, a loader of one's own
        logger.exception("role %s was ended by sys.exit(%r)", args.role, end.code)
        return NexRLError.exit_code


def _build(role: str, identity: Identity, run_dir: Path) -> RoleProgram:
    recipe: Recipe = read_resolved(run_dir / "recipe.yaml")
    program: RoleProgram = importlib.import_module(_MODULES[role]).build(recipe, identity, run_dir)
    return program


def _end_on_signals(program: RoleProgram, *, leads: bool) -> None:
    """SIGINT, SIGTERM and a dead launcher end the role. The handler only passes the news on to a thread: what it
    interrupts may hold the very locks that `stop` takes."""
    news = threading.Event()
    codes: list[int] = []

    def received(number: int, frame: object) -> None:
        codes.append(SIGNAL_EXIT_CODES[signal.Signals(number)])
        news.set()

    def act() -> None:
        news.wait()
        program.stop(codes[0])

    threading.Thread(target=act, daemon=True, name="signals").start()
    for number in SIGNAL_EXIT_CODES:
        signal.signal(number, received)
    watch_lifeline(lambda: os.kill(os.getpid(), signal.SIGTERM), leads=leads)


__all__ = ["EXIT_OK", "RoleProgram", "main"]
