"""Who may speak on a socket: CURVE keys (commands; bulk too with `comm.encrypt: all`), or a ticket on every message.

CURVE proves and encrypts; a server admits the run's one client key, over ZAP (ZeroMQ RFC 27). A ticket is a random
secret that a client obtained over a CURVE socket: it keeps strangers out of a bulk socket at no cost in speed, and does
not hide what is sent.
"""

import hmac
import secrets
from dataclasses import dataclass, field
from typing import Protocol

import zmq
from zmq.utils import z85

from nexrl.comm.keys import RunKeys

TICKET_BYTES = 32


class Security(Protocol):
    """How one endpoint proves itself, and what it asks of its peers."""

    @property
    def ticket(self) -> bytes:
        """First frame of every message in both directions; empty = no such frame."""
        ...

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the socket's options, before it is bound or connected."""
        ...

    def admits(self, client_key: bytes) -> bool:
        """Whether a client that proved to own this CURVE key (32 bytes) may connect."""
        ...


@dataclass(frozen=True)
class CurveServer:
    """Encrypted; admits the clients of the same run."""

    keys: RunKeys

    @property
    def ticket(self) -> bytes:
        """None: the connection is the proof."""
        return b""

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the run's server key; libzmq then asks ZAP about every client."""
        socket.curve_server = True
        socket.curve_secretkey = self.keys.controller.secret.encode()
        socket.zap_domain = b"nexrl"

    def admits(self, client_key: bytes) -> bool:
        """Only the run's client key."""
        return hmac.compare_digest(client_key, z85.decode(self.keys.clients.public))


@dataclass(frozen=True)
class CurveClient:
    """Encrypted; talks to servers of the same run only."""

    keys: RunKeys

    @property
    def ticket(self) -> bytes:
        """None: the connection is the proof."""
        return b""

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Set the run's client key, and the server key that the other end must own."""
        socket.curve_secretkey = self.keys.clients.secret.encode()
        socket.curve_publickey = self.keys.clients.public.encode()
        socket.curve_serverkey = self.keys.controller.public.encode()

    def admits(self, client_key: bytes) -> bool:
        """None: clients are not connected to."""
        return False


@dataclass(frozen=True)
class _Ticket:
    ticket: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.ticket) != TICKET_BYTES:
            raise ValueError(f"ticket: found {len(self.ticket)} bytes, needed {TICKET_BYTES}")

    def secure(self, socket: "zmq.Socket[bytes]") -> None:
        """Nothing to set: the socket is plain."""

    def admits(self, client_key: bytes) -> bool:
        """A plain socket never asks."""
        return False


class TicketServer(_Ticket):
    """Plain; drops and counts every message without this ticket."""


class TicketClient(_Ticket):
    """Plain; shows this ticket with every message, and takes answers that show it."""


def new_ticket() -> bytes:
    """A ticket for one bulk socket."""
    return secrets.token_bytes(TICKET_BYTES)
