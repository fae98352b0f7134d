"""Strangers and nonsense: nothing comes back, nothing breaks."""

import socket as tcp
from contextlib import contextmanager

import msgspec
import pytest
import zmq

from nexrl.comm import (
    CurveClient,
    CurveServer,
    RpcClient,
    RpcServer,
    RunKeys,
    TicketClient,
    TicketServer,
    encode,
    new_ticket,
)
from nexrl.comm.wire import Head, Kind, pack
from nexrl.errors import CommError

LONG = 30.0


@contextmanager
def serving(security):
    server = RpcServer(bind="tcp://127.0.0.1:0", security=security, name="controller")
    server.calls = []
    server.expose("echo", int, lambda caller, n: server.calls.append(n) or n)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def calling(server, security, name="rollout-0"):
    client = RpcClient(server.address, security=security, name=name)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def raw_dealer(server, security=None):
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    if security is not None:
        security.secure(socket)
    socket.connect(server.address)
    try:
        yield socket
    finally:
        socket.close()
        context.term()


def request(n, ticket=b""):
    return pack(ticket, Head(Kind.REQUEST, "rollout-0", 1, "echo"), encode(n))


def test_curve_admits_the_runs_clients_and_nobody_else():
    keys, others = RunKeys.generate(), RunKeys.generate()
    # another run's client that somehow knows this run's server key: only ZAP can tell
    forged = RunKeys(controller=keys.controller, clients=others.clients, http_token="")
    with serving(CurveServer(keys)) as server:
        for security in (CurveClient(others), CurveClient(forged)):
            with calling(server, security) as client, pytest.raises(CommError, match=r"refused|closed"):
                client.call("echo", 1, int, timeout=1000)
        assert server.dropped >= 1
        with calling(server, CurveClient(keys)) as client:
            assert client.call("echo", 2, int, timeout=LONG) == 2
        assert server.calls == [2]


def test_a_refused_key_is_said_at_once():
    keys = RunKeys.generate()
    forged = RunKeys(controller=keys.controller, clients=RunKeys.generate().clients, http_token="")
    with (
        serving(CurveServer(keys)) as server,
        calling(server, CurveClient(forged)) as client,
    ):
        for _ in range(3):  # the later ones find the connection given up
            with pytest.raises(CommError, match="refused the connection: not the keys of its run"):
                client.call("echo", 1, int, timeout=1000)


def test_a_plain_socket_gets_nothing_from_a_curve_server():
    keys = RunKeys.generate()
    with serving(CurveServer(keys)) as server:
        with raw_dealer(server) as stranger:
            stranger.send_multipart(request(1))
            assert not stranger.poll(500)
        with calling(server, CurveClient(keys)) as client:
            assert client.call("echo", 2, int, timeout=LONG) == 2
        assert server.calls == [2]


def test_a_client_does_not_talk_to_a_server_without_the_runs_key():
    keys, others = RunKeys.generate(), RunKeys.generate()
    with (
        serving(CurveServer(others)) as server,
        calling(server, CurveClient(keys)) as client,
        pytest.raises(CommError, match=r"refused|closed"),
    ):
        client.call("echo", 1, int, timeout=1000)


def test_runs_beside_each_other_in_one_process_keep_apart():
    one, two = RunKeys.generate(), RunKeys.generate()
    with serving(CurveServer(one)) as first, serving(CurveServer(two)) as second:
        with calling(first, CurveClient(one)) as client:
            assert client.call("echo", 1, int, timeout=LONG) == 1
        with calling(second, CurveClient(two)) as client:
            assert client.call("echo", 2, int, timeout=LONG) == 2
        assert (first.calls, second.calls) == ([1], [2])
        assert (first.dropped, second.dropped) == (0, 0)


@pytest.mark.parametrize("shown", [b"", b"x", bytes(32), bytes(33)], ids=["none", "short", "wrong", "long"])
def test_a_message_without_the_ticket_is_dropped_counted_and_never_answered(shown):
    ticket = new_ticket()
    with serving(TicketServer(ticket)) as server:
        with raw_dealer(server) as stranger:
            for n in range(3):
                stranger.send_multipart(request(n, shown))
            assert not stranger.poll(300)
        with calling(server, TicketClient(ticket)) as client:
            assert client.call("echo", 9, int, timeout=LONG) == 9
        assert server.calls == [9]
        assert server.dropped == 3


def test_a_stranger_can_not_take_a_clients_name_or_read_its_answers():
    ticket = new_ticket()
    with serving(TicketServer(ticket)) as server, calling(server, TicketClient(ticket), "trainer-0") as client:
        client.expose("train", None, lambda caller, request: "trained")
        client.call("echo", 1, int, timeout=LONG)
        with raw_dealer(server) as stranger:
            stranger.send_multipart(pack(bytes(32), Head(Kind.HELLO, "trainer-0")))
            assert not stranger.poll(300)
            assert server.call("trainer-0", "train", None, str, timeout=LONG).result(LONG) == "trained"
            assert not stranger.poll(100)


def test_a_client_believes_no_answer_without_the_ticket():
    context, ticket = zmq.Context(), new_ticket()
    impostor = context.socket(zmq.ROUTER)
    impostor.linger = 0
    port = impostor.bind_to_random_port("tcp://127.0.0.1")
    client = RpcClient(f"tcp://127.0.0.1:{port}", security=TicketClient(ticket), name="rollout-0")
    try:
        call = client.call_async("echo", 1, int, timeout=2)
        while len(message := impostor.recv_multipart()) < 4:  # the HELLO comes first
            pass
        impostor.send_multipart([message[0], bytes(32), msgspec.msgpack.encode(Head(Kind.REPLY, "", 1)), b"\x05"])
        with pytest.raises(CommError, match="no answer"):
            call.result(LONG)
        assert client.dropped == 1
    finally:
        client.close()
        impostor.close()
        context.term()


GARBAGE = [
    [b""],
    [b"\xc1"],
    [b"x" * 5000],
    [b"\x91" * 4000],
    [msgspec.msgpack.encode([99, "rollout-0", 1, "echo"]), b"\x01"],
    [msgspec.msgpack.encode([3, 7, 1, "echo"]), b"\x01"],
    [msgspec.msgpack.encode([3])],
    [msgspec.msgpack.encode({"kind": 3})],
    [msgspec.msgpack.encode([3, "a\x00b", -1, ""])],
    [msgspec.msgpack.encode([3, "rollout-1", 1, "echo"])],
    [msgspec.msgpack.encode([3, "rollout-1", 2, "echo"]), b"\xdd\xff\xff\xff\xff"],
    [msgspec.msgpack.encode([3, "rollout-1", 3, "echo"]), b"\x01", b"surplus", b"frames"],
    [msgspec.msgpack.encode([4, "rollout-1", 1, "echo"]), b"\x01"],
    [msgspec.msgpack.encode([5, "rollout-1", 1, "echo"])],
    [msgspec.msgpack.encode([6, "rollout-1", 77, "echo"])],
    [msgspec.msgpack.encode([2, "controller", 0, ""])],
]


@pytest.mark.parametrize("kind", ["curve", "ticket"])
def test_garbage_from_one_who_has_the_secret_hurts_nobody(kind):
    keys, ticket = RunKeys.generate(), new_ticket()
    curve = kind == "curve"
    prefix = [] if curve else [ticket]
    server_side, client_side = (
        (CurveServer(keys), CurveClient(keys)) if curve else (TicketServer(ticket), TicketClient(ticket))
    )
    with serving(server_side) as server, calling(server, client_side) as client:
        assert client.call("echo", 1, int, timeout=LONG) == 1
        with raw_dealer(server, client_side) as mad:
            for frames in GARBAGE:
                mad.send_multipart(prefix + frames)
            mad.send_multipart(prefix + request(2))  # under another's name: refused, and proof that all came through
            while b"newer client has taken the name" not in mad.recv_multipart()[-1]:
                pass
        assert client.call("echo", 3, int, timeout=LONG) == 3
        assert server.calls == [1, 3]
        assert server.dropped == 8


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" + b"\x00" * 8 + b"\x7f" + b"\xff" * 200, b"\x00" * 9]
)
@pytest.mark.parametrize("kind", ["curve", "ticket"])
def test_bytes_that_are_not_zeromq_hurt_nobody(kind, data):
    keys, ticket = RunKeys.generate(), new_ticket()
    server_side, client_side = (
        (CurveServer(keys), CurveClient(keys)) if kind == "curve" else (TicketServer(ticket), TicketClient(ticket))
    )
    with serving(server_side) as server, calling(server, client_side) as client:
        host, port = server.address.removeprefix("tcp://").split(":")
        with tcp.create_connection((host, int(port))) as raw:
            raw.sendall(data)
            assert client.call("echo", 1, int, timeout=LONG) == 1


def test_a_frame_that_announces_more_than_the_limit_ends_its_connection_only():
    """ZMTP 3.0, NULL handshake, then a long frame of 2^40 bytes: the server must hang up rather than wait for it."""
    ticket = new_ticket()
    with serving(TicketServer(ticket)) as server, calling(server, TicketClient(ticket)) as client:
        host, port = server.address.removeprefix("tcp://").split(":")
        with tcp.create_connection((host, int(port)), timeout=LONG) as raw:
            greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31)
            ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
            raw.sendall(greeting + bytes([4, len(ready)]) + ready)
            raw.sendall(b"\x02" + (1 << 40).to_bytes(8, "big"))
            while raw.recv(4096):
                pass  # ends when the server closes the connection
        assert client.call("echo", 1, int, timeout=LONG) == 1


def test_a_port_that_is_taken_is_named():
    with (
        serving(TicketServer(new_ticket())) as server,
        pytest.raises(CommError, match=rf"recorder-0: cannot bind {server.address}: Address already in use"),
    ):
        RpcServer(bind=server.address, security=TicketServer(new_ticket()), name="recorder-0")


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_ticket_has_32_bytes(size):
    with pytest.raises(ValueError, match=f"ticket: found {size} bytes, needed 32"):
        TicketServer(bytes(size))


def test_security_shows_no_secret():
    keys, ticket = RunKeys.generate(), new_ticket()
    shown = repr([CurveServer(keys), CurveClient(keys), TicketServer(ticket), TicketClient(ticket)])
    for secret in (keys.controller.secret, keys.clients.secret, keys.http_token, repr(ticket)):
        assert secret not in shown
