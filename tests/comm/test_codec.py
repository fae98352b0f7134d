import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import nexrl.comm
from nexrl.comm import decode, encode
from nexrl.comm.codec import MAX_FRAME_BYTES
from nexrl.errors import CommError
from nexrl.types import Trajectory, TrajectoryHeader, Turn, VersionSpan


@dataclass(frozen=True)
class Measured:
    name: str
    values: np.ndarray


class Nested(msgspec.Struct):
    parts: list[Measured]
    extra: dict[str, Any]


def over_the_wire(obj, type):
    """Frames as they arrive: bytes of their own."""
    return decode([bytes(frame) for frame in encode(obj)], type)


def trajectory(n=5):
    header = TrajectoryHeader(
        trajectory_id="g0/1.0.0", group_id="g0", task_id="t0", order=7, run_id=1, attempt=0, sequence=0,
        model_tag="default", is_val=False, num_tokens=n, num_trained=2, reward=0.5, score={"exact": 1.0},
        finish_reason="stop", version_min=3, version_max=4, data_source="", worker="rollout-0@here", seed=1,
        temperature=1.0, started=1.5, finished=2.5, recorder="recorder-0",
    )  # fmt: skip
    return Trajectory(
        header=header,
        tokens=np.arange(n, dtype=np.int32),
        loss_mask=np.ones(n, np.uint8),
        logprobs=np.linspace(-1, 0, n, dtype=np.float32),
        spans=(VersionSpan(0, 2, 3), VersionSpan(2, n, 4)),
        turns=(Turn(0, n, "prompt"),),
        prompt="übung 🙂",
    )


def test_a_trajectory_arrives_as_it_was_sent():
    sent = trajectory()
    got = over_the_wire([sent, sent], list[Trajectory])[1]
    assert got.header == sent.header
    assert (got.spans, got.turns, got.prompt) == (sent.spans, sent.turns, sent.prompt)
    for name in ("tokens", "loss_mask", "logprobs"):
        assert getattr(got, name).dtype == getattr(sent, name).dtype
        np.testing.assert_array_equal(getattr(got, name), getattr(sent, name))


@settings(deadline=None)
@given(
    npst.arrays(
        dtype=st.one_of(
            npst.boolean_dtypes(),
            npst.integer_dtypes(endianness="?"),
            npst.unsigned_integer_dtypes(endianness="?"),
            npst.floating_dtypes(endianness="?"),
            npst.complex_number_dtypes(endianness="?"),
        ),
        shape=npst.array_shapes(min_dims=0, min_side=0),
    )
)
def test_any_array_of_numbers_keeps_dtype_shape_and_bytes(array):
    got = over_the_wire({"x": array}, dict[str, Any])["x"]
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize(
    "array",
    [
        np.array(3.5),
        np.empty((0, 4), np.float16),
        np.array([True, False]),
        np.arange(12).reshape(3, 4).T,
        np.arange(20)[::3],
        np.broadcast_to(np.float32(2), (3, 3)),
    ],
    ids=["0-d", "empty", "bool", "transposed", "strided", "broadcast"],
)
def test_awkward_arrays(array):
    got = over_the_wire(Measured("a", array), Measured).values
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(got, array)


def test_arrays_hide_anywhere_and_stay_in_order():
    sent = Nested([Measured(str(i), np.full(i, i)) for i in range(4)], {"deep": [{"array": np.ones(2)}, None, "text"]})
    got = over_the_wire(sent, Nested)
    assert [part.values.tolist() for part in got.parts] == [[], [1], [2, 2], [3, 3, 3]]
    assert got.extra["deep"][0]["array"].tolist() == [1.0, 1.0]
    assert got.extra["deep"][1:] == [None, "text"]


def test_a_contiguous_array_is_sent_from_its_own_memory_and_read_from_the_frame():
    array = np.arange(1000)
    frames = encode({"x": array})
    assert np.shares_memory(np.frombuffer(frames[1], np.uint8), array)
    frame = np.frombuffer(bytearray(frames[1]), np.uint8)
    assert np.shares_memory(decode([frames[0], frame], dict[str, np.ndarray])["x"], frame)


def test_an_unaligned_frame_gives_an_aligned_array():
    head, body = encode({"x": np.arange(4.0)})
    shifted = memoryview(b"\0" + bytes(body))[1:]
    got = decode([head, shifted], dict[str, np.ndarray])["x"]
    assert got.flags.aligned
    assert got.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_none_and_numpy_scalars():
    assert over_the_wire(None, None) is None
    sent = {"f": np.float32(0.5), "i": np.int64(7), "b": np.bool_(True)}
    assert over_the_wire(sent, dict[str, Any]) == {"f": 0.5, "i": 7, "b": True}


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        (np.array([object()]), "dtype object"),
        (np.array(["text"]), "dtype <U4"),
        (np.zeros(2, [("a", "i4")]), "only bool, integer, float and complex"),
        (object(), "builtins.object"),
        (lambda: None, "function"),
        ({"n": 1 << 70}, "cannot send a dict"),
        (np.broadcast_to(np.uint8(0), (MAX_FRAME_BYTES + 1,)), "send it in parts"),
    ],
)
def test_what_cannot_be_sent_is_refused_by_name(obj, message):
    with pytest.raises(CommError, match=message):
        encode({"x": obj})


def bad_reference(**changes):
    """A message with one array of two float64, its description changed."""
    reference = {"frame": 1, "dtype": "<f8", "shape": [2]} | changes
    extension = msgspec.msgpack.Ext(1, msgspec.msgpack.encode(list(reference.values())))
    return [msgspec.msgpack.encode({"x": extension}), bytes(16)]


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"\xc1"],
        [b"\xdd\xff\xff\xff\xff"],
        [b"\x91" * 100_000 + b"\x01"],
        [b"\xa4\xff\xff\xff\xff"],
        [msgspec.msgpack.encode({"x": 1})],
        [msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(9, b"?")}), b""],
        [msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(1, b"")})],
        [msgspec.msgpack.encode({"x": msgspec.msgpack.Ext(1, b"")}), b""],
        [msgspec.msgpack.encode({}), b"surplus"],
        encode({"x": np.zeros(2), "y": np.zeros(2)})[:2],
        bad_reference(frame=0),
        bad_reference(frame=2),
        bad_reference(frame=-1),
        bad_reference(dtype="|O"),
        bad_reference(dtype="<U2"),
        bad_reference(dtype="nonsense"),
        bad_reference(dtype="f8,f8"),
        bad_reference(dtype=""),
        bad_reference(shape=[3]),
        bad_reference(shape=[-2]),
        bad_reference(shape=[-1, -2]),
        bad_reference(shape=[1 << 62, 4]),
        bad_reference(shape=[1] * 100 + [2]),
        bad_reference(shape=[0, 1 << 62]),
    ],
)
def test_malformed_frames_are_a_comm_error(frames):
    with pytest.raises(CommError):
        decode(frames, dict[str, np.ndarray])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=3))
def test_random_bytes_are_a_comm_error(frames):
    with pytest.raises(CommError):
        decode(frames, Trajectory)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_trajectory_is_read_or_refused_but_never_crashes(data):
    frames = [bytearray(frame) for frame in encode(trajectory())]
    frame = frames[data.draw(st.integers(0, len(frames) - 1))]
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        got = decode(frames, Trajectory)
    except CommError:
        return
    assert len(got.tokens) == got.header.num_tokens


def test_a_record_that_contradicts_itself_is_refused():
    frames = encode(msgspec.structs.asdict(trajectory()) | {"tokens": np.zeros(3, np.int32)})
    with pytest.raises(CommError, match="all four must be equal"):
        decode(frames, Trajectory)


def test_no_module_of_comm_imports_what_runs_code_from_data():
    dangerous = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}
    calls = {"eval", "exec", "recv_pyobj", "send_pyobj", "loads", "dumps"}
    files = sorted(Path(nexrl.comm.__file__).parent.glob("**/*.py"))
    assert len(files) > 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                assert not dangerous & {alias.name.partition(".")[0] for alias in node.names}, file
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in dangerous, file
            elif isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in calls, f"{file}:{node.lineno}"
            elif isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", file
