"""One contract for all stores, then what each does with its keys."""

import pytest
from pool_samples import header

from nexrl.errors import ConfigError
from nexrl.pool import GroupedStore, HierarchicalStore, SimpleStore, create_store

KEY_LISTS = [(), ("group_id",), ("data_source",), ("data_source", "group_id"), ("data_source", "group_id", "run_id")]


@pytest.fixture(params=KEY_LISTS, ids=str)
def store(request):
    return create_store(request.param)


def prompt(name, order, data_source="src"):
    return [header(name, run, order=order, sequence=part, data_source=data_source) for run in (1, 0) for part in (1, 0)]


def test_what_goes_in_comes_out_once(store):
    store.put(prompt("a", 0))
    store.put(prompt("b", 1))
    assert len(store) == 8
    taken = [each.trajectory_id for group in store.take({"a", "b"}) for each in group.headers]
    assert sorted(taken) == sorted(each.trajectory_id for each in prompt("a", 0) + prompt("b", 1))
    assert len(store) == 0
    assert store.take({"a", "b"}) == []


def test_prompts_that_are_not_asked_for_stay(store):
    store.put(prompt("a", 0))
    store.put(prompt("b", 1))
    assert {each.group_id for group in store.take({"b"}) for each in group.headers} == {"b"}
    assert len(store) == 4
    assert {each.group_id for group in store.take({"a"}) for each in group.headers} == {"a"}


def test_groups_come_by_order_and_headers_by_run_and_sequence(store):
    for name, order in (("late", 7), ("early", 3), ("middle", 5)):
        store.put(prompt(name, order))
    groups = store.take({"late", "early", "middle"})
    assert [group.order for group in groups] == sorted(group.order for group in groups)
    for group in groups:
        places = [(each.order, each.run_id, each.sequence) for each in group.headers]
        assert places == sorted(places)
        assert group.order == group.headers[0].order


def test_group_ids_are_unique_over_batches(store):
    ids = []
    for batch in (("a", "b"), ("c", "d")):
        for order, name in enumerate(batch):
            store.put(prompt(name, order))
        ids += [group.group_id for group in store.take(set(batch))]
    assert len(set(ids)) == len(ids)


def test_the_number_of_keys_chooses_the_store():
    kinds = [type(create_store(keys)) for keys in ((), ("group_id",), ("data_source", "group_id"))]
    assert kinds == [SimpleStore, GroupedStore, HierarchicalStore]


def test_simple_makes_a_group_of_every_trajectory():
    store = create_store(())
    store.put([header("a", 0), header("a", 1)])
    assert [group.group_id for group in store.take({"a"})] == ["a/0.0.0", "a/1.0.0"]


def test_grouped_by_prompt_has_the_prompts_name():
    store = create_store(("group_id",))
    store.put([header("a", 0), header("a", 1)])
    [group] = store.take({"a"})
    assert (group.group_id, len(group.headers)) == ("a", 2)


def test_grouped_by_another_key_mixes_prompts():
    store = create_store(("data_source",))
    store.put([header("a", order=0, data_source="math")])
    store.put([header("b", order=1, data_source="code")])
    store.put([header("c", order=2, data_source="math")])
    groups = {group.group_id: [each.group_id for each in group.headers] for group in store.take({"a", "b", "c"})}
    assert groups == {"math@a": ["a", "c"], "code@b": ["b"]}


def test_hierarchical_nests():
    store = create_store(("data_source", "group_id"))
    store.put([header("a", order=0, data_source="math")])
    store.put([header("b", order=1, data_source="code")])
    assert [group.group_id for group in store.take({"a", "b"})] == ["math/a", "code/b"]


def test_keys_may_be_extras():
    store = create_store(("level",))
    store.put([header("a", extra={"level": 3})])
    assert store.take({"a"})[0].group_id == "3@a"


@pytest.mark.parametrize("keys", [("level",), ("data_source", "level"), ("level", "group_id")])
def test_a_missing_key_is_named_and_nothing_is_kept(keys):
    store = create_store(keys)
    with pytest.raises(ConfigError) as caught:
        store.put([header("a", extra={"other": 1})])
    assert caught.value.key == "trajectory_pool.key_list"
    assert "'level'" in str(caught.value)
    assert "['other']" in str(caught.value)
