"""Which trajectory was trained when."""

import pytest
from store_samples import trajectory

from nexrl.errors import StoreError
from nexrl.store import StepsReader, StepsWriter, TrainedRow, TrajectoryBuffer, steps_path
from nexrl.types import Batch, BatchRow, MicroBatch, MiniBatch, Shard


def batch(step, *ranks):
    """A batch with one mini-batch per rank; `ranks` are lists of micro-batches, which are lists of (id, advantage)."""
    shards = []
    for micro_batches in ranks:
        micros = tuple(
            MicroBatch(
                rows=tuple(
                    BatchRow(trajectory_id=name, recorder="r", num_tokens=9, num_trained=5, advantage=advantage)
                    for name, advantage in rows
                )
            )
            for rows in micro_batches
        )
        mini = MiniBatch(micro_batches=micros, global_tokens=5, global_sequences=1)
        shards.append(Shard(step=step, mini_batches=(mini,), temperature=1.0))
    return Batch(step=step, shards=tuple(shards), group_ids=())


def test_a_row_says_step_place_and_advantage(tmp_path):
    with StepsWriter(tmp_path, attempt=0, run_id="run") as writer:
        writer.append(batch(1, [[("0:0/0.0.0", 0.5)], [("0:0/1.0.0", -0.5)]], [[("0:1/0.0.0", 1.5)]]), weight_version=7)
        with StepsReader(tmp_path) as reader:
            assert reader.of("0:1/0.0.0") == (
                TrainedRow(
                    step=1,
                    position=2,
                    rank=1,
                    mini_batch=0,
                    micro_batch=0,
                    trajectory_id="0:1/0.0.0",
                    group_id="0:1",
                    advantage=1.5,
                    weight_version=7,
                ),
            )
            assert reader.of("0:0/1.0.0")[0].micro_batch == 1
            assert reader.of("nobody") == ()
            writer.append(batch(2, [[("0:1/0.0.0", 0.25)]]), weight_version=8)
            reader.refresh()
            assert [(row.step, row.advantage) for row in reader.of("0:1/0.0.0")] == [(1, 1.5), (2, 0.25)]


def test_a_step_without_rows_is_recorded_as_nothing(tmp_path):
    with StepsWriter(tmp_path, attempt=0, run_id="run") as writer:
        writer.append(batch(1, [[]]), weight_version=0)
        writer.append(batch(2, [[("a/0.0.0", 1.0)]]), weight_version=1)
    with StepsReader(tmp_path) as reader:
        assert reader.columns()["step"].tolist() == [2]


def test_a_resumed_run_supersedes_the_steps_it_trains_again(tmp_path):
    for attempt, from_step, steps in ((1, 0, (1, 2, 3)), (2, 2, (3, 4)), (3, 1, (2,))):
        with StepsWriter(tmp_path, attempt=attempt, run_id="run", from_step=from_step) as writer:
            for step in steps:
                writer.append(batch(step, [[(f"{attempt}:{step}/0.0.0", 0.0)]]), weight_version=step)
    assert steps_path(tmp_path, attempt=1).name == "steps.h5"
    assert steps_path(tmp_path, attempt=3).name == "steps.3.h5"
    with StepsReader(tmp_path) as reader:
        now = reader.columns()
        assert list(zip(now["attempt"].tolist(), now["step"].tolist(), strict=True)) == [(1, 1), (3, 2)]
        everything = reader.columns(superseded=True)
        assert everything["step"].tolist() == [1, 2, 3, 3, 4, 2]
        assert reader.of("1:3/0.0.0") == ()


def test_a_run_without_steps_is_empty(tmp_path):
    with StepsReader(tmp_path) as reader:
        assert reader.columns()["step"].tolist() == []
        assert reader.of("x") == ()


def test_buffer_holds_until_released():
    buffer = TrajectoryBuffer()
    items = [trajectory(i, tokens=100) for i in range(3)]
    ids = [item.header.trajectory_id for item in items]
    buffer.put(items)
    full = buffer.size
    assert full >= 3 * 900
    assert [item.header.trajectory_id for item in buffer.get(reversed(ids))] == ids[::-1]
    buffer.release([ids[0], "never held"])
    with pytest.raises(StoreError, match=f"1 of 2 trajectories are not held: {ids[0]}"):
        buffer.get(ids[:2])
    buffer.put([items[1]])
    assert len(buffer) == 2
    assert buffer.size < full
    buffer.release(ids)
    assert (len(buffer), buffer.size) == (0, 0)
