"""What is written down of a batch once it is trained."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from nexrl.controller.background import start_thread
from nexrl.errors import NexRLError, StallError
from nexrl.pool import Ledger
from nexrl.store import StepsWriter
from nexrl.types import Batch, TrajectoryGroup

_AFTER_FAILURE_SECONDS = 5.0


class Recorders(Protocol):
    """All recorders of the run, as the controller sees them."""

    def wait_durable(self) -> None:
        """Returns when everything the recorders hold by now is on disk."""
        ...

    def release(self, trajectory_ids: Sequence[str]) -> None:
        """Nobody will fetch these any more."""
        ...

    def flush(self) -> None:
        """Write now what is held; returns when it is on disk."""
        ...


class Bookkeeper:
    """Writes `steps.h5`, frees the recorders' memory, and enters *trained* in the ledger once the trajectories are
    durable.

    Its thread consumes trained steps; it waits for the next one, and takes all there are at once, because a recorder
    commits only every two seconds; `close` ends it. No training step waits for a disk. What goes wrong there is given
    to `on_error`, and raised by `flush`. `flush` and `close` wait for `timeout` seconds, then raise a StallError that
    names what is waited for.
    """

    def __init__(
        self,
        ledger: Ledger,
        open_steps: Callable[[int], StepsWriter],
        recorders: Recorders,
        *,
        timeout: float,
        on_error: Callable[[NexRLError], None],
    ) -> None:
        """`open_steps(from_step)` starts this attempt's `steps.h5`."""
        self._ledger = ledger
        self._open_steps = open_steps
        self._recorders = recorders
        self._timeout = timeout
        self._on_error = on_error
        self._changed = threading.Condition()
        self._waiting: list[_Trained] = []
        self._doing = ""
        """What the thread is at, in words; empty while it waits for a step."""
        self._hurry = False
        self._closed = False
        self._failure: NexRLError | None = None
        self._thread: threading.Thread | None = None

    def start(self, from_step: int) -> None:
        """Begin after `from_step` steps."""
        steps = self._open_steps(from_step)
        self._thread = start_thread("bookkeeper", lambda: self._run(steps), on_error=self._failed)

    def trained(
        self,
        batch: Batch,
        groups: Sequence[TrajectoryGroup],
        prompts: Sequence[str],
        *,
        weight_version: int,
        let_go: Sequence[str] = (),
    ) -> None:
        """`batch` was made of `groups`, which are these prompts (group ids of tasks), and is trained, starting from
        `weight_version`. Nobody will ask for its trajectories any more, nor for those in `let_go`."""
        ids = (*(header.trajectory_id for group in groups for header in group.headers), *let_go)
        with self._changed:
            self._waiting.append(_Trained(batch, weight_version, tuple(prompts), ids))
            self._changed.notify_all()

    def flush(self) -> None:
        """Everything trained so far is durable and in the ledger when this returns."""
        with self._changed:
            self._hurry = True
        self._recorders.flush()
        with self._changed:
            ended = self._changed.wait_for(
                lambda: not (self._waiting or self._doing) or self._failure is not None, self._timeout
            )
            self._hurry = False
            if not ended:
                self._failure = self._stalled()
            if self._failure is not None:
                raise self._failure
        self._ledger.sync()

    def close(self) -> None:
        """Finish what is waiting, then close `steps.h5`; does not wait where something has gone wrong already."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is None:
            return
        self._thread.join(self._timeout if self._failure is None else _AFTER_FAILURE_SECONDS)
        if self._thread.is_alive() and self._failure is None:
            self._failure = self._stalled()
            raise self._failure

    def _run(self, steps: StepsWriter) -> None:
        with steps:
            while batch := self._next():
                self._write(steps, batch)

    def _stalled(self) -> StallError:
        steps = ", ".join(str(one.batch.step) for one in self._waiting) or "none"
        return StallError(
            f"the bookkeeper waited {self._timeout:g} s (comm.call_timeout) for: {self._doing or 'the next step'}; "
            f"trained steps behind it: {steps}"
        )

    def _failed(self, error: NexRLError) -> None:
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()
        self._on_error(error)

    def _next(self) -> "list[_Trained]":
        with self._changed:
            self._doing = ""
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._closed)
            batch, self._waiting = self._waiting, []
            self._doing = "steps.h5" if batch else ""
            return batch

    def _write(self, steps: StepsWriter, trained: "list[_Trained]") -> None:
        for one in trained:
            steps.append(one.batch, weight_version=one.weight_version)
        self._doing = "the recorders, to let trajectories go"
        self._recorders.release([name for one in trained for name in one.trajectory_ids])
        self._doing = f"the recorders, to have the trajectories of step {trained[-1].batch.step} on disk"
        if self._hurry:
            self._recorders.flush()
        else:
            self._recorders.wait_durable()
        self._doing = "the ledger"
        for one in trained:
            for prompt in one.prompts:
                self._ledger.trained(prompt, one.batch.step)


@dataclass(frozen=True)
class _Trained:
    batch: Batch
    weight_version: int
    prompts: tuple[str, ...]
    trajectory_ids: tuple[str, ...]
