"""The account of every prompt: `ledger/<attempt>.jsonl`, one JSON object per line, only ever appended to.

    issued ──► finished ──► trained(step)
       │           │
       └───────────┴──────► dropped(reason)

`issued`: admitted to the pool. `finished`: its samples are in (all of them, or as many as the policy wants).
`trained` and `dropped` are terminal: every issued prompt reaches exactly one of them. A dropped prompt may be issued
again, and then is a new account. `rewound` says that this attempt goes on from a checkpoint: what stands between byte
`offset` of `attempt` and this line is superseded, and stays where it is. Lines have `t` (Unix time in seconds).
"""

import errno
import os
import threading
import time
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
    attempt: int = 0
    """`rewound`"""
    offset: int = 0
    """`rewound`: bytes."""


class Ledger:
    """Writes one attempt's file; every method may be called from any thread, and raises RunFolderError naming the file
    where the disk does not take it."""

    def __init__(self, folder: Path, *, attempt: int) -> None:
        """Raises RunFolderError also where the attempt has a file already."""
        self.attempt = attempt
        self._path = folder / f"{attempt}.jsonl"
        self._encoder = msgspec.json.Encoder()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("xb", buffering=0)
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
        """Bytes written: with `attempt`, the position that a checkpoint keeps."""
        with self._lock:
            return self._file.tell()

    def issued(self, group_id: str, order: int) -> None:
        """The prompt has been admitted."""
        self._append(Entry(t=time.time(), event="issued", group_id=group_id, order=order))

    def finished(self, group_id: str, samples: int) -> None:
        """The prompt's samples are in."""
        self._append(Entry(t=time.time(), event="finished", group_id=group_id, samples=samples))

    def trained(self, group_id: str, step: int) -> None:
        """The prompt was part of training step `step`."""
        self._append(Entry(t=time.time(), event="trained", group_id=group_id, step=step))

    def dropped(self, group_id: str, reason: str, *, detail: str = "") -> None:
        """The prompt will not be trained on."""
        self._append(Entry(t=time.time(), event="dropped", group_id=group_id, reason=reason, detail=detail))

    def truncate_after(self, offset: int, *, attempt: int) -> None:
        """Supersede everything after a checkpoint's position; (0, attempt=0) supersedes all there is."""
        self._append(Entry(t=time.time(), event="rewound", attempt=attempt, offset=offset))

    def sync(self) -> None:
        """Make every entry durable."""
        with self._lock:
            self._sync()

    def close(self) -> None:
        """Make every entry durable, and end."""
        with self._lock:
            if not self._file.closed:
                try:
                    self._sync()
                finally:
                    self._file.close()

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise RunFolderError(f"{self._path}: {error}") from error

    def _append(self, entry: Entry) -> None:
        line = self._encoder.encode(entry) + b"\n"
        with self._lock:
            start = self._file.tell()
            try:
                written = self._file.write(line)
                reason = "" if written == len(line) else os.strerror(errno.ENOSPC)
            except OSError as error:
                reason = str(error)
            if reason:
                os.ftruncate(self._file.fileno(), start)  # half a line would make the rest unreadable
                self._file.seek(start)
                raise RunFolderError(f"{self._path}: {reason}")
