"""What happened in a run besides its steps."""

import time
from pathlib import Path
from threading import Lock
from typing import Any

from nexrl.metrics.jsonl import JsonLines


class EventLog:
    """`events.jsonl`: one line per event with `t` (Unix seconds), `event` (its kind) and what that kind tells.

    | event      | fields                                                                  |
    |------------|-------------------------------------------------------------------------|
    | phase      | name: starting, validating, training, saving, stopping                  |
    | role       | role, rank, pid                                                         |
    | validation | when: before, step, end; step; metrics: name → figure                   |
    | checkpoint | step, path                                                              |
    | error      | role, severity, message                                                 |
    | done       | exit_code                                                               |

    Safe to use from several threads.
    """

    def __init__(self, path: Path) -> None:
        self._lines = JsonLines(path)
        self._lock = Lock()

    def append(self, event: str, **fields: Any) -> None:
        """Write one event; paths are written as text. Raises RunFolderError where the file cannot be written."""
        told = {key: str(value) if isinstance(value, Path) else value for key, value in fields.items()}
        with self._lock:
            self._lines.append({"t": time.time(), "event": event, **told})

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._lines.close()
