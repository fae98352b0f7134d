"""A weight group that is being joined: members come one after the other, and nobody who answers requests waits."""

from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import Protocol

import torch

from nexrl.errors import WeightSyncError
from nexrl.weights.calls import in_background

_GRACE_SECONDS = 2.0
"""Past the deadline: `connect` ends by its own and says more about it."""


class WeightGroup(Protocol):
    """What the weight plane needs of a process group."""

    def broadcast(self, tensor: torch.Tensor, root: int) -> None:
        """Send `tensor`, or receive it in place; raises WeightSyncError at the group's deadline or when a member has
        gone."""
        ...

    def close(self) -> None:
        """Leave; what others wait for fails."""
        ...


class Rendezvous:
    """Joins a group on a thread. `connect` has a deadline of its own, `timeout` seconds.

    `close` is safe at any moment, from any thread, and returns at once: leaving itself goes on in the background, for
    Gloo lets go of an operation under way only at the operation's deadline.
    """

    def __init__(self, connect: Callable[[], WeightGroup], *, epoch: int, timeout: float) -> None:
        self._epoch = epoch
        self._timeout = timeout
        self._lock = Lock()
        self._closed = False
        self._joined: Future[WeightGroup] = in_background(f"join weight group {epoch}", connect)
        self._joined.add_done_callback(self._connected)

    def group(self) -> WeightGroup:
        """The group, once all members are there; raises WeightSyncError where they don't come, or after `close`."""
        if self._closed:
            raise WeightSyncError(f"weight group {self._epoch} was given up")
        try:
            return self._joined.result(self._timeout + _GRACE_SECONDS)
        except TimeoutError as error:
            raise WeightSyncError(f"weight group {self._epoch} was not complete within {self._timeout:g} s") from error

    def close(self) -> None:
        """Leave the group, or do so as soon as it is there."""
        with self._lock:
            already, self._closed = self._closed, True
        if not already and self._joined.done():
            in_background(f"leave weight group {self._epoch}", self._leave)

    def _connected(self, _: "Future[WeightGroup]") -> None:
        with self._lock:
            late = self._closed
        if late:
            self._leave()

    def _leave(self) -> None:
        if self._joined.exception() is None:
            self._joined.result().close()
