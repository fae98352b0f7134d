"""The connecting end."""

import secrets
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar, overload

import zmq
from zmq.utils.monitor import recv_monitor_message

from nexrl.comm.endpoint import Endpoint, Outgoing
from nexrl.comm.security import Security
from nexrl.comm.wire import Head, Kind, pack

T = TypeVar("T")

_REFUSED = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
_WRONG_KEYS = "refused the connection: not the keys of its run?"
_RECONNECT_MS, _RECONNECT_MAX_MS = 20, 1000


class RpcClient(Endpoint):
    """Calls the server's methods, and answers the calls that the server makes back."""

    def __init__(self, address: str, *, security: Security, name: str, workers: int = 4) -> None:
        """Connect to `address` in the background; a connection that breaks is made anew, one that is refused is not.

        `name` is what the server knows this client by: a newer client of the same name takes it over.
        """
        super().__init__(zmq.DEALER, security=security, name=name, workers=workers)
        self._address = address
        self._socket.routing_id = b"\x01" + secrets.token_bytes(16)  # stays the same over reconnects; not to be guessed
        self._socket.reconnect_ivl, self._socket.reconnect_ivl_max = _RECONNECT_MS, _RECONNECT_MAX_MS
        events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | _REFUSED
        self._monitor = self._socket.get_monitor_socket(events)
        self._sources[self._monitor] = self._read_monitor
        self._refused = False
        self._socket.connect(address)
        self._send(b"", Head(Kind.HELLO, name))  # ahead of all calls
        self._thread.start()

    @overload
    def call(self, method: str, request: Any, reply_type: type[T], *, timeout: float) -> T: ...
    @overload
    def call(self, method: str, request: Any, reply_type: None, *, timeout: float) -> None: ...
    def call(self, method: str, request: Any, reply_type: Any, *, timeout: float) -> Any:
        """Call `method` of the server and wait for the reply; any thread may, except in a callback of a call's future.

        Raises what the handler raised if it is a NexRLError, and CommError otherwise: unknown method, bad payload,
        connection lost or refused, no answer within `timeout` seconds, this client closed.
        """
        self._refuse_own_thread()
        return self._start(b"", self._address, method, request, reply_type, timeout).result()

    @overload
    def call_async(self, method: str, request: Any, reply_type: type[T], *, timeout: float) -> Future[T]: ...
    @overload
    def call_async(self, method: str, request: Any, reply_type: None, *, timeout: float) -> Future[None]: ...
    def call_async(self, method: str, request: Any, reply_type: Any, *, timeout: float) -> Future[Any]:
        """Like `call`, but a future of the reply. Its callbacks run on the socket's thread: keep them short."""
        return self._start(b"", self._address, method, request, reply_type, timeout)

    def _accept(self, route: bytes, head: Head) -> bool:
        return head.kind is not Kind.PING

    def _tick(self) -> None:
        """Nothing: the server looks after the connection."""

    def _transmit(self, outgoing: Outgoing) -> None:
        if self._refused:  # ZeroMQ may still take it, and would keep it for ever
            self._unreachable(outgoing.route)
        else:
            super()._transmit(outgoing)

    def _unreachable(self, route: bytes) -> None:
        """ZeroMQ has given the connection up, which it does for wrong keys and nonsense only."""
        self._read_monitor()
        self._lose(_WRONG_KEYS if self._refused else "ended the connection for good", route)

    def _read_monitor(self) -> None:
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self._send(b"", Head(Kind.HELLO, self.name))  # again: the server may be another one now
            elif event & _REFUSED:
                self._refused = True
                self._lose(_WRONG_KEYS, b"")
            else:
                self._lose("closed the connection", b"")

    def _farewell(self) -> None:
        with suppress(zmq.Again):  # refused: nobody to say it to
            self._socket.send_multipart(pack(self._security.ticket, Head(Kind.BYE, self.name)), zmq.NOBLOCK)
        self._socket.disable_monitor()
