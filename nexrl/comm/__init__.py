"""Records between processes: a codec without pickle, the run's keys, calls in both directions, who is where."""

from nexrl.comm.client import RpcClient
from nexrl.comm.codec import decode, encode
from nexrl.comm.directory import Directory, Registration
from nexrl.comm.keys import KeyPair, RunKeys
from nexrl.comm.rendezvous import ControllerAddress, announce, find_controller
from nexrl.comm.requests import Caller
from nexrl.comm.security import CurveClient, CurveServer, Security, TicketClient, TicketServer, new_ticket
from nexrl.comm.server import RpcServer

__all__ = [
    "Caller",
    "ControllerAddress",
    "CurveClient",
    "CurveServer",
    "Directory",
    "KeyPair",
    "Registration",
    "RpcClient",
    "RpcServer",
    "RunKeys",
    "Security",
    "TicketClient",
    "TicketServer",
    "announce",
    "decode",
    "encode",
    "find_controller",
    "new_ticket",
]
