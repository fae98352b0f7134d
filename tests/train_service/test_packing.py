from hypothesis import given
from hypothesis import strategies as st

from nexrl.train_service import plan_shards
from nexrl.types import Batch, BatchRow

ROW = st.tuples(st.integers(1, 40), st.integers(0, 39)).map(lambda pair: (pair[0], min(pair[1], pair[0] - 1)))
MINI_BATCHES = st.lists(st.lists(ROW, max_size=12), max_size=4)


def plan(sizes, **options):
    minis = [
        [BatchRow(f"{mini}-{index}", "r", tokens, trained, 0.5) for index, (tokens, trained) in enumerate(rows)]
        for mini, rows in enumerate(sizes)
    ]
    settings = {"world_size": 2, "epochs": 1, "max_tokens": 50, "step": 3, "temperature": 0.7} | options
    return minis, plan_shards(minis, **settings)


def forwards(shard):
    return [micro.rows for mini in shard.mini_batches for micro in mini.micro_batches]


@given(MINI_BATCHES, st.integers(1, 4), st.integers(1, 60))
def test_every_row_stands_in_its_mini_batch_exactly_once(sizes, world_size, max_tokens):
    minis, shards = plan(sizes, world_size=world_size, max_tokens=max_tokens)
    for index, rows in enumerate(minis):
        found = [row for shard in shards for micro in shard.mini_batches[index].micro_batches for row in micro.rows]
        assert sorted(found, key=lambda row: row.trajectory_id) == sorted(rows, key=lambda row: row.trajectory_id)
    assert len(Batch(step=3, shards=shards, group_ids=()).rows) == sum(map(len, minis))


@given(MINI_BATCHES, st.integers(1, 4), st.integers(1, 60))
def test_budget_holds_unless_one_row_is_longer(sizes, world_size, max_tokens):
    _, shards = plan(sizes, world_size=world_size, max_tokens=max_tokens)
    for rows in (rows for shard in shards for rows in forwards(shard)):
        assert len(rows) <= 1 or sum(row.num_tokens for row in rows) <= max_tokens


@given(MINI_BATCHES, st.integers(1, 4), st.integers(1, 60))
def test_all_ranks_make_as_many_forwards_and_know_the_whole(sizes, world_size, max_tokens):
    minis, shards = plan(sizes, world_size=world_size, max_tokens=max_tokens)
    shapes = {tuple(len(mini.micro_batches) for mini in shard.mini_batches) for shard in shards}
    assert len(shapes) == 1
    assert 0 not in shapes.pop()
    for shard in shards:
        assert [mini.global_tokens for mini in shard.mini_batches] == [sum(r.num_trained for r in m) for m in minis]
        assert [mini.global_sequences for mini in shard.mini_batches] == [
            sum(r.num_trained > 0 for r in m) for m in minis
        ]


@given(MINI_BATCHES, st.integers(1, 4))
def test_ranks_differ_by_no_more_than_the_longest_row(sizes, world_size):
    minis, shards = plan(sizes, world_size=world_size)
    for index, rows in enumerate(minis):
        loads = [
            sum(row.num_tokens for micro in shard.mini_batches[index].micro_batches for row in micro.rows)
            for shard in shards
        ]
        assert max(loads) - min(loads) <= max([row.num_tokens for row in rows], default=0)


def test_rows_keep_the_order_of_the_batch_and_shards_their_settings():
    minis, shards = plan([[(3, 1), (9, 2), (4, 3)]], world_size=1, epochs=2)
    assert forwards(shards[0]) == [tuple(minis[0])]
    assert (shards[0].step, shards[0].temperature, shards[0].epochs) == (3, 0.7, 2)


def test_long_rows_are_alone_and_short_ones_fill_up():
    _, shards = plan([[(60, 1), (30, 1), (20, 1), (50, 1)]], world_size=1, max_tokens=50)
    assert [sorted(row.num_tokens for row in rows) for rows in forwards(shards[0])] == [[60], [50], [20, 30]]
