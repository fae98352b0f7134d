"""Calls in both directions, whatever secures the socket."""

import threading
from concurrent.futures import CancelledError, Future, wait

import msgspec
import numpy as np
import pytest

from nexrl.errors import CommError, ConfigError, RoleError, WeightSyncError
from nexrl.types import LeaseRequest

LONG = 30.0
"""Seconds: a deadline that no test should meet."""


class Sum(msgspec.Struct):
    values: np.ndarray
    scale: float = 1.0


def add(caller, request):
    return float(request.values.sum()) * request.scale


def test_a_call_takes_a_record_and_gives_a_record(sockets):
    server = sockets.server()
    server.expose("sum", Sum, add)
    server.expose("who", None, lambda caller, request: caller.name)
    server.expose("forget", None, lambda caller, request: None)
    client = sockets.client(server, name="trainer-3")
    assert client.call("sum", Sum(np.arange(5), 2.0), float, timeout=LONG) == 20.0
    assert client.call("who", None, str, timeout=LONG) == "trainer-3"
    assert client.call("forget", None, None, timeout=LONG) is None
    assert client.call_async("sum", Sum(np.ones(3)), float, timeout=LONG).result(LONG) == 3.0


def test_large_arrays_pass_both_ways(sockets):
    server = sockets.server()
    server.expose("double", dict[str, np.ndarray], lambda caller, request: {"y": request["x"] * 2})
    client = sockets.client(server)
    sent = np.arange(3_000_000, dtype=np.int32)
    np.testing.assert_array_equal(
        client.call("double", {"x": sent}, dict[str, np.ndarray], timeout=LONG)["y"], sent * 2
    )


def test_the_server_calls_a_client_by_name(sockets):
    server, ready = sockets.server(), threading.Event()
    server.expose("ready", None, lambda caller, request: ready.set())
    for rank in range(2):
        client = sockets.client(server, name=f"trainer-{rank}")
        client.expose("train", int, lambda caller, step, rank=rank: [caller.name, rank, step])
        client.call("ready", None, None, timeout=LONG)
    assert server.peers() == ["trainer-0", "trainer-1"]
    answers = [server.call(name, "train", 7, list, timeout=LONG) for name in server.peers()]
    assert [answer.result(LONG) for answer in answers] == [["controller", 0, 7], ["controller", 1, 7]]


def test_a_handler_may_call_back_its_caller(sockets):
    server = sockets.server(workers=1)
    server.expose("outer", int, lambda caller, n: server.call(caller.name, "inner", n, int, timeout=LONG).result() + 1)
    client = sockets.client(server, workers=1)
    client.expose("inner", int, lambda caller, n: n * 10)
    assert client.call("outer", 4, int, timeout=LONG) == 41


@pytest.mark.parametrize("kind", [WeightSyncError, RoleError, ConfigError, CommError])
def test_our_errors_are_raised_at_the_caller(sockets, kind):
    def refuse(caller, request):
        raise kind(f"said of {request}")

    server = sockets.server()
    server.expose("refuse", str, refuse)
    with pytest.raises(kind, match=r"^said of it$") as raised:
        sockets.client(server).call("refuse", "it", None, timeout=LONG)
    assert type(raised.value) is kind


def test_an_error_class_of_ones_own_arrives_as_its_base(sockets):
    class OwnError(RoleError):
        pass

    def refuse(caller, request):
        raise OwnError("unusual \udcff name")

    server = sockets.server()
    server.expose("refuse", None, refuse)
    with pytest.raises(RoleError, match=r"unusual \? name"):
        sockets.client(server).call("refuse", None, None, timeout=LONG)


def test_any_other_error_is_logged_there_and_named_here(sockets, caplog):
    server = sockets.server()
    server.expose("divide", int, lambda caller, n: 1 // n)
    with pytest.raises(CommError, match=r"controller: divide raised ZeroDivisionError"):
        sockets.client(server).call("divide", 0, int, timeout=LONG)
    assert "divide for rollout-0 raised" in caplog.text
    assert "Traceback" in caplog.text


def test_unknown_method_bad_request_and_bad_reply_are_named(sockets):
    server = sockets.server()
    server.expose("lease", LeaseRequest, lambda caller, request: request.limit)
    server.expose("unsendable", None, lambda caller, request: object())
    client = sockets.client(server)
    with pytest.raises(CommError, match="controller has no method 'leese'"):
        client.call("leese", None, None, timeout=LONG)
    with pytest.raises(CommError, match="controller: request lease: cannot read a LeaseRequest"):
        client.call("lease", {"limit": "many"}, int, timeout=LONG)
    with pytest.raises(CommError, match="answer to lease: cannot read a str"):
        client.call("lease", LeaseRequest(3), str, timeout=LONG)
    with pytest.raises(CommError, match=r"cannot send a builtins\.object"):
        client.call("unsendable", None, None, timeout=LONG)
    assert client.call("lease", LeaseRequest(3), int, timeout=LONG) == 3


def test_a_method_has_one_handler(sockets):
    server = sockets.server()
    server.expose("beat", None, lambda caller, request: None)
    with pytest.raises(ValueError, match="beat has a handler"):
        server.expose("beat", None, lambda caller, request: None)


def test_a_deadline_names_peer_method_and_seconds_and_cancels_the_deferred_reply(sockets):
    server, never = sockets.server(), Future()
    server.expose("lease", None, lambda caller, request: never)
    client = sockets.client(server)
    with pytest.raises(CommError, match=rf"{server.address}: no answer to lease within 0.2 s"):
        client.call("lease", None, int, timeout=0.2)
    with pytest.raises(CancelledError):
        never.result(LONG)


def test_cancelling_a_call_cancels_its_deferred_reply(sockets):
    server, never, asked = sockets.server(), Future(), threading.Event()

    def lease(caller, request):
        asked.set()
        return never

    server.expose("lease", None, lease)
    call = sockets.client(server).call_async("lease", None, int, timeout=LONG)
    assert asked.wait(LONG)
    assert call.cancel()
    with pytest.raises(CancelledError):
        never.result(LONG)


def test_a_late_answer_disturbs_nobody(sockets):
    server, release = sockets.server(), threading.Event()
    server.expose("slow", None, lambda caller, request: release.wait(LONG))
    server.expose("echo", int, lambda caller, n: n)
    client = sockets.client(server)
    with pytest.raises(CommError, match="no answer to slow"):
        client.call("slow", None, bool, timeout=0.1)
    release.set()
    assert [client.call("echo", n, int, timeout=LONG) for n in range(20)] == list(range(20))


def test_deferred_replies_hold_no_thread(sockets):
    server, waiting, all_wait = sockets.server(workers=1), [], threading.Event()

    def lease(caller, n):
        future = Future()
        waiting.append((n, future))
        if len(waiting) == 20:
            all_wait.set()
        return future

    server.expose("lease", int, lease)
    client = sockets.client(server)
    calls = [client.call_async("lease", n, int, timeout=LONG) for n in range(20)]
    assert all_wait.wait(LONG)
    assert not any(call.done() for call in calls)
    for n, future in reversed(waiting):
        if n == 13:
            future.set_exception(RoleError("nobody left"))
        else:
            future.set_result(n * n)
    assert not wait(calls, LONG).not_done
    assert [call.result() for call in calls if call is not calls[13]] == [n * n for n in range(20) if n != 13]
    with pytest.raises(RoleError, match="nobody left"):
        calls[13].result()


def test_fifty_clients_at_once(sockets):
    server = sockets.server()
    server.expose("echo", dict, lambda caller, request: request | {"caller": caller.name})
    clients = [sockets.client(server, name=f"rollout-{rank}") for rank in range(50)]
    calls = {
        (client.name, n): client.call_async("echo", {"n": n, "x": np.full(100, n)}, dict, timeout=LONG)
        for n in range(10)
        for client in clients
    }
    for (name, n), call in calls.items():
        reply = call.result(LONG)
        assert (reply["caller"], reply["n"], set(reply["x"].tolist())) == (name, n, {n})
    assert len(server.peers()) == 50


def test_many_threads_share_one_client(sockets):
    server = sockets.server()
    server.expose("echo", int, lambda caller, n: n)
    client, results = sockets.client(server), {}

    def work(thread):
        results[thread] = [client.call("echo", thread * 1000 + n, int, timeout=LONG) for n in range(50)]

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert results == {thread: [thread * 1000 + n for n in range(50)] for thread in range(8)}


def test_a_callback_may_not_wait_for_another_call(sockets):
    server, seen = sockets.server(), Future()
    server.expose("echo", int, lambda caller, n: n)
    client = sockets.client(server)

    def nested(call):
        try:
            client.call("echo", 2, int, timeout=LONG)
        except RuntimeError as error:
            seen.set_result(str(error))

    client.call_async("echo", 1, int, timeout=LONG).add_done_callback(nested)
    assert "must not wait" in seen.result(LONG)
