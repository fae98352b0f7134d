"""The folder of a run: made, claimed for one launcher at a time, numbered by attempt."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from nexrl.config import Recipe, dump_recipe
from nexrl.errors import RunFolderError

_LEAST_FREE = 2**30
"""Bytes that must be free for logs, trajectories and metrics."""
FULL = 2**20
"""Free bytes below which a disk is called full."""
_OF_THE_ATTEMPT = ("controller.json", "summary.json")
"""What a finished attempt leaves and the next one must not find."""


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run folder that this process has claimed."""

    path: Path
    attempt: int
    """1 for a new folder, +1 for each resume."""

    @property
    def log_dir(self) -> Path:
        """`<role>-<rank>.log` of this attempt."""
        return self.path / "logs" / str(self.attempt)

    @property
    def newest_checkpoint(self) -> Path | None:
        """The last complete one."""
        ready = sorted((self.path / "checkpoints").glob("step_*/READY"))
        return ready[-1].parent if ready else None

    @property
    def continues(self) -> str:
        """What of an earlier attempt goes on here, in words; empty for a new folder."""
        if self.attempt == 1:
            return ""
        checkpoint = self.newest_checkpoint
        if checkpoint is None:
            return f"continuing {self.path}, which has no checkpoint: from the start"
        return f"continuing {self.path} at step {int(checkpoint.name.removeprefix('step_'))}"


@contextmanager
def claimed_run_folder(recipe: Recipe, *, run_dir: Path | None = None) -> Iterator[RunFolder]:
    """Make or continue a run folder, and hold it until the block ends.

    A new one is `<run_root>/<experiment_name>/<UTC time>`, or `run_dir`, open to its owner alone. With
    `resume.mode: auto` an existing `run_dir` is continued; without `run_dir`, the newest run of the experiment that
    nobody holds and that has not finished, or finished with fewer steps than `trainer.total_train_steps` now asks for.
    Raises RunFolderError: occupied, in use (naming the pid), not writable, or less space than the run needs.
    """
    try:
        path = _chosen(recipe, run_dir)
        (path / "launch").mkdir(mode=0o700, exist_ok=True)
        with _locked(path):
            _require_space(path, needed_bytes(recipe))
            yield _begun(path, recipe)
    except OSError as error:
        named = error.filename or run_dir or recipe.launch.run_root
        raise RunFolderError(f"cannot use the run folder: {error.strerror or error}: {named}") from error


def needed_bytes(recipe: Recipe) -> int:
    """Free space that a run must find: 1 GiB, and room for its checkpoints (weights and two moments, kept ones and the
    one being written) and the exported model, each weight taken to be as large as in the model folder."""
    path = recipe.service.actor_service.actor.model.path
    weights = sum(file.stat().st_size for file in Path(path).glob("*.safetensors")) if path else 0
    checkpoints = (recipe.trainer.keep_checkpoints or 1) + 1
    return _LEAST_FREE + weights * (3 * checkpoints + 1)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that no reader sees half of."""
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(content)
    half.replace(path)


def is_disk_full(path: Path) -> bool:
    """Whether the disk of a folder has less than `FULL` bytes left."""
    return shutil.disk_usage(path).free < FULL


def _chosen(recipe: Recipe, run_dir: Path | None) -> Path:
    auto = recipe.resume.mode == "auto"
    if run_dir is None:
        parent = (Path(recipe.launch.run_root).expanduser() / recipe.experiment_name).absolute()
        steps = recipe.trainer.total_train_steps
        return (_unfinished(parent, steps=steps) if auto else None) or _new(parent)
    path = run_dir.expanduser().absolute()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if next(path.iterdir(), None) is None:
        return path
    if not (path / "recipe.yaml").exists() and not (path / "launch").exists():
        raise RunFolderError(f"{path} is not empty and holds no run; name a folder that is empty or not there")
    if not auto:
        _locked_by_other(path)
        raise RunFolderError(f"{path} holds a run; resume.mode=auto continues it, another --run-dir begins anew")
    return path


def _new(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in range(1, 1000):
        path = parent / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return path
    raise RunFolderError(f"{parent} has 999 runs of the second {stamp}; name one with --run-dir")


def _unfinished(parent: Path, *, steps: int) -> Path | None:
    runs = [path.parent for path in parent.glob("*/recipe.yaml")] if parent.is_dir() else []
    for run in sorted(runs, reverse=True):
        if not _finished(run, steps=steps) and _holder(run) is None:
            return run
    return None


def _finished(run: Path, *, steps: int) -> bool:
    try:
        summary = msgspec.json.decode((run / "summary.json").read_bytes(), type=dict[str, object])
    except (FileNotFoundError, msgspec.DecodeError):
        return False
    done = summary.get("steps")
    return summary.get("exit_code") == 0 and not (isinstance(done, int) and done < steps)


def _begun(path: Path, recipe: Recipe) -> RunFolder:
    logs = path / "logs"
    logs.mkdir(exist_ok=True)
    last = max((int(folder.name) for folder in logs.iterdir() if folder.name.isdigit()), default=0)
    folder = RunFolder(path=path, attempt=last + 1)
    folder.log_dir.mkdir()
    for name in _OF_THE_ATTEMPT:
        (path / name).unlink(missing_ok=True)
    write_atomically(path / "recipe.yaml", dump_recipe(recipe).encode())
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path / "launch" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path, os.pread(handle, 20, 0)) from None
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _locked_by_other(path: Path) -> None:
    holder = _holder(path)
    if holder is not None:
        raise _in_use(path, holder)


def _holder(path: Path) -> bytes | None:
    """Text of the lock that a live launcher holds; None where none does."""
    try:
        handle = os.open(path / "launch" / "lock", os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(handle, 20, 0)
    finally:
        os.close(handle)
    return None


def _in_use(path: Path, holder: bytes) -> RunFolderError:
    pid = holder.decode(errors="replace").strip() or "unknown"
    return RunFolderError(f"{path} is in use by the launcher with pid {pid}; wait for its end, or stop it")


def _require_space(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path).free
    if free < needed:
        raise RunFolderError(
            f"not enough free disk: {path} has {free / 2**30:.2f} GiB, this run needs {needed / 2**30:.2f} GiB"
        )
