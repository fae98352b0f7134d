"""Endpoints that come, go, die and come back."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, Future

import pytest

from nexrl.errors import CommError

LONG = 30.0


def asked_and_never_answered(endpoint, method="hang"):
    """Expose a method that defers for ever; an event for its first request, and the future."""
    asked, never = threading.Event(), Future()

    def handler(caller, request):
        asked.set()
        return never

    endpoint.expose(method, None, handler)
    return asked, never


def connected(server, client):
    server.expose(f"hello {client.name}", None, lambda caller, request: None)
    client.call(f"hello {client.name}", None, None, timeout=LONG)
    return client


def test_closing_the_server_fails_calls_in_both_directions(sockets):
    server = sockets.server()
    client = connected(server, sockets.client(server))
    asked_here, _ = asked_and_never_answered(server)
    asked_there, deferred = asked_and_never_answered(client)
    up = client.call_async("hang", None, None, timeout=LONG)
    down = server.call("rollout-0", "hang", None, None, timeout=LONG)
    assert asked_here.wait(LONG)
    assert asked_there.wait(LONG)
    server.close()
    with pytest.raises(CommError, match=r"rollout-0: controller was closed \(hang was not answered\)"):
        down.result(LONG)
    with pytest.raises(CommError, match=r"closed the connection \(hang was not answered\)"):
        up.result(LONG)
    with pytest.raises(CancelledError):
        deferred.result(LONG)


def test_closing_a_client_fails_calls_in_both_directions_and_takes_its_name_off(sockets):
    server = sockets.server()
    client = connected(server, sockets.client(server))
    asked_here, deferred = asked_and_never_answered(server)
    asked_there, _ = asked_and_never_answered(client)
    up = client.call_async("hang", None, None, timeout=LONG)
    down = server.call("rollout-0", "hang", None, None, timeout=LONG)
    assert asked_here.wait(LONG)
    assert asked_there.wait(LONG)
    client.close()
    with pytest.raises(CommError, match="rollout-0 was closed"):
        up.result(LONG)
    with pytest.raises(CommError, match=r"rollout-0: closed its connection \(hang was not answered\)"):
        down.result(LONG)
    with pytest.raises(CancelledError):
        deferred.result(LONG)
    assert server.peers() == []


def test_closed_endpoints_refuse_calls_and_close_again(sockets):
    server = sockets.server()
    client = connected(server, sockets.client(server))
    server.close()
    server.close()
    with pytest.raises(CommError, match=r"rollout-0: controller is closed \(train was not sent\)"):
        server.call("rollout-0", "train", None, None, timeout=LONG).result(LONG)
    client.close()
    client.close()
    with pytest.raises(CommError, match=r"rollout-0 is closed \(beat was not sent\)"):
        client.call("beat", None, None, timeout=LONG)


def test_calling_one_who_is_not_there(sockets):
    with pytest.raises(CommError, match=r"trainer-9: not connected to controller \(train was not sent\)"):
        sockets.server().call("trainer-9", "train", None, None, timeout=LONG).result(LONG)


def test_a_hanging_handler_does_not_hold_up_close(sockets):
    server, release, asked = sockets.server(), threading.Event(), threading.Event()

    def hang(caller, request):
        asked.set()
        release.wait(LONG)

    server.expose("hang", None, hang)
    call = sockets.client(server).call_async("hang", None, None, timeout=LONG)
    assert asked.wait(LONG)
    server.close()
    with pytest.raises(CommError, match="closed the connection"):
        call.result(LONG)
    release.set()


def test_a_newer_client_takes_the_name_over(sockets):
    server = sockets.server()
    older = connected(server, sockets.client(server, name="trainer-0"))
    asked, _ = asked_and_never_answered(older)
    pending = server.call("trainer-0", "hang", None, None, timeout=LONG)
    assert asked.wait(LONG)
    newer = sockets.client(server, name="trainer-0")
    newer.expose("hang", None, lambda caller, request: None)
    newer.call("hello trainer-0", None, None, timeout=LONG)
    with pytest.raises(CommError, match="trainer-0: was replaced by a newer client of that name"):
        pending.result(LONG)
    assert server.call("trainer-0", "hang", None, None, timeout=LONG).result(LONG) is None
    with pytest.raises(CommError, match="a newer client has taken the name trainer-0"):
        older.call("hello trainer-0", None, None, timeout=LONG)
    older.close()
    assert server.call("trainer-0", "hang", None, None, timeout=LONG).result(LONG) is None
    assert server.peers() == ["trainer-0"]


def test_a_client_finds_a_restarted_server_and_is_known_to_it(sockets):
    first = sockets.server()
    client = connected(first, sockets.client(first))
    client.expose("train", None, lambda caller, request: "trained")
    first.close()
    second = sockets.server(bind=first.address)
    connected(second, client)
    assert second.call("rollout-0", "train", None, str, timeout=LONG).result(LONG) == "trained"


def test_a_client_may_be_there_before_its_server(sockets):
    address = (gone := sockets.server()).address
    gone.close()
    client = sockets.client(address)
    call = client.call_async("echo", 5, int, timeout=LONG)
    sockets.server(bind=address)
    with pytest.raises(CommError, match="controller has no method 'echo'"):
        call.result(LONG)


CLIENT = """
import sys
from nexrl.comm import CurveClient, RpcClient, RunKeys, TicketClient
from pathlib import Path
kind, address, secret = sys.argv[1:]
security = CurveClient(RunKeys.load(Path(secret))) if kind == "curve" else TicketClient(bytes.fromhex(secret))
client = RpcClient(address, security=security, name="trainer-0")
client.expose("hang", None, lambda caller, request: __import__("time").sleep(1000))
client.call("up", None, None, timeout=30)
client.call("up", None, None, timeout=1000)
"""


@pytest.mark.processes
def test_a_killed_client_fails_its_calls_long_before_their_deadline(sockets, tmp_path):
    server, up, again, lease = sockets.server(), threading.Event(), threading.Event(), Future()

    def come_up(caller, request):
        if not up.is_set():
            return up.set()
        again.set()
        return lease

    server.expose("up", None, come_up)
    sockets.keys.save(tmp_path / "secrets.json")
    secret = str(tmp_path / "secrets.json") if sockets.kind == "curve" else sockets.ticket.hex()
    with subprocess.Popen([sys.executable, "-c", CLIENT, sockets.kind, server.address, secret]) as process:
        assert up.wait(LONG)
        assert again.wait(LONG)
        call = server.call("trainer-0", "hang", None, None, timeout=1000)
        process.send_signal(signal.SIGKILL)
        with pytest.raises(CommError, match=r"trainer-0: lost its connection \(hang was not answered\)"):
            call.result(LONG)
        with pytest.raises(CancelledError):
            lease.result(LONG)
    assert server.peers() == []


@pytest.mark.processes
def test_a_process_ends_although_a_handler_hangs_and_nothing_was_closed():
    code = """
import threading
from nexrl.comm import RpcClient, RpcServer, TicketClient, TicketServer
server = RpcServer(bind="tcp://127.0.0.1:0", security=TicketServer(bytes(32)), name="controller")
asked = threading.Event()
def hang(caller, request):
    asked.set()
    threading.Event().wait()
server.expose("hang", None, hang)
client = RpcClient(server.address, security=TicketClient(bytes(32)), name="rollout-0")
client.call_async("hang", None, None, timeout=1000)
assert asked.wait(30)
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=True)
    assert (ended.stdout, ended.stderr) == ("done\n", "")
