"""From the data loader to the pool."""

import logging
import threading
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

import msgspec

from nexrl.controller.background import start_thread
from nexrl.controller.tasks import TaskMaker
from nexrl.data import BaseDataLoader, DataItem, LoaderState
from nexrl.errors import NexRLError
from nexrl.pool import TrajectoryPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Position:
    """One cut through data, pool and ledger."""

    loader: LoaderState
    """Prompts that were issued but are not through stand in its replay queue."""
    open_groups: tuple[str, ...]
    """Prompts that the ledger up to `ledger_offset` has issued, but neither trained nor dropped."""
    ledger_offset: int
    """Bytes."""


class Feeder:
    """Admits one prompt after another, on a thread of its own.

    Consumes the data loader; waits for a free slot of the pool; unblocked by `pool.release` (a batch was trained), a
    dropped group, or `pool.close`. Remembers the prompts that are not through, for checkpoints.
    """

    def __init__(
        self,
        loader: BaseDataLoader,
        pool: TrajectoryPool,
        tasks: TaskMaker,
        *,
        on_error: Callable[[NexRLError], None],
    ) -> None:
        self._loader = loader
        self._pool = pool
        self._tasks = tasks
        self._on_error = on_error
        self._lock = threading.Lock()
        self._outstanding: dict[str, DataItem] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to admit."""
        self._thread = start_thread("feeder", self._run, on_error=self._on_error)

    def join(self, timeout: float) -> None:
        """Wait for the thread's end, after `pool.close`."""
        if self._thread is not None:
            self._thread.join(timeout)

    def settle(self, trained: Iterable[str]) -> None:
        """Forget the prompts that are through: `trained` (group ids of tasks), and those that were dropped. What only
        the pool's closing dropped is kept, for a resumed run to issue again."""
        with self._lock:
            for group_id in trained:
                self._outstanding.pop(group_id, None)
            self._forget_dropped({task.group_id for task in self._pool.outstanding()})

    def capture(self) -> Position:
        """Where a resumed run goes on so that it misses nothing and repeats nothing.

        Nothing is admitted meanwhile. A prompt that finishes or is dropped meanwhile makes the ledger grow: then all is
        looked at again.
        """
        with self._lock:
            offset = -1
            while offset != self._pool.ledger.offset:
                offset = self._pool.ledger.offset
                open_groups = tuple(task.group_id for task in self._pool.outstanding())
            self._forget_dropped(set(open_groups))
            state = self._loader.state()
            first = sorted(self._outstanding.values(), key=lambda item: item.order)
            return Position(
                loader=msgspec.structs.replace(state, front=(*first, *state.front)),
                open_groups=open_groups,
                ledger_offset=offset,
            )

    def restore(self, state: LoaderState) -> None:
        """Go on from `state`; before `start`."""
        self._loader.load_state(state)

    def _forget_dropped(self, outstanding: Collection[str]) -> None:
        if not self._pool.closed:
            self._outstanding = {name: item for name, item in self._outstanding.items() if name in outstanding}

    def _run(self) -> None:
        while self._pool.wait_for_slot():
            with self._lock:
                item = self._loader.get_next_item()
                if item is None:
                    self._pool.end_of_data()
                    return
                task = self._tasks.training(item)
                self._outstanding[task.group_id] = item
                self._pool.admit(task)
