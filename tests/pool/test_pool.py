"""The pool through its public face, one step at a time: admission, leases, samples, the end."""

import pytest
from pool_samples import admit_all, finish, header, names, task

from nexrl.config.schema import TrajectoryPoolConfig
from nexrl.errors import CommError, StallError
from nexrl.pool import Ledger, PoolClosed, TrajectoryPool


def test_the_way_of_a_batch(make, audit):
    pool = make()
    pool.admit(task("b", order=1))
    pool.admit(task("a", order=0))
    leased = pool.lease("w", 8).result(0)
    assert [each.group_id for each in leased] == ["b", "a"]
    finish(pool, "b", order=1)
    with pytest.raises(TimeoutError):
        pool.take_batch(0)
    finish(pool, "a", order=0)
    assert names(pool.take_batch(0)) == ["a", "b"]
    assert not pool.wait_for_slot(0)
    assert pool.mark_trained(["b", "a"]) == ("a", "b")
    assert not pool.wait_for_slot(0)
    for name in ("a", "b"):
        pool.ledger.trained(name, 1)
    pool.release(["a", "b"])
    assert pool.wait_for_slot(0)
    assert audit().is_settled


def test_admission_needs_a_slot_and_a_new_name(make):
    pool = make(slots=3)
    pool.admit(task("a"))
    with pytest.raises(ValueError, match="a is in the pool already"):
        pool.admit(task("a"))
    pool.admit(task("b"))
    pool.admit(task("c"))
    assert not pool.wait_for_slot(0)
    with pytest.raises(ValueError, match="all 3 slots"):
        pool.admit(task("d"))


def test_fewer_slots_than_a_batch_are_refused(make):
    with pytest.raises(ValueError, match="at least groups_per_batch = 2"):
        make(slots=1)


# -- leases


def test_a_lease_waits_for_work(make):
    pool = make()
    future = pool.lease("w", 1)
    assert not future.done()
    pool.admit(task("a"))
    assert [each.group_id for each in future.result(0)] == ["a"]


def test_workers_share_and_reissues_go_first_then_validation(make):
    pool = make(size=3, slots=3)
    waiting = pool.lease("other", 8)
    pool.enqueue(task("val0", is_val=True))
    assert [each.group_id for each in waiting.result(0)] == ["val0"]
    pool.admit(task("a"))
    [first] = pool.lease("w", 8).result(0)
    pool.admit(task("b"))
    pool.enqueue(task("val1", is_val=True))
    pool.fail("a", [1], 0, "InferenceError: gone")
    order = [each for _ in range(2) for each in pool.lease("w", 8).result(0)]
    assert [(each.group_id, each.run_ids, each.attempt) for each in order] == [
        ("a", (1,), 1),
        ("val1", (0, 1), 0),
        ("b", (0, 1), 0),
    ]
    assert first.group_id == "a"


def test_a_newer_lease_of_a_worker_ends_the_former(make):
    pool = make()
    former, newer = pool.lease("w", 1), pool.lease("w", 1)
    with pytest.raises(CommError, match="newer lease of w"):
        former.result(0)
    pool.admit(task("a"))
    assert len(newer.result(0)) == 1


def test_a_cancelled_lease_takes_no_work_with_it(make):
    pool = make()
    assert pool.lease("gone", 1).cancel()
    pool.admit(task("a"))
    assert len(pool.lease("w", 1).result(0)) == 1


def test_a_lease_needs_a_limit(make):
    with pytest.raises(ValueError, match="limit is 0"):
        make().lease("w", 0)


def test_a_lost_workers_samples_go_to_another(make):
    pool = make()
    pool.admit(task("a"))
    pool.lease("w", 8).result(0)
    assert pool.put("a", 0, 0, (header("a", 0),))
    pool.enqueue(task("val", is_val=True, samples=3))
    pool.lease("w", 8).result(0)
    pool.settle("val", [1])
    [val] = pool.worker_lost("w")
    assert (val.group_id, val.run_ids) == ("val", (0, 2))
    [again] = pool.lease("x", 8).result(0)
    assert (again.group_id, again.run_ids, again.attempt) == ("a", (1,), 1)
    assert not pool.put("a", 0, 1, (header("a", 1),))
    assert pool.put("a", 1, 1, (header("a", 1, attempt=1),))
    assert pool.metrics()["pool/late"] == 1


def test_a_lost_workers_waiting_lease_ends(make):
    pool = make()
    future = pool.lease("w", 1)
    pool.worker_lost("w")
    with pytest.raises(CommError, match="w was given up"):
        future.result(0)


# -- samples


def test_duplicates_and_strangers_are_counted_and_ignored(make):
    pool = make(size=1, slots=1)
    pool.admit(task("a"))
    assert pool.put("a", 0, 0, (header("a", 0),))
    assert not pool.put("a", 0, 0, (header("a", 0),))
    assert not pool.put("unknown", 0, 0, (header("unknown", 0),))
    assert not pool.put("a", 0, 9, (header("a", 9),))
    finish(pool, "a", runs=[1])
    assert not pool.put("a", 0, 1, (header("a", 1),))
    [group] = pool.take_batch(0)
    assert [each.run_id for each in group.headers] == [0, 1]
    metrics = pool.metrics()
    assert (metrics["pool/duplicate"], metrics["pool/late"]) == (2, 2)


def test_a_sample_may_have_several_sequences(make):
    pool = make(size=1, slots=1)
    pool.admit(task("a", samples=1))
    pool.put("a", 0, 0, tuple(header("a", 0, sequence=part) for part in (1, 0)))
    [group] = pool.take_batch(0)
    assert [each.sequence for each in group.headers] == [0, 1]


def test_a_sample_without_a_sequence_has_failed(make):
    pool = make()
    pool.admit(task("a"))
    pool.lease("w", 1).result(0)
    assert not pool.put("a", 0, 1, ())
    [again] = pool.lease("w", 1).result(0)
    assert (again.run_ids, again.attempt) == ((1,), 1)


def test_attempts_run_out_and_the_prompt_is_dropped(make, audit):
    pool = make(size=1, slots=1, max_attempts=2)
    pool.admit(task("a"))
    assert pool.put("a", 0, 0, (header("a", 0),))
    for attempt in range(2):
        pool.fail("a", [1], attempt, "TimeoutError: slow")
    assert pool.take_batch(0) == []
    assert audit().dropped == {"attempts used up": 1}
    assert pool.wait_for_slot(0)


def test_failures_of_one_attempt_come_one_by_one(make):
    pool = make(size=1, slots=1)
    pool.admit(task("a", samples=3))
    pool.lease("w", 1).result(0)
    pool.fail("a", [0], 0, "x")
    pool.fail("a", [0], 0, "x")
    pool.fail("a", [2], 0, "x")
    again = [pool.lease("w", 1).result(0)[0] for _ in range(2)]
    assert [(each.run_ids, each.attempt) for each in again] == [((0,), 1), ((2,), 1)]
    finish(pool, "a", runs=[1])
    finish(pool, "a", runs=[0, 2], attempt=1)
    assert names(pool.take_batch(0)) == ["a"]


@pytest.mark.parametrize(("fraction", "accepted"), [(0.5, True), (0.75, False)])
def test_partial_groups_by_policy(make, fraction, accepted):
    pool = make(size=1, slots=1, max_attempts=1, incomplete_groups="accept_partial", min_group_fraction=fraction)
    pool.admit(task("a", samples=4))
    finish(pool, "a", runs=[0, 2])
    pool.fail("a", [1, 3], 0, "x")
    batch = pool.take_batch(0)
    assert [each.run_id for group in batch for each in group.headers] == ([0, 2] if accepted else [])
    assert pool.metrics()["pool/partial"] == accepted


def test_a_group_without_any_sample_is_never_accepted(make):
    pool = make(size=1, slots=1, max_attempts=1, incomplete_groups="accept_partial", min_group_fraction=0.01)
    pool.admit(task("a"))
    pool.fail("a", [0, 1], 0, "x")
    assert pool.take_batch(0) == []


def test_a_group_times_out_from_its_first_lease(make, clock, audit):
    pool = make(size=1, slots=1, group_timeout=10)
    pool.admit(task("a"))
    clock.now = 100
    with pytest.raises(TimeoutError):
        pool.take_batch(0)
    pool.lease("w", 1).result(0)
    assert pool.put("a", 0, 0, (header("a", 0),))
    clock.now = 109.9
    with pytest.raises(TimeoutError):
        pool.take_batch(0)
    clock.now = 110
    assert pool.take_batch(0) == []
    assert audit().dropped == {"group timeout": 1}
    assert not pool.put("a", 0, 1, (header("a", 1),))


def test_a_queued_retry_of_an_ended_group_is_not_handed_out(make, clock):
    pool = make(size=1, slots=1, group_timeout=10)
    pool.admit(task("a"))
    pool.lease("w", 1).result(0)
    pool.fail("a", [0], 0, "x")
    pool.expire(10)
    assert not pool.lease("w", 1).done()
    assert pool.metrics()["pool/queued"] == 0


def test_take_batch_wakes_up_for_a_group_timeout(tmp_path):
    with Ledger(tmp_path, attempt=1) as ledger:
        config = TrajectoryPoolConfig(group_timeout=0.05)
        pool = TrajectoryPool(config, groups_per_batch=1, slots=1, ledger=ledger)
        pool.admit(task("a"))
        pool.lease("w", 1).result(0)
        assert pool.take_batch() == []


def test_a_missing_key_rises_from_put(make):
    pool = make(size=1, slots=1, key_list=("level",))
    pool.admit(task("a", samples=1))
    with pytest.raises(ValueError, match=r"trajectory_pool\.key_list: .*'level'"):
        pool.put("a", 0, 0, (header("a"),))


# -- the end, and what is told


def test_close_ends_every_wait_and_drops_what_waits(make, audit):
    pool = make(size=1, slots=2)
    admit_all(pool, "a", "b")
    finish(pool, "a")
    pool.take_batch(0)
    [pool.lease("w", 1).result(0) for _ in range(1)]
    waiting = pool.lease("w", 1)
    pool.close(StallError("nothing moves"))
    assert waiting.result(0) == []
    assert pool.lease("x", 1).result(0) == []
    assert not pool.wait_for_slot()
    assert not pool.admit(task("c"))
    with pytest.raises(StallError, match="nothing moves"):
        pool.take_batch()
    assert audit().open == ("a",)
    pool.mark_trained(["a"])
    pool.ledger.trained("a", 1)
    pool.write_off()
    assert audit().is_settled


def test_write_off_leaves_no_account_open(make, audit):
    pool = make(size=1, slots=2)
    admit_all(pool, "a", "b")
    finish(pool, "a")
    pool.take_batch(0)
    pool.close()
    with pytest.raises(PoolClosed):
        pool.take_batch()
    pool.write_off()
    assert audit().is_settled
    assert audit().dropped == {"run ended": 2}


def test_describe_names_prompts_workers_and_failures(make, clock):
    pool = make()
    admit_all(pool, "a", "b")
    pool.lease("rollout-0@here", 1).result(0)
    pool.lease("rollout-1@here", 1).result(0)
    pool.lease("rollout-1@here", 1)
    finish(pool, "b", order=1)
    clock.now = 7
    pool.fail("a", [1], 0, "InferenceError: refused")
    text = pool.describe()
    for words in (
        "loaded_batch_finished, 2 prompts",
        "1 finished, 1 open",
        "2 of 2 slots",
        "a: 2 of 2 samples missing (runs [0, 1])",
        "rollout-0@here has 1 for 7 s (attempt 0)",
        "rollout-1@here has 1 for 0 s (attempt 1)",
        "last failure: InferenceError: refused",
        "tasks queued: 0",
    ):
        assert words in text


def test_the_timeout_of_take_batch_carries_the_diagnosis(make):
    pool = make()
    admit_all(pool, "a")
    with pytest.raises(TimeoutError, match="2 with no worker"):
        pool.take_batch(0)
