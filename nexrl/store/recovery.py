"""What is left of a run's trajectory files after a crash."""

from dataclasses import dataclass
from pathlib import Path

from nexrl.errors import StoreError
from nexrl.store.decode import trajectories
from nexrl.store.layout import TRAJECTORIES, files_of
from nexrl.store.open_file import OpenFile
from nexrl.store.superblock import is_closed

_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """The state of one trajectory file. What its writer held in memory when it died is known to the ledger only."""

    path: Path
    closed: bool
    """False while it is written, and after its writer was killed."""
    intact: int
    """Committed trajectories that read back whole."""
    damaged: int
    """Committed trajectories that do not: the file was cut off or overwritten."""
    truncated: int
    """Trajectories that were being written when the writer stopped; readers don't see them."""
    last_commit: float
    """Unix time in seconds; 0.0 where nothing was committed."""
    problem: str = ""
    """Why the file, or its first damaged trajectory, cannot be read."""

    @property
    def ok(self) -> bool:
        """Everything that was committed can be read."""
        return not self.problem


def inspect_run(path: Path) -> list[FileReport]:
    """One report per trajectory file of a run folder (or for the one file `path`), every trajectory read.

    Changes nothing. Damage is reported, not raised; raises StoreError only where `path` does not exist.
    """
    return [inspect_file(file) for file in files_of(path, TRAJECTORIES)]


def inspect_file(path: Path) -> FileReport:
    """The report on one file; every trajectory is read."""
    try:
        closed = is_closed(path)
        with OpenFile(path, TRAJECTORIES) as file:
            damaged, problem = _read_all(file)
            begun = max(file.length(name) for name in _row_columns())
            return FileReport(
                path=path,
                closed=closed,
                intact=file.rows - damaged,
                damaged=damaged,
                truncated=max(0, begun - file.rows),
                last_commit=file.last_commit,
                problem=problem,
            )
    except StoreError as error:
        return FileReport(
            path=path, closed=False, intact=0, damaged=0, truncated=0, last_commit=0.0, problem=str(error)
        )


def _row_columns() -> list[str]:
    return [column.path for column in TRAJECTORIES.columns if "/" not in column.path]


def _read_all(file: OpenFile) -> tuple[int, str]:
    """(damaged trajectories, why the first of them is)."""
    damaged, problem = 0, ""
    for start in range(0, file.rows, _BLOCK):
        stop = min(start + _BLOCK, file.rows)
        try:
            trajectories(file, start, stop)
        except StoreError:
            for row in range(start, stop):
                try:
                    trajectories(file, row, row + 1)
                except StoreError as error:
                    damaged += 1
                    problem = problem or str(error)
    return damaged, problem
