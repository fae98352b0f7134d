"""Columns of a file back into trajectories."""

import json
from typing import Any

import numpy as np

from nexrl.store.encode import BODY_TEXTS, HEADER_NAMES, HEADER_NUMBERS
from nexrl.store.open_file import OpenFile
from nexrl.types import Trajectory, TrajectoryHeader, Turn, VersionSpan


def header_columns(file: OpenFile, start: int, stop: int) -> dict[str, np.ndarray]:
    """One column per header field for rows `start:stop`; each figure of `score` is a column `score/<name>`.

    Numbers have the dtype of the file (`is_val` is bool, a missing score NaN); text columns hold str, `extra` dicts.
    """
    columns: dict[str, np.ndarray] = {name: file.column(name, start, stop) for name in HEADER_NUMBERS}
    columns["is_val"] = columns["is_val"].astype(bool)
    for name in HEADER_NAMES:
        columns[name] = file.texts("names", file.column(name, start, stop))
    columns["extra"] = np.empty(stop - start, dtype=object)
    for i, text in enumerate(file.texts("names", file.column("extra", start, stop))):
        columns["extra"][i] = json.loads(text)
    for i, score in enumerate(_scores(file, start, stop)):
        for name, value in score.items():
            columns.setdefault(f"score/{name}", np.full(stop - start, np.nan))[i] = value
    return columns


def trajectories(file: OpenFile, start: int, stop: int) -> list[Trajectory]:
    """Rows `start:stop`, each equal to the record that was written."""
    if stop <= start:
        return []
    headers = _headers(file, start, stop)
    first = file.column("tokens/first", start, stop)
    count = np.array([header.num_tokens for header in headers])
    arrays = {name: file.pieces(f"tokens/{name}", first, count) for name in ("ids", "loss_mask", "logprobs")}
    texts = {name: file.texts("texts", file.column(name, start, stop)) for name in BODY_TEXTS}
    spans = _records(file, "spans", ("start", "end", "version"), start, stop)
    turns = _records(file, "turns", ("start", "end", "role"), start, stop)
    return [
        Trajectory(
            header=header,
            tokens=arrays["ids"][i],
            loss_mask=arrays["loss_mask"][i],
            logprobs=arrays["logprobs"][i],
            spans=tuple(VersionSpan(*span) for span in spans[i]),
            turns=tuple(Turn(*turn) for turn in turns[i]),
            **{name: texts[name][i] for name in BODY_TEXTS},
        )
        for i, header in enumerate(headers)
    ]


def _headers(file: OpenFile, start: int, stop: int) -> list[TrajectoryHeader]:
    columns: dict[str, list[Any]] = {name: file.column(name, start, stop).tolist() for name in HEADER_NUMBERS}
    columns["is_val"] = [bool(value) for value in columns["is_val"]]
    for name in HEADER_NAMES:
        columns[name] = list(file.texts("names", file.column(name, start, stop)))
    columns["extra"] = [json.loads(text) for text in file.texts("names", file.column("extra", start, stop))]
    columns["score"] = list(_scores(file, start, stop))
    return [TrajectoryHeader(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def _scores(file: OpenFile, start: int, stop: int) -> list[dict[str, float]]:
    return [dict(items) for items in _records(file, "score", ("name", "value"), start, stop)]


def _records(file: OpenFile, group: str, fields: tuple[str, ...], start: int, stop: int) -> list[list[tuple[Any, ...]]]:
    """Per row the tuples of `fields` of a packed group. What belongs to neighbouring rows lies side by side."""
    first, count = file.column(f"{group}/first", start, stop), file.column(f"{group}/count", start, stop)
    if not count.any():
        return [[] for _ in range(stop - start)]
    low, high = int(first[0]), int(first[-1] + count[-1])
    columns = []
    for name in fields:
        values = file.column(f"{group}/{name}", low, high)
        is_text = name in {"name", "role"}
        columns.append(file.texts("names", values).tolist() if is_text else values.tolist())
    tuples = list(zip(*columns, strict=True))
    return [tuples[begin - low : begin - low + many] for begin, many in zip(first, count, strict=True)]
