"""Requests of peers: handlers by method name, run on worker threads, answered at once or later."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from nexrl.comm.codec import Frame, decode, encode
from nexrl.comm.wire import Head, Kind, failure_frames
from nexrl.comm.workers import Workers
from nexrl.errors import CommError, NexRLError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Caller:
    """Who made a request."""

    name: str


Handler = Callable[[Caller, Any], Any]
Answer = Callable[[bytes, Head, Sequence[Frame]], None]
_Key = tuple[bytes, int]


class Requests:
    """Runs handlers, and knows which requests still have somebody waiting for the answer."""

    def __init__(self, answer: Answer, *, name: str, workers: int) -> None:
        self._name, self._answer = name, answer
        self._handlers: dict[str, tuple[Any, Handler]] = {}
        self._workers = Workers(workers, name=name)
        self._lock = threading.Lock()
        self._wanted: dict[_Key, Future[Any] | None] = {}
        """Requests whose caller waits → the future of the reply, where the handler gave one."""

    def expose(self, method: str, request_type: Any, handler: Handler) -> None:
        """Let peers call `method`; a ValueError where it has a handler."""
        if method in self._handlers:
            raise ValueError(f"{self._name}: {method} has a handler")
        self._handlers[method] = (request_type, handler)

    def start(self, route: bytes, head: Head, payload: Sequence[Any]) -> None:
        """Have a REQUEST handled."""
        with self._lock:
            self._wanted[route, head.call] = None
        self._workers.submit(self._handle, route, head, payload)

    def cancel(self, of: Callable[[bytes, int], bool]) -> None:
        """Nobody waits for these any longer: their deferred replies are cancelled, and what comes is not sent."""
        with self._lock:
            gone = [key for key in self._wanted if of(*key)]
            futures = [self._wanted.pop(key) for key in gone]
        for future in futures:
            if future is not None:
                future.cancel()

    def close(self) -> None:
        """Cancel everything, end the threads."""
        self.cancel(lambda route, call: True)
        self._workers.close()

    def _handle(self, route: bytes, head: Head, payload: Sequence[Any]) -> None:
        try:
            if head.method not in self._handlers:
                raise CommError(f"{self._name} has no method {head.method!r}")  # noqa: TRY301 (answered like the rest)
            request_type, handler = self._handlers[head.method]
            try:
                request = decode(payload, request_type)
            except CommError as error:
                raise CommError(f"{self._name}: request {head.method}: {error}") from error
            reply = handler(Caller(head.sender), request)
            if isinstance(reply, Future):
                self._defer(route, head, reply)
                return
            frames = encode(reply)
        except Exception as error:  # noqa: BLE001 (whatever a handler raises is its caller's to deal with)
            self._fail(route, head, error)
        else:
            self._reply(route, head, Kind.REPLY, frames)

    def _defer(self, route: bytes, head: Head, future: "Future[Any]") -> None:
        with self._lock:
            wanted = (route, head.call) in self._wanted
            if wanted:
                self._wanted[route, head.call] = future
        if not wanted:
            future.cancel()
        future.add_done_callback(partial(self._finish, route, head))

    def _finish(self, route: bytes, head: Head, future: "Future[Any]") -> None:
        if future.cancelled():
            self._fail(route, head, CommError(f"{self._name}: {head.method} was cancelled"))
            return
        error = future.exception()
        try:
            frames = encode(future.result()) if error is None else []
        except CommError as unsendable:
            error = unsendable
        if error is not None:
            self._fail(route, head, error)
        else:
            self._reply(route, head, Kind.REPLY, frames)

    def _fail(self, route: bytes, head: Head, error: BaseException) -> None:
        if not isinstance(error, NexRLError):
            logger.error("%s: %s for %s raised", self._name, head.method, head.sender, exc_info=error)
            error = CommError(f"{self._name}: {head.method} raised {type(error).__name__}: {error}")
        self._reply(route, head, Kind.ERROR, failure_frames(error))

    def _reply(self, route: bytes, head: Head, kind: Kind, frames: Sequence[Frame]) -> None:
        with self._lock:
            wanted = (route, head.call) in self._wanted
            self._wanted.pop((route, head.call), None)
        if wanted:
            self._answer(route, Head(kind, self._name, head.call, head.method), frames)
