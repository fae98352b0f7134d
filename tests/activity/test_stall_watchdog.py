import threading
from queue import SimpleQueue

import pytest

from nexrl.activity import Heartbeat, StallWatchdog
from nexrl.errors import CommError


def test_a_stall_is_reported_once_with_its_diagnosis():
    stalls = SimpleQueue()
    dog = StallWatchdog(0.05, describe=lambda: "group g1, leased by rollout-0", on_stall=stalls.put)
    dog.start()
    message = str(stalls.get(timeout=30))
    assert "the last to move was the start" in message
    assert "group g1, leased by rollout-0" in message
    dog.close()
    assert stalls.empty()


def test_progress_puts_the_stall_off():
    stalls = SimpleQueue()
    clock = [0.0]
    dog = StallWatchdog(1000.0, describe=lambda: "nothing", on_stall=stalls.put, now=lambda: clock[0])
    clock[0] = 999.0
    dog.progressed("step 3")
    clock[0] = 1998.0
    dog.start()  # counts from here
    dog.close()
    assert stalls.empty()


def test_the_last_progress_is_named():
    stalls = SimpleQueue()
    clock = [0.0]

    def now():
        clock[0] += 1.0  # each look at the clock is a second later: the deadline comes without waiting
        return clock[0]

    dog = StallWatchdog(0.5, describe=lambda: "x", on_stall=stalls.put, now=now)
    dog.progressed("step 3")
    dog.start()
    assert "nothing moved for 1 s, the last to move was the start" in str(stalls.get(timeout=30))


@pytest.mark.parametrize("timeout", [0.02, 1000.0])
def test_a_closed_watchdog_is_silent(timeout):
    stalls = SimpleQueue()
    dog = StallWatchdog(timeout, describe=lambda: "x", on_stall=stalls.put)
    dog.close()
    dog.start()
    assert stalls.empty()


def test_a_diagnosis_that_fails_does_not_hide_the_stall():
    def describe():
        raise ValueError("no pool yet")

    stalls = SimpleQueue()
    StallWatchdog(0.01, describe=describe, on_stall=stalls.put).start()
    assert "the diagnosis failed with ValueError: no pool yet" in str(stalls.get(timeout=30))


def test_a_diagnosis_that_hangs_does_not_hide_the_stall():
    release = threading.Event()
    stalls = SimpleQueue()
    dog = StallWatchdog(0.01, describe=lambda: str(release.wait(30)), on_stall=stalls.put, diagnosis_timeout=0.05)
    dog.start()
    assert "the diagnosis did not come" in str(stalls.get(timeout=30))
    release.set()


def test_heartbeats_go_on_until_closed():
    beats = SimpleQueue()
    heart = Heartbeat(0.001, send=lambda: beats.put(1), on_failure=beats.put)
    heart.start()
    assert [beats.get(timeout=30) for _ in range(5)] == [1] * 5
    heart.close()
    while not beats.empty():
        beats.get()
    assert beats.empty()
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_closing_does_not_wait_for_the_interval():
    sent = threading.Event()
    heart = Heartbeat(100_000.0, send=sent.set, on_failure=lambda error: None)
    heart.start()
    assert sent.wait(30)
    heart.close()  # the test's own timeout ends it otherwise


def test_a_heartbeat_that_cannot_be_sent_tells_the_role():
    failures = SimpleQueue()

    def send():
        raise CommError("controller did not answer in 2 s")

    heart = Heartbeat(0.001, send=send, on_failure=failures.put)
    heart.start()
    assert "controller did not answer" in str(failures.get(timeout=30))
    heart.close()
    assert failures.empty()
