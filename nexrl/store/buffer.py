"""The recorder's memory of trajectories that are not trained yet."""

import threading
from collections.abc import Iterable

from nexrl.errors import StoreError
from nexrl.store.encode import size_of
from nexrl.types import Trajectory


class TrajectoryBuffer:
    """Trajectories by id, until they are released; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Trajectory] = {}
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes of arrays and texts that are held."""
        return self._size

    def put(self, trajectories: Iterable[Trajectory]) -> None:
        """Hold `trajectories`; one whose id is held already takes the place of the other."""
        with self._lock:
            for trajectory in trajectories:
                self._drop(trajectory.header.trajectory_id)
                self._held[trajectory.header.trajectory_id] = trajectory
                self._size += size_of(trajectory)

    def get(self, ids: Iterable[str]) -> list[Trajectory]:
        """The trajectories with these ids, in their order; raises StoreError naming the ids that are not held."""
        wanted = tuple(ids)
        with self._lock:
            missing = [name for name in wanted if name not in self._held]
            if missing:
                raise StoreError(f"{len(missing)} of {len(wanted)} trajectories are not held: {', '.join(missing)}")
            return [self._held[name] for name in wanted]

    def release(self, ids: Iterable[str]) -> None:
        """Forget the trajectories with these ids; ids that are not held are passed over."""
        with self._lock:
            for name in ids:
                self._drop(name)

    def _drop(self, name: str) -> None:
        trajectory = self._held.pop(name, None)
        if trajectory is not None:
            self._size -= size_of(trajectory)

    def __len__(self) -> int:
        return len(self._held)
