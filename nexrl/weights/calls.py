"""Calls that may hang, each on a thread that can be given up."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from threading import Thread
from typing import Any, TypeVar

from nexrl.errors import WeightSyncError

T = TypeVar("T")

_SETTLE_SECONDS = 2.0
"""How long the others may take, after a first failure, to say what they saw: the first to fail is often only the
first to notice."""


def in_background(name: str, call: Callable[[], T]) -> "Future[T]":
    """Start `call` on a daemon thread. Nobody has to wait for it, the interpreter's exit neither."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - the top of a thread: the future carries it
            future.set_exception(error)
        else:
            future.set_result(result)

    Thread(target=run, name=name, daemon=True).start()
    return future


def finish(
    what: str,
    futures: "Mapping[str, Future[Any]]",
    *,
    deadline: float,
    on_failure: Callable[[], None] = lambda: None,
) -> None:
    """Wait until all have ended well, up to `deadline` (time.monotonic()).

    After the first failure, or the deadline, `on_failure` ends what it can, the others get two more seconds to fail
    too, and WeightSyncError names each that failed or did not answer.
    """
    started = time.monotonic()
    wait(futures.values(), timeout=max(0.0, deadline - started), return_when=FIRST_EXCEPTION)
    if all(future.done() and future.exception() is None for future in futures.values()):
        return
    expired = time.monotonic() >= deadline
    on_failure()
    if not expired:
        wait(futures.values(), timeout=_SETTLE_SECONDS)
    silent = f"no answer within {max(0.0, deadline - started):.1f} s" if expired else "still waiting"
    told = "; ".join(text for name, future in futures.items() if (text := _outcome(name, future, silent)))
    errors = [future.exception() for future in futures.values() if future.done() and future.exception()]
    raise WeightSyncError(f"{what}: {told}") from (errors[0] if errors else None)


def _outcome(name: str, future: "Future[Any]", silent: str) -> str:
    if not future.done():
        return f"{name}: {silent}"
    error = future.exception()
    if error is None:
        return ""
    return f"{name}: {error}" if isinstance(error, WeightSyncError) else f"{name}: {type(error).__name__}: {error}"
