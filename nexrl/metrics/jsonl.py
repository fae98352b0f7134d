"""Files of JSON lines: appended to by one process, read by others while they grow."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from nexrl.errors import RunFolderError
from nexrl.metrics.record import MetricRecord


class JsonLines:
    """A file that takes one JSON object per line, each in one write, so that a reader never waits for a buffer.

    Numbers that JSON lacks (NaN, infinities) become null. A line that an earlier process was killed in the middle of
    is cut off on opening. A file that cannot be written raises RunFolderError, naming it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _cut_torn_tail(path)
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise RunFolderError(f"cannot write {path}: {error.strerror}") from error

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line."""
        line = msgspec.json.encode(record) + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise RunFolderError(f"cannot write {self.path}: {error.strerror}") from error
        if written != len(line):
            raise RunFolderError(f"cannot write {self.path}: only {written} of {len(line)} bytes fitted on the disk")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, in order; a last line that is still being written is left out.

    A missing file has none. A broken line in the middle raises RunFolderError with file and line number.
    """
    if not path.exists():
        return
    *lines, _tail = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, 1):
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise RunFolderError(f"{path}, line {number}: not a JSON object: {error}") from error


class JsonlSink:
    """`metrics.jsonl`: one line per training step with `step`, `t` (Unix seconds) and every figure by name.

    Validation is no step; its figures stand in `events.jsonl`. After a resume the steps since the checkpoint come a
    second time: the last line of a step counts.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)

    def write(self, record: MetricRecord) -> None:
        """Write the line of a step."""
        if record.kind == "step":
            self._lines.append({"step": record.step, "t": record.time, **record.values})

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def _cut_torn_tail(path: Path) -> None:
    if not path.is_file():
        return
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
