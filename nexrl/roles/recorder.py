"""One recorder per rollout node: every trajectory goes to its HDF5 file first, and stays in memory until trained."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from nexrl.cluster import Identity
from nexrl.comm import CurveServer, RpcServer, Security, TicketServer, new_ticket
from nexrl.config.schema import Recipe
from nexrl.roles.session import Session
from nexrl.store import TrajectoryBuffer, TrajectoryWriter
from nexrl.types import AppendReply, Trajectory, TrajectoryIds

logger = logging.getLogger(__name__)


class RecorderRole:
    """Serves `append` and `fetch` on a bulk socket, `release` and `durable` to the controller."""

    def __init__(self, recipe: Recipe, identity: Identity, run_dir: Path) -> None:
        self._session = Session(recipe, identity, run_dir)
        self._name = identity.name
        ticket = new_ticket()
        security: Security = CurveServer(self._session.keys) if recipe.comm.encrypt == "all" else TicketServer(ticket)
        self._buffer = TrajectoryBuffer()
        node = self._session.host.split(".")[0]
        self._writer = TrajectoryWriter(
            run_dir / "trajectories" / f"{node}.{identity.attempt}.h5",
            node=node,
            attempt=identity.attempt,
            run_id=run_dir.name,
        )
        self._bulk = RpcServer(bind=f"tcp://{identity.host_address}:0", security=security, name=identity.name)
        self._bulk.expose("append", list[Trajectory], lambda caller, request: self._append(request))
        self._bulk.expose("fetch", TrajectoryIds, lambda caller, request: self._buffer.get(request.ids))
        self._waiters = ThreadPoolExecutor(1, thread_name_prefix="durable")
        self._session.rpc.expose("release", TrajectoryIds, lambda caller, request: self._buffer.release(request.ids))
        self._session.rpc.expose("durable", None, lambda caller, request: self._durable())
        self._session.rpc.expose("flush", None, lambda caller, request: self._writer.flush())
        self._taken = 0
        self._lock = threading.Lock()
        self._endpoints = {"bulk": self._bulk.address, "ticket": ticket.hex()}

    def run(self) -> int:
        """Until the controller says shutdown."""
        self._session.register(self._endpoints)
        self._session.stopped.wait()
        self._bulk.close()
        self._writer.close()
        self._session.close()
        return 0

    def stop(self, exit_code: int) -> None:
        """End; what has been taken is written first."""
        self._session.stopped.set()

    def _append(self, trajectories: list[Trajectory]) -> AppendReply:
        named = [trajectory.with_recorder(self._name) for trajectory in trajectories]
        with self._lock:
            self._taken = self._writer.append(named)
        self._buffer.put([trajectory for trajectory in named if not trajectory.header.is_val])
        return AppendReply(self._taken)

    def _durable(self) -> "Future[None]":
        """Resolves once all that have been taken by now are safe."""
        with self._lock:
            taken = self._taken

        def wait() -> None:
            self._writer.wait_durable(taken, timeout=60.0)

        return self._waiters.submit(wait)


def build(recipe: Recipe, identity: Identity, run_dir: Path) -> RecorderRole:
    """For nexrl.roles.main."""
    return RecorderRole(recipe, identity, run_dir)
