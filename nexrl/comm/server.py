"""The bound end: many clients, each known by its name."""

import logging
from concurrent.futures import Future
from typing import Any, TypeVar, overload

import zmq

from nexrl.comm.endpoint import Endpoint
from nexrl.comm.security import Security
from nexrl.comm.wire import Head, Kind, failure_frames
from nexrl.errors import CommError

logger = logging.getLogger(__name__)
T = TypeVar("T")

_ZAP = "inproc://zeromq.zap.01"


class RpcServer(Endpoint):
    """Answers its clients' requests, and calls methods that they expose."""

    def __init__(self, *, bind: str, security: Security, name: str, workers: int = 8) -> None:
        """Bind at `bind`, a ZeroMQ endpoint such as `tcp://127.0.0.1:0` (0 = any free port).

        Raises CommError where it cannot be bound.
        """
        super().__init__(zmq.ROUTER, security=security, name=name, workers=workers)
        self._peers: dict[str, bytes] = {}
        self._names: dict[bytes, str] = {}
        self._replaced: set[bytes] = set()
        self._zap = self._context.socket(zmq.REP)
        self._zap.bind(_ZAP)
        self._sources[self._zap] = self._authenticate
        self._socket.router_mandatory = True  # sending to one who has gone is an error, not a silent loss
        self._socket.router_handover = True  # a connection that broke unnoticed must not keep its client out
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._end()
            raise CommError(f"{name}: cannot bind {bind}: {error.strerror}") from error
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        """Where clients connect."""
        self._thread.start()

    @overload
    def call(self, peer: str, method: str, request: Any, reply_type: type[T], *, timeout: float) -> Future[T]: ...
    @overload
    def call(self, peer: str, method: str, request: Any, reply_type: None, *, timeout: float) -> Future[None]: ...
    def call(self, peer: str, method: str, request: Any, reply_type: Any, *, timeout: float) -> Future[Any]:
        """Call a method that the client named `peer` exposes; the deadline is `timeout` seconds from now.

        The future fails with what the handler raised, or with CommError: not connected, connection lost, replaced by
        a newer client of that name, deadline, this server closed. Its callbacks run on the socket's thread: keep them
        short.
        """
        route = self._peers.get(peer)
        if route is None:
            future: Future[Any] = Future()
            future.set_exception(CommError(f"{peer}: not connected to {self.name} ({method} was not sent)"))
            return future
        return self._start(route, peer, method, request, reply_type, timeout)

    def peers(self) -> list[str]:
        """Names of the clients that are connected, sorted; one that died is noticed within about a second."""
        return sorted(self._peers)

    def _split(self, frames: list[zmq.Frame]) -> tuple[bytes, list[zmq.Frame]]:
        return frames[0].bytes, frames[1:]

    def _accept(self, route: bytes, head: Head) -> bool:
        if head.kind is Kind.BYE:
            self._forget(route, "closed its connection")
            self._replaced.discard(route)
            return False
        if route in self._replaced or (head.kind is not Kind.HELLO and self._peers.get(head.sender, route) != route):
            if head.kind is Kind.REQUEST:
                error = CommError(f"{self.name}: a newer client has taken the name {head.sender}")
                self._send(route, Head(Kind.ERROR, self.name, head.call, head.method), failure_frames(error))
            return False
        self._welcome(route, head.sender)
        return head.kind is not Kind.HELLO

    def _welcome(self, route: bytes, name: str) -> None:
        if self._names.get(route) == name:
            return
        older = self._peers.get(name)
        if older is not None:
            self._forget(older, "was replaced by a newer client of that name")
            self._replaced.add(older)
        self._peers[name] = route
        self._names[route] = name

    def _forget(self, route: bytes, reason: str) -> None:
        name = self._names.pop(route, None)
        if name is not None and self._peers.get(name) == route:
            del self._peers[name]
        self._lose(reason, route)

    def _unreachable(self, route: bytes) -> None:
        self._forget(route, "lost its connection")

    def _tick(self) -> None:
        for route in list(self._names):
            self._send(route, Head(Kind.PING, self.name))

    def _farewell(self) -> None:
        """Nothing: clients see the connection end."""

    def _authenticate(self) -> None:
        """Answer libzmq's questions about CURVE clients (ZeroMQ RFC 27)."""
        version, request, _domain, address, _route, mechanism, *credentials = self._zap.recv_multipart()
        admitted = mechanism == b"CURVE" and len(credentials) == 1 and self._security.admits(credentials[0])
        if not admitted:
            self._drop(f"a client at {address.decode(errors='replace')} with a key that is not the run's")
        verdict = [b"200", b"OK"] if admitted else [b"400", b"not a key of this run"]
        self._zap.send_multipart([version, request, *verdict, b"", b""])
