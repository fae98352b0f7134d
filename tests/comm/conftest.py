"""Real endpoints on loopback, under each kind of security."""

from contextlib import ExitStack

import pytest

from nexrl.comm import (
    CurveClient,
    CurveServer,
    RpcClient,
    RpcServer,
    RunKeys,
    TicketClient,
    TicketServer,
    new_ticket,
)


class Sockets:
    """Makes endpoints that share one kind of security, and closes them at the end of the test."""

    def __init__(self, kind, stack):
        self.kind, self.keys, self.ticket, self._stack = kind, RunKeys.generate(), new_ticket(), stack

    def server(self, **options):
        security = CurveServer(self.keys) if self.kind == "curve" else TicketServer(self.ticket)
        bind = options.pop("bind", "tcp://127.0.0.1:0")
        server = RpcServer(bind=bind, security=security, name="controller", **options)
        self._stack.callback(server.close)
        return server

    def client(self, server, name="rollout-0", **options):
        security = CurveClient(self.keys) if self.kind == "curve" else TicketClient(self.ticket)
        client = RpcClient(getattr(server, "address", server), security=security, name=name, **options)
        self._stack.callback(client.close)
        return client


@pytest.fixture(params=["curve", "ticket"])
def sockets(request):
    with ExitStack() as stack:
        yield Sockets(request.param, stack)
