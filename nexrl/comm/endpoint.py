"""What both ends of a connection share: a socket owned by one thread, handlers on worker threads, calls as futures.

The socket's thread waits for a message, for something to send (an eventfd wakes it), and for the next deadline.
Nothing else touches the socket. Callers and handlers encode on their own threads; answers are decoded on the socket's.
"""

import itertools
import logging
import math
import os
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq

from nexrl.comm.calls import Call, Calls
from nexrl.comm.codec import MAX_FRAME_BYTES, Frame, encode
from nexrl.comm.requests import Caller, Requests
from nexrl.comm.security import Security
from nexrl.comm.wire import Head, Kind, pack, unpack
from nexrl.errors import CommError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_LINGER_MS = 200
"""How long closing may go on sending."""
_HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS = 5_000, 30_000
"""libzmq's own pings, answered by its threads: they find a lost host, not a busy process."""
_BURST = 64
"""Messages read before the outbox has its turn."""
_COPY_BELOW = 1 << 16
"""Bytes; smaller frames are cheaper to copy than to hand over."""
_TICK_SECONDS = 1.0


@dataclass(frozen=True)
class Outgoing:
    """A message that waits to be sent; for a REQUEST, with the call that waits for its answer."""

    route: bytes
    frames: list[Frame]
    call: Call | None = None


class Endpoint(ABC):
    """One end. Subclasses make the connection, and say what becomes of peers that come and go."""

    def __init__(self, kind: int, *, security: Security, name: str, workers: int) -> None:
        self.name = name
        self.dropped = 0
        """Messages without a valid ticket or head, and clients whose key was refused."""
        self._security = security
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._make_socket(kind)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._sources: dict[Any, Callable[[], None]] = {self._socket: self._read}
        self._numbers = itertools.count(1)
        self._outbox: deque[Outgoing] = deque()
        self._lock = threading.Lock()
        self._closing = False
        self._calls = Calls()
        self._requests = Requests(self._answer, name=name, workers=workers)
        self._next_tick = 0.0
        self._thread = threading.Thread(target=self._run, name=f"{name}-socket", daemon=True)

    def expose(self, method: str, request_type: type[T] | None, handler: Callable[[Caller, T], Any]) -> None:
        """Answer requests for `method` with `handler(caller, request)`, on a worker thread.

        The handler returns the reply, or a Future of it (whose caller may wait long without a thread). A deferred
        reply whose caller has given up or gone is cancelled: ask `future.set_running_or_notify_cancel()` before
        handing out anything that must not be lost. A NexRLError raised is raised at the caller; anything else is
        logged here and a CommError there.
        """
        self._requests.expose(method, request_type, handler)

    def close(self) -> None:
        """End at once: calls that wait fail with CommError, deferred replies are cancelled, the thread has ended."""
        with self._lock:
            already, self._closing = self._closing, True
            if not already:
                os.eventfd_write(self._wake, 1)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @abstractmethod
    def _accept(self, route: bytes, head: Head) -> bool:
        """Take note of who speaks; False: the message is dealt with."""

    @abstractmethod
    def _tick(self) -> None:
        """Once a second."""

    @abstractmethod
    def _unreachable(self, route: bytes) -> None:
        """A message could not be sent: nobody is there."""

    def _make_socket(self, kind: int) -> "zmq.Socket[bytes]":
        socket = self._context.socket(kind)
        socket.linger = _LINGER_MS
        socket.sndhwm = socket.rcvhwm = 0  # calls wait for answers, which bounds what is under way
        socket.maxmsgsize = MAX_FRAME_BYTES
        socket.heartbeat_ivl, socket.heartbeat_timeout = _HEARTBEAT_MS, _HEARTBEAT_TIMEOUT_MS
        self._security.secure(socket)
        return socket

    # Any thread

    def _start(
        self, route: bytes, peer: str, method: str, request: Any, reply_type: Any, timeout: float
    ) -> Future[Any]:
        number = next(self._numbers)
        future: Future[Any] = Future()
        call = Call(
            number=number,
            route=route,
            peer=peer,
            method=method,
            reply_type=reply_type,
            timeout=timeout,
            deadline=time.monotonic() + timeout,
            future=future,
        )
        self._send(route, Head(Kind.REQUEST, self.name, number, method), encode(request), call)
        future.add_done_callback(lambda done: self._give_up(call) if done.cancelled() else None)
        return future

    def _give_up(self, call: Call) -> None:
        """Tell the callee that nobody waits any longer."""
        self._send(call.route, Head(Kind.CANCEL, self.name, call.number, call.method))

    def _send(self, route: bytes, head: Head, payload: Sequence[Frame] = (), call: Call | None = None) -> None:
        outgoing = Outgoing(route, pack(self._security.ticket, head, payload), call)
        with self._lock:
            closing = self._closing
            if not closing:
                self._outbox.append(outgoing)
                os.eventfd_write(self._wake, 1)
        if closing and call is not None:
            call.fail(CommError(f"{call.peer}: {self.name} is closed ({call.method} was not sent)"))

    def _answer(self, route: bytes, head: Head, payload: Sequence[Frame]) -> None:
        self._send(route, head, payload)

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self.name}: a callback of a call must not wait for another call")

    # The socket's thread

    def _run(self) -> None:
        poller = zmq.Poller()
        for source in (self._wake, *self._sources):
            poller.register(source, zmq.POLLIN)
        try:
            while not self._closing:
                wait = self._calls.wait_seconds(max(0.0, self._next_tick - time.monotonic()))
                ready = dict(poller.poll(math.ceil(wait * 1000)))
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                for source, read in self._sources.items():
                    if source in ready:
                        read()
                self._flush()
                self._watch()
        finally:
            self._end()

    def _watch(self) -> None:
        """Deadlines and peers."""
        for call in self._calls.expired():
            self._give_up(call)
        if time.monotonic() >= self._next_tick:
            self._next_tick = time.monotonic() + _TICK_SECONDS
            self._tick()

    def _read(self) -> None:
        for _ in range(_BURST):
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            route, frames = self._split(frames)
            try:
                head, payload = unpack(self._security.ticket, frames)
            except CommError as error:
                self._drop(str(error))
                continue
            if self._accept(route, head):
                self._dispatch(route, head, payload)

    def _split(self, frames: list[zmq.Frame]) -> tuple[bytes, list[zmq.Frame]]:
        """Route and message."""
        return b"", frames

    def _dispatch(self, route: bytes, head: Head, payload: Sequence[Any]) -> None:
        if head.kind is Kind.REQUEST:
            self._requests.start(route, head, payload)
        elif head.kind in (Kind.REPLY, Kind.ERROR):
            self._calls.answer(route, head, payload)
        elif head.kind is Kind.CANCEL:
            self._requests.cancel(lambda *key: key == (route, head.call))

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        level = logging.WARNING if self.dropped == 1 else logging.DEBUG  # a stranger must not fill the log
        logger.log(level, "%s: dropped %s", self.name, reason)

    def _flush(self) -> None:
        """Send all that waits."""
        while self._outbox:
            outgoing = self._outbox.popleft()
            if outgoing.call is not None:
                self._calls.add(outgoing.call)
            try:
                self._transmit(outgoing)
            except (zmq.Again, zmq.ZMQError) as error:
                if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                    raise
                self._unreachable(outgoing.route)

    def _transmit(self, outgoing: Outgoing) -> None:
        frames = [outgoing.route, *outgoing.frames] if outgoing.route else outgoing.frames
        for frame in frames[:-1]:
            self._socket.send(frame, zmq.SNDMORE | zmq.NOBLOCK, copy=len(frame) < _COPY_BELOW)
        self._socket.send(frames[-1], zmq.NOBLOCK, copy=len(frames[-1]) < _COPY_BELOW)

    def _lose(self, reason: str, route: bytes) -> None:
        """Whoever was on `route` is gone."""
        self._calls.fail(reason, lambda call: call.route == route)
        self._requests.cancel(lambda requester, _: requester == route)

    @abstractmethod
    def _farewell(self) -> None:
        """Say the last, and give back what the subclass took, before the socket is closed."""

    def _end(self) -> None:
        with self._lock:
            self._closing = True
        try:
            self._flush()
            self._farewell()
        finally:
            for outgoing in self._outbox:
                if outgoing.call is not None:
                    self._calls.add(outgoing.call)
            self._calls.fail(f"{self.name} was closed")
            self._requests.close()
            for source in self._sources:
                source.close()
            self._context.term()
            os.close(self._wake)
