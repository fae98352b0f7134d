"""Trajectories into the columns of a file."""

import json
from collections.abc import Sequence

import numpy as np

from nexrl.errors import StoreError
from nexrl.store.layout import TRAJECTORIES
from nexrl.store.swmr import SwmrFile
from nexrl.types import Trajectory

BODY_TEXTS = ("prompt", "response", "ground_truth")
HEADER_NUMBERS = tuple(
    column.path
    for column in TRAJECTORIES.columns
    if not (column.stream or column.refers or "/" in column.path or column.path in BODY_TEXTS)
)
HEADER_NAMES = tuple(
    column.path
    for column in TRAJECTORIES.columns
    if column.refers == "names" and "/" not in column.path and column.path != "extra"
)
_INTEGERS = tuple(name for name in HEADER_NUMBERS if TRAJECTORIES.by_path[name].dtype == "int64")
_INT64_MAX = 2**63 - 1
_ARRAYS = {"tokens": np.dtype("int32"), "loss_mask": np.dtype("uint8"), "logprobs": np.dtype("float32")}


def check_storable(trajectory: Trajectory) -> None:
    """Raises StoreError where the file could not give back exactly this record: array types, shapes, number ranges."""
    header = trajectory.header
    for name, dtype in _ARRAYS.items():
        array: np.ndarray = getattr(trajectory, name)
        if array.dtype != dtype or array.ndim != 1:
            raise StoreError(
                f"trajectory {header.trajectory_id}: {name} is {array.dtype} with {array.ndim} dimensions, "
                f"needs {dtype} with one"
            )
    for name in _INTEGERS:
        if not -_INT64_MAX - 1 <= getattr(header, name) <= _INT64_MAX:
            raise StoreError(
                f"trajectory {header.trajectory_id}: {name} {getattr(header, name)} does not fit 64 bits, signed"
            )
    if not header.extra:
        return
    try:
        restored = json.loads(json.dumps(header.extra))
    except (TypeError, ValueError) as error:
        raise StoreError(f"trajectory {header.trajectory_id}: extra cannot be written as JSON: {error}") from error
    if restored.keys() != header.extra.keys():
        raise StoreError(f"trajectory {header.trajectory_id}: extra needs text keys, found {list(header.extra)}")


def size_of(trajectory: Trajectory) -> int:
    """Bytes of a trajectory's arrays and texts, with 512 for its header (about what one takes in a file)."""
    arrays = trajectory.tokens.nbytes + trajectory.loss_mask.nbytes + trajectory.logprobs.nbytes
    return 512 + arrays + len(trajectory.prompt) + len(trajectory.response) + len(trajectory.ground_truth)


def write_rows(file: SwmrFile, trajectories: Sequence[Trajectory]) -> None:
    """Append one row per trajectory to every column; they count once `file.commit` has."""
    headers = [trajectory.header for trajectory in trajectories]
    _write_tokens(file, trajectories)
    _write_spans(file, trajectories)
    _write_turns(file, trajectories)
    _write_score(file, trajectories)
    for name in BODY_TEXTS:
        file.extend(name, file.numbers("texts", [getattr(trajectory, name) for trajectory in trajectories]))
    for name in HEADER_NAMES:
        file.extend(name, file.numbers("names", [getattr(header, name) for header in headers]))
    file.extend(
        "extra", file.numbers("names", [json.dumps(header.extra) if header.extra else "{}" for header in headers])
    )
    for name in HEADER_NUMBERS:
        file.extend(name, [getattr(header, name) for header in headers])


def _write_tokens(file: SwmrFile, trajectories: Sequence[Trajectory]) -> None:
    counts = np.array([len(trajectory.tokens) for trajectory in trajectories], dtype=np.int64)
    start = file.stream("tokens/ids", np.concatenate([trajectory.tokens for trajectory in trajectories]))
    file.stream("tokens/loss_mask", np.concatenate([trajectory.loss_mask for trajectory in trajectories]))
    file.stream("tokens/logprobs", np.concatenate([trajectory.logprobs for trajectory in trajectories]))
    file.extend("tokens/first", start + np.cumsum(counts) - counts)


def _write_spans(file: SwmrFile, trajectories: Sequence[Trajectory]) -> None:
    spans = [span for trajectory in trajectories for span in trajectory.spans]
    start = file.extend("spans/start", [span.start for span in spans])
    file.extend("spans/end", [span.end for span in spans])
    file.extend("spans/version", [span.version for span in spans])
    _write_ranges(file, "spans", start, [len(trajectory.spans) for trajectory in trajectories])


def _write_turns(file: SwmrFile, trajectories: Sequence[Trajectory]) -> None:
    turns = [turn for trajectory in trajectories for turn in trajectory.turns]
    start = file.extend("turns/start", [turn.start for turn in turns])
    file.extend("turns/end", [turn.end for turn in turns])
    file.extend("turns/role", file.numbers("names", [turn.role for turn in turns]))
    _write_ranges(file, "turns", start, [len(trajectory.turns) for trajectory in trajectories])


def _write_score(file: SwmrFile, trajectories: Sequence[Trajectory]) -> None:
    items = [item for trajectory in trajectories for item in trajectory.header.score.items()]
    start = file.extend("score/name", file.numbers("names", [name for name, _ in items]))
    file.extend("score/value", [value for _, value in items])
    _write_ranges(file, "score", start, [len(trajectory.header.score) for trajectory in trajectories])


def _write_ranges(file: SwmrFile, group: str, start: int, lengths: Sequence[int]) -> None:
    counts = np.array(lengths, dtype=np.int64)
    file.extend(f"{group}/first", start + np.cumsum(counts) - counts)
    file.extend(f"{group}/count", counts)
