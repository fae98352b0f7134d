"""From the data loader to the pool."""

import logging
import threading
from collections.abc import Callable

import msgspec

from nexrl.controller.background import start_thread
from nexrl.controller.tasks import TaskMaker
from nexrl.data import BaseDataLoader, DataItem, LoaderState
from nexrl.errors import NexRLError
from nexrl.pool import TrajectoryPool

logger = logging.getLogger(__name__)


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

    def settle(self) -> None:
        """Forget the prompts that are through, trained or dropped; those that only the pool's closing dropped are kept,
        for a resumed run to issue again."""
        with self._lock:
            outstanding = {task.group_id for task in self._pool.outstanding()}
            if not self._pool.closed:
                self._outstanding = {name: item for name, item in self._outstanding.items() if name in outstanding}

    def capture(self) -> LoaderState:
        """The position from which a resumed run misses nothing: prompts that are not through come first."""
        with self._lock:
            state = self._loader.state()
            outstanding = sorted(self._outstanding.values(), key=lambda item: item.order)
            return msgspec.structs.replace(state, front=(*outstanding, *state.front))

    def restore(self, state: LoaderState) -> None:
        """Go on from `state`; before `start`."""
        self._loader.load_state(state)

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
