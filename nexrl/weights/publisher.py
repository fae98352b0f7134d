"""The trainer's end of a weight update, as the controller sees it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Protocol

from nexrl.comm import RpcServer
from nexrl.types import GroupAddress, OpenGroup, SendWeights

OPEN_GROUP = "open_weight_group"
"""OpenGroup → GroupAddress; rank 0 only."""
SEND_WEIGHTS = "send_weights"
"""SendWeights → int, the bytes sent; every rank, on the thread that runs its collectives."""
ABORT_GROUP = "abort_weight_group"
"""None → None; rank 0 only, on any other thread than the one that sends."""


class WeightPublisher(Protocol):
    """Whoever has the new weights."""

    def open_group(self, *, world_size: int, epoch: int) -> GroupAddress:
        """Where the group `epoch` meets; returns at once, before the others join. A former group is left."""
        ...

    def send(self, *, version: int) -> "Future[int]":
        """Start to stream the current weights as `version`; the bytes sent, when all are."""
        ...

    def abort(self) -> None:
        """Give the group up: a `send` under way fails soon. Does not wait, raises nothing."""
        ...


class ZmqWeightPublisher:
    """The trainer ranks of this job, over the command socket. `ranks[0]` is the one that sends."""

    def __init__(self, server: RpcServer, ranks: Sequence[str], *, timeout: float) -> None:
        self._server = server
        self._ranks = tuple(ranks)
        self._timeout = timeout

    def open_group(self, *, world_size: int, epoch: int) -> GroupAddress:
        """Raises CommError naming the rank."""
        request = OpenGroup(world_size=world_size, epoch=epoch)
        return self._server.call(self._ranks[0], OPEN_GROUP, request, GroupAddress, timeout=self._timeout).result()

    def send(self, *, version: int) -> "Future[int]":
        """All ranks gather, the first one sends; the first failure of any rank is the result."""
        request = SendWeights(version=version)
        return _joined(
            [self._server.call(rank, SEND_WEIGHTS, request, int, timeout=self._timeout) for rank in self._ranks], sum
        )

    def abort(self) -> None:
        """Ask the sending rank to leave the group."""
        self._server.call(self._ranks[0], ABORT_GROUP, None, None, timeout=self._timeout)


def _joined(futures: "Sequence[Future[int]]", combine: Callable[[list[int]], int]) -> "Future[int]":
    """All results combined, or the first exception."""
    joined: Future[int] = Future()
    lock = Lock()
    left = len(futures)

    def ended(future: "Future[int]") -> None:
        nonlocal left
        with lock:
            left -= 1
            if joined.done():
                return
            if error := future.exception():
                joined.set_exception(error)
            elif left == 0:
                joined.set_result(combine([each.result() for each in futures]))

    for future in futures:
        future.add_done_callback(ended)
    return joined
