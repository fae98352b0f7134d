import threading
import time

import pytest

from nexrl.comm import Directory, Registration, decode, encode
from nexrl.errors import RoleError

LONG = 30.0


def entry(role, rank, pid=1):
    return Registration(
        role=role,
        rank=rank,
        group="rollout",
        host="here",
        pid=pid,
        endpoints={"bulk": f"tcp://127.0.0.1:{5000 + rank}"},
        log=f"logs/1/{role}-{rank}.log",
    )


def test_waiting_returns_the_ranks_in_order_whenever_they_came():
    directory = Directory()
    late = threading.Thread(target=lambda: [directory.register(entry("trainer", rank)) for rank in (2, 0)])
    directory.register(entry("trainer", 1))
    directory.register(entry("rollout", 0))
    late.start()
    assert [found.rank for found in directory.wait_for("trainer", 3, LONG)] == [0, 1, 2]
    late.join()
    assert [found.name for found in directory.of("rollout")] == ["rollout-0"]


def test_missing_ranks_are_named():
    directory = Directory()
    directory.register(entry("trainer", 1))
    with pytest.raises(RoleError, match=r"^trainer-0, trainer-2: not registered within 0.1 s; 1 of 3 are$"):
        directory.wait_for("trainer", 3, 0.1)


def test_a_death_ends_the_wait():
    checks = []

    def alive():
        checks.append(1)
        if len(checks) == 2:
            raise RoleError("inference-0 died")

    with pytest.raises(RoleError, match="inference-0 died"):
        Directory().wait_for("trainer", 1, LONG, alive)


def test_nothing_to_wait_for():
    assert Directory().wait_for("inference", 0, LONG) == []
    assert Directory().discover("inference", 0).result(LONG) == []


def test_a_discovery_is_answered_when_the_last_rank_registers():
    directory = Directory()
    asked = directory.discover("inference", 2)
    forgotten = directory.discover("inference", 2)
    forgotten.cancel()
    directory.register(entry("inference", 1))
    assert not asked.done()
    directory.register(entry("inference", 0))
    assert [found.rank for found in asked.result(LONG)] == [0, 1]
    assert [found.rank for found in directory.discover("inference", 2).result(LONG)] == [0, 1]


def test_a_restarted_process_replaces_its_entry():
    directory = Directory()
    directory.register(entry("rollout", 0, pid=1))
    directory.register(entry("rollout", 0, pid=2))
    assert [found.pid for found in directory.of("rollout")] == [2]


def test_who_beats_is_not_overdue(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    directory = Directory()
    for rank in range(3):
        directory.register(entry("rollout", rank))
        now += 1
    now += 10
    directory.beat("rollout-1")
    assert [found.name for found in directory.overdue(5)] == ["rollout-0", "rollout-2"]
    directory.remove("rollout-0")
    assert [found.name for found in directory.overdue(5)] == ["rollout-2"]
    assert directory.overdue(60) == []


def test_a_stranger_has_no_heartbeat():
    directory = Directory()
    directory.register(entry("rollout", 0))
    with pytest.raises(RoleError, match="rollout-7: not registered; found rollout-0"):
        directory.beat("rollout-7")
    with pytest.raises(RoleError, match="rollout-7: not registered"):
        directory.remove("rollout-7")


def test_a_registration_crosses_the_wire():
    assert decode(encode([entry("trainer", 0)]), list[Registration]) == [entry("trainer", 0)]
