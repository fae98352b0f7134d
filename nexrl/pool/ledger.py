"""The account of every prompt: `ledger/<attempt>.jsonl`, one JSON object per line, only ever appended to.

    issued ──► finished ──► trained(step)
       │           │
       └───────────┴──────► dropped(reason)

`issued`: admitted to the pool. `finished`: its samples are in (all of them, or as many as the policy wants).
`trained` and `dropped` are terminal: every issued prompt reaches exactly one of them. A dropped prompt may be issued
again, and then is a new account. `rewound` says that this attempt goes on from a checkpoint: what stands between byte
`offset` and this line is superseded, and stays where it is. An offset counts bytes over the files of all attempts, one
after the other. Lines have `t` (Unix time in seconds).
"""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

from nexrl.errors import RunFolderError

Event = Literal["issued", "finished", "trained", "dropped", "rewound"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. Pool → ledger → whoever audits."""

    t: float
    event: Event
    group_id: str = ""
    order: int = -1
    """`issued`"""
    samples: int = 0
    """`finished`: samples that are in."""
    step: int = 0
    """`trained`: steps count from 1."""
    reason: str = ""
    """`dropped`: one of few words, to count by."""
    detail: str = ""
    """`dropped`: what the last failed sample said."""
    offset: int = 0
    """`rewound`: bytes."""


class Ledger:
    """Writes one attempt's file; every method may be called from any thread, and raises RunFolderError naming the file
    where the disk does not take it."""

    def __init__(self, folder: Path, *, attempt: int) -> None:
        """Raises RunFolderError also where the attempt has a file already."""
        self._path = folder / f"{attempt}.jsonl"
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._base = sum(path.stat().st_size for number, path in ledger_files(folder) if number < attempt)
            self._file = self._path.open("xb")
        except FileExistsError as error:
            raise RunFolderError(f"{self._path} exists: attempt {attempt} has run, needs a new number") from error
        except OSError as error:
            raise RunFolderError(f"{self._path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def offset(self) -> int:
        """The position that a checkpoint keeps."""
        with self._lock:
            return self._base + self._file.tell()

    def issued(self, group_id: str, order: int) -> None:
        """The prompt has been admitted."""
        self._append(Entry(t=time.time(), event="issued", group_id=group_id, order=order))

    def finished(self, group_id: str, samples: int) -> None:
        """The prompt's samples are in."""
        self._append(Entry(t=time.time(), event="finished", group_id=group_id, samples=samples))

    def trained(self, group_ids: Iterable[str], *, step: int) -> None:
        """These prompts were part of training step `step`."""
        now = time.time()
        self._append(*(Entry(t=now, event="trained", group_id=group_id, step=step) for group_id in group_ids))

    def dropped(self, group_id: str, reason: str, *, detail: str = "") -> None:
        """The prompt will not be trained on."""
        self._append(Entry(t=time.time(), event="dropped", group_id=group_id, reason=reason, detail=detail))

    def rewind(self, offset: int) -> None:
        """Supersede everything after a checkpoint's position; 0 supersedes all there is."""
        self._append(Entry(t=time.time(), event="rewound", offset=offset))

    def sync(self) -> None:
        """Make every entry durable."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Make every entry durable, and end."""
        with self._lock:
            if not self._file.closed:
                self._sync()
                self._file.close()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunFolderError(f"{self._path}: {error}") from error

    def _append(self, *entries: Entry) -> None:
        with self._lock:
            try:
                self._file.write(b"".join(self._encoder.encode(entry) + b"\n" for entry in entries))
                self._file.flush()
            except OSError as error:
                raise RunFolderError(f"{self._path}: {error}") from error


def ledger_files(folder: Path) -> list[tuple[int, Path]]:
    """(attempt, file) of every attempt, in order."""
    return sorted((int(path.stem), path) for path in folder.glob("*.jsonl") if path.stem.isdigit())
