"""The other end of the recorders' bulk sockets: for rollout workers (append) and trainer ranks (fetch)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from nexrl.comm import CurveClient, Registration, RpcClient, RunKeys, Security, TicketClient
from nexrl.config.schema import CommConfig
from nexrl.types import AppendReply, BatchRow, Trajectory, TrajectoryHeader, TrajectoryIds


def connect_recorder(registration: Registration, *, keys: RunKeys, name: str, comm: CommConfig) -> RpcClient:
    """A connection to one recorder, secured as `comm.encrypt` says."""
    ticket = bytes.fromhex(registration.endpoints["ticket"])
    security: Security = CurveClient(keys) if comm.encrypt == "all" else TicketClient(ticket)
    return RpcClient(registration.endpoints["bulk"], security=security, name=name)


class RecorderSink:
    """TrajectorySink: the recorder of the worker's own node."""

    def __init__(self, recorder: str, rpc: RpcClient, *, timeout: float) -> None:
        self._recorder = recorder
        self._rpc = rpc
        self._timeout = timeout

    def append(self, trajectories: Sequence[Trajectory]) -> list[TrajectoryHeader]:
        """Returns when the recorder holds them; raises CommError, StoreError."""
        self._rpc.call("append", list(trajectories), AppendReply, timeout=self._timeout)
        return [trajectory.with_recorder(self._recorder).header for trajectory in trajectories]


class RecorderSource:
    """TrajectorySource: all recorders, asked at once."""

    def __init__(self, recorders: dict[str, RpcClient], *, timeout: float) -> None:
        self._recorders = recorders
        self._timeout = timeout

    def fetch(self, rows: Iterable[BatchRow]) -> dict[str, Trajectory]:
        """Trajectories by id; raises CommError or StoreError naming what a recorder does not hold."""
        wanted: dict[str, dict[str, None]] = defaultdict(dict)
        for row in rows:
            wanted[row.recorder][row.trajectory_id] = None  # a dict keeps order and drops the repeats of later epochs
        futures: list[Future[list[Trajectory]]] = [
            self._recorders[name].call_async(
                "fetch", TrajectoryIds(tuple(ids)), list[Trajectory], timeout=self._timeout
            )
            for name, ids in wanted.items()
        ]
        return {trajectory.header.trajectory_id: trajectory for future in futures for trajectory in future.result()}
