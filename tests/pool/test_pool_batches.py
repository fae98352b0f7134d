"""When a batch is ready, what it holds, and what comes back of it."""

import pytest
from pool_samples import admit_all, finish, names, task

LOADED = "loaded_batch_finished"
SIZE = "batch_size_reached"
BOTH = "batch_size_reached_and_loaded_batch_finished"


def test_batch_size_takes_whatever_has_finished(make):
    pool = make(slots=4, check_batch_ready_function=SIZE)
    admit_all(pool, "a", "b", "c", "d")
    finish(pool, "d", order=3)
    finish(pool, "b", order=1)
    finish(pool, "c", order=2)
    assert names(pool.take_batch(0)) == ["b", "c"]
    with pytest.raises(TimeoutError):
        pool.take_batch(0)


@pytest.mark.parametrize("criterion", [LOADED, BOTH])
def test_a_loaded_batch_waits_for_its_oldest(make, criterion):
    pool = make(slots=4, check_batch_ready_function=criterion)
    admit_all(pool, "a", "b", "c", "d")
    for order, name in ((1, "b"), (2, "c"), (3, "d")):
        finish(pool, name, order=order)
    with pytest.raises(TimeoutError):
        pool.take_batch(0)
    finish(pool, "a")
    assert names(pool.take_batch(0)) == ["a", "b"]
    assert names(pool.take_batch(0)) == ["c", "d"]


def test_a_dropped_prompt_leaves_a_gap_and_keeps_its_slot_until_the_batch_is_over(make):
    pool = make(check_batch_ready_function=LOADED)
    admit_all(pool, "a", "b")
    pool.drop(["a"], "stale")
    assert not pool.wait_for_slot(0)
    finish(pool, "b", order=1)
    assert names(pool.take_batch(0)) == ["b"]
    assert not pool.wait_for_slot(0)
    pool.release(["b"])
    assert pool.metrics()["pool/free_slots"] == 2


@pytest.mark.parametrize("criterion", [SIZE, BOTH])
def test_a_dropped_prompt_is_replaced(make, criterion):
    pool = make(check_batch_ready_function=criterion)
    admit_all(pool, "a", "b")
    pool.drop(["a"], "stale")
    finish(pool, "b", order=1)
    with pytest.raises(TimeoutError):
        pool.take_batch(0)
    assert pool.wait_for_slot(0)
    pool.admit(task("c", order=2))
    finish(pool, "c", order=2)
    assert names(pool.take_batch(0)) == ["b", "c"]


@pytest.mark.parametrize("criterion", [LOADED, SIZE, BOTH])
def test_a_whole_batch_dropped_is_an_empty_batch(make, criterion):
    pool = make(check_batch_ready_function=criterion)
    admit_all(pool, "a", "b")
    pool.drop(["a", "b"], "stale")
    assert pool.take_batch(0) == []
    assert pool.metrics()["pool/free_slots"] == 2
    with pytest.raises(TimeoutError):
        pool.take_batch(0)


@pytest.mark.parametrize("criterion", [LOADED, SIZE, BOTH])
def test_the_end_of_the_data_makes_a_short_batch_then_none(make, criterion):
    pool = make(slots=4, check_batch_ready_function=criterion)
    admit_all(pool, "a", "b", "c")
    for order, name in enumerate("abc"):
        finish(pool, name, order=order)
    pool.end_of_data()
    assert names(pool.take_batch(0)) == ["a", "b"]
    assert not pool.exhausted
    assert names(pool.take_batch(0)) == ["c"]
    assert pool.exhausted
    assert pool.take_batch(0) == []


@pytest.mark.parametrize("criterion", [LOADED, SIZE, BOTH])
def test_the_last_prompts_dropped_do_not_hang_the_end(make, criterion):
    pool = make(slots=4, check_batch_ready_function=criterion)
    admit_all(pool, "a")
    pool.end_of_data()
    pool.drop(["a"], "stale")
    assert pool.take_batch(0) == []
    assert pool.exhausted


def test_a_finished_prompt_may_still_be_dropped(make):
    pool = make(check_batch_ready_function=SIZE)
    admit_all(pool, "a", "b")
    finish(pool, "a")
    finish(pool, "b", order=1)
    pool.drop(["a"], "stale")
    pool.end_of_data()
    assert names(pool.take_batch(0)) == ["b"]


def test_a_prompt_dropped_out_of_a_taken_batch_frees_its_slot_with_the_batch(make, audit):
    pool = make()
    admit_all(pool, "a", "b")
    finish(pool, "a")
    finish(pool, "b", order=1)
    pool.take_batch(0)
    pool.drop(["a"], "stale")
    assert not pool.wait_for_slot(0)
    assert pool.mark_trained(["b"]) == ("b",)
    pool.release(["a", "b"])
    assert pool.metrics()["pool/free_slots"] == 2
    assert audit().dropped == {"stale": 1}


@pytest.mark.parametrize("keys", [(), ("data_source",), ("data_source", "group_id"), ("group_id", "run_id")])
def test_groups_of_other_keys_lead_back_to_their_prompts(make, keys):
    pool = make(key_list=keys)
    admit_all(pool, "a", "b")
    finish(pool, "a")
    finish(pool, "b", order=1)
    groups = names(pool.take_batch(0))
    assert pool.mark_trained(groups) == ("a", "b")
    pool.release(groups)
    assert pool.metrics()["pool/free_slots"] == 2


def test_training_twice_or_out_of_nowhere_is_refused(make):
    pool = make(size=1, slots=2)
    admit_all(pool, "a", "b")
    with pytest.raises(ValueError, match="a is in no batch"):
        pool.mark_trained(["a"])
    with pytest.raises(ValueError, match=r"no batch holds \['x'\]"):
        pool.mark_trained(["x"])
    finish(pool, "a")
    pool.take_batch(0)
    pool.mark_trained(["a"])
    with pytest.raises(ValueError, match="a is trained already"):
        pool.mark_trained(["a"])


def test_outstanding_is_what_a_checkpoint_has_to_replay(make):
    pool = make(slots=4)
    admit_all(pool, "a", "b", "c", "d")
    finish(pool, "a")
    finish(pool, "b", order=1)
    finish(pool, "c", order=2)
    pool.fail("d", [0], 0, "x")
    batch = names(pool.take_batch(0))
    assert [each.group_id for each in pool.outstanding()] == ["a", "b", "c", "d"]
    pool.mark_trained(batch)
    assert [(each.group_id, each.run_ids, each.attempt) for each in pool.outstanding()] == [
        ("c", (0, 1), 0),
        ("d", (0, 1), 0),
    ]
