"""What is written is what is read."""

from pathlib import Path

import h5py
import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_samples import WRITER, same, trajectory

from nexrl.errors import StoreError
from nexrl.store import FORMAT_VERSION, TrajectoryReader, TrajectoryWriter, trajectory_path
from nexrl.store.layout import STREAM_CHUNK
from nexrl.types import Turn, VersionSpan

text = st.text(st.characters(), max_size=40)
int64 = st.integers(-(2**63), 2**63 - 1)
positions = st.integers(0, 1000)
number = st.floats(allow_nan=False)


@st.composite
def trajectories(draw):
    tokens = draw(st.integers(0, 60))
    return trajectory(
        draw(st.integers(0, 10_000)),
        tokens=tokens,
        prompt_tokens=draw(st.integers(0, tokens)),
        group_id=draw(text),
        finish_reason=draw(st.sampled_from(["stop", "length", "truncated", "ValueError"])),
        order=draw(int64),
        seed=draw(st.integers(0, 5)),
        reward=draw(number),
        is_val=draw(st.booleans()),
        score=draw(st.dictionaries(text, number, max_size=3)),
        extra=draw(st.dictionaries(text, st.one_of(text, number, st.integers()), max_size=3)),
        spans=tuple(VersionSpan(*span) for span in draw(st.lists(st.tuples(positions, positions, int64), max_size=3))),
        turns=tuple(Turn(*turn) for turn in draw(st.lists(st.tuples(positions, positions, text), max_size=3))),
        prompt=draw(text),
        response=draw(text),
        ground_truth=draw(text),
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(groups=st.lists(st.lists(trajectories(), max_size=5), max_size=4))
def test_every_record_comes_back_exactly(groups, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "n0.0.h5"
    with TrajectoryWriter(path, **WRITER) as writer:
        for group in groups:
            writer.append(group)
            writer.flush()
    written = [item for group in groups for item in group]
    with TrajectoryReader(path) as reader:
        assert len(reader) == len(written)
        assert all(same(one, other) for one, other in zip(reader, written, strict=True))
        assert all(same(reader.read(i), item) for i, item in enumerate(written))


def test_longer_than_a_chunk_and_empty_side_by_side(tmp_path):
    items = [
        trajectory(0, tokens=5),
        trajectory(1, tokens=3 * STREAM_CHUNK + 17, response="é" * (2 * STREAM_CHUNK)),
        trajectory(2, tokens=0, prompt_tokens=0, prompt="", response=""),
        trajectory(3, tokens=STREAM_CHUNK),
    ]
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer:
        writer.append(items)
    with TrajectoryReader(tmp_path / "n0.0.h5") as reader:
        assert [same(reader.read(i), item) for i, item in enumerate(items)] == [True] * 4


def test_any_unicode_even_what_is_not_text(tmp_path):
    item = trajectory(0, prompt="日本語 🎉 \x00 null", response="lone \ud800 surrogate", ground_truth="é" * 500)
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer:
        writer.append([item])
    with TrajectoryReader(tmp_path) as reader:
        back = reader.read(0)
    assert (back.prompt, back.response, back.ground_truth) == (item.prompt, item.response, item.ground_truth)


def test_a_run_folder_is_read_as_one_and_by_id(tmp_path):
    for node, attempt, numbers in (("a", 0, range(5)), ("a", 1, range(5, 8)), ("b.example.org", 0, range(8, 10))):
        path = trajectory_path(tmp_path, node=node, attempt=attempt)
        with TrajectoryWriter(path, node=node, attempt=attempt, run_id="run") as writer:
            writer.append([trajectory(i) for i in numbers])
    with TrajectoryReader(tmp_path) as reader:
        assert len(reader) == 10
        assert same(reader.read("0:1/2.0.0"), trajectory(6))
        assert same(reader.read(-1), trajectory(9))
        headers = reader.headers()
        assert reader.column("reward").tolist() == headers["reward"].tolist()
    assert headers["node"].tolist() == ["a"] * 8 + ["b.example.org"] * 2
    assert headers["run_attempt"].tolist() == [0] * 5 + [1] * 3 + [0] * 2
    assert headers["trajectory_id"].tolist() == [trajectory(i).header.trajectory_id for i in range(10)]
    assert headers["score/format"].tolist() == [0.5] * 10


def test_a_score_that_only_some_have_is_nan_elsewhere(tmp_path):
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer:
        writer.append([trajectory(0, score={"a": 1.0}), trajectory(1, score={}), trajectory(2, score={"b": 2.0})])
    with TrajectoryReader(tmp_path) as reader:
        headers = reader.headers()
    np.testing.assert_array_equal(headers["score/a"], [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(headers["score/b"], [np.nan, np.nan, 2.0])


def test_an_empty_run_has_no_trajectory(tmp_path):
    with TrajectoryReader(tmp_path) as reader:
        assert (len(reader), list(reader), reader.headers()) == (0, [], {})
    TrajectoryWriter(trajectory_path(tmp_path, node="a", attempt=0), **WRITER).close()
    with TrajectoryReader(tmp_path) as reader:
        assert (len(reader), list(reader)) == (0, [])
        with pytest.raises(StoreError, match="no trajectory 'x' among 0"):
            reader.read("x")
        with pytest.raises(StoreError, match="no trajectory 0, it holds 0"):
            reader.read(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tokens": np.arange(12)}, "tokens is int64 with 1 dimensions, needs int32"),
        ({"logprobs": np.zeros(12)}, "logprobs is float64"),
        ({"seed": 2**63}, "seed 9223372036854775808 does not fit"),
        ({"extra": {"key": object()}}, "extra cannot be written as JSON"),
        ({"extra": {1: "x"}}, "extra needs text keys"),
    ],
)
def test_what_cannot_be_stored_is_refused_and_nothing_of_the_call_is_kept(tmp_path, fields, message):
    item = trajectory(1)
    if fields.keys() & {"seed", "extra"}:
        fields = {"header": msgspec.structs.replace(item.header, **fields)}
    bad = msgspec.structs.replace(item, **fields)
    with TrajectoryWriter(tmp_path / "n0.0.h5", **WRITER) as writer:
        with pytest.raises(StoreError, match=message):
            writer.append([trajectory(0), bad])
        assert writer.append([trajectory(2)]) == 1
    with TrajectoryReader(tmp_path) as reader:
        assert [one.header.trajectory_id for one in reader] == ["0:0/2.0.0"]


def test_another_format_or_version_is_refused_by_name(tmp_path):
    with h5py.File(tmp_path / "new.0.h5", "w", libver="latest") as file:
        file.attrs.update({"format": "nexrl-trajectories", "version": FORMAT_VERSION + 1})
    with pytest.raises(StoreError, match=rf"new\.0\.h5: written in version {FORMAT_VERSION + 1} "):
        TrajectoryReader(tmp_path)
    with h5py.File(tmp_path / "new.0.h5", "w", libver="latest") as file:
        file.attrs["anything"] = 1
    with pytest.raises(StoreError, match="format is None, needed 'nexrl-trajectories'"):
        TrajectoryReader(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not hdf5 at all" * 100])
def test_a_file_that_is_not_hdf5_is_refused_by_name(tmp_path: Path, content):
    (tmp_path / "bad.0.h5").write_bytes(content)
    with pytest.raises(StoreError, match=r"bad\.0\.h5: cannot be opened as HDF5"):
        TrajectoryReader(tmp_path)


def test_a_missing_run_is_refused_by_name(tmp_path):
    with pytest.raises(StoreError, match="nowhere: no such run folder or trajectory file"):
        TrajectoryReader(tmp_path / "nowhere")
