"""Checkpoints as one atomic unit: `checkpoints/step_000100/`, complete when it holds READY.

model/       distributed checkpoint: weights, optimizer, schedule, generators of every rank
state.json   progress, position in the data, ledger offset
READY        written last, before the folder gets its name by rename
"""

import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec

from nexrl.controller.progress import FORMAT, ControllerState
from nexrl.errors import CheckpointError

logger = logging.getLogger(__name__)


class ModelCheckpointer(Protocol):
    """The part of the train service that checkpoints need."""

    def save_checkpoint(self, local_path: str, global_step: int = ..., save_weight_only: bool = ...) -> "Future[Any]":
        """Resolves when every rank's part is on disk; weights may change as soon as the call has returned."""
        ...

    def load_checkpoint(self, path: str, load_weight_only: bool = ...) -> Any:
        """Every rank loads its part."""
        ...


class Checkpoints:
    """Saves in the background, one at a time, and finds what can be resumed from."""

    def __init__(
        self,
        folder: Path,
        model: ModelCheckpointer,
        *,
        save_freq: int,
        keep: int,
        before_publish: Callable[[], None],
        on_saved: Callable[[int, Path], None],
    ) -> None:
        """`before_publish` makes durable what the checkpoint refers to (trajectories, ledger)."""
        self._folder = folder
        self._model = model
        self._save_freq = save_freq
        self._keep = keep
        self._before_publish = before_publish
        self._on_saved = on_saved
        self._pending: tuple[Future[Any], Path, ControllerState] | None = None
        self._newest = -1

    def due(self, step: int) -> bool:
        """Whether `save_freq` asks for a checkpoint after `step`."""
        return self._save_freq > 0 and step % self._save_freq == 0

    def save(self, state: ControllerState) -> None:
        """Start saving; an earlier save that is still under way is published first."""
        self.wait()
        step = state.progress.step
        if step == self._newest:
            return
        partial = self._folder / f".step_{step:06d}.partial"
        try:
            for left_over in self._folder.glob(".step_*"):  # of an attempt that was killed
                shutil.rmtree(left_over)
            partial.mkdir(parents=True)
        except OSError as error:
            raise CheckpointError(f"checkpoint {partial}: {error}") from error
        self._pending = (self._model.save_checkpoint(str(partial / "model"), global_step=step), partial, state)

    def poll(self) -> None:
        """Publish a save that is complete, without waiting for one that is not."""
        if self._pending is not None and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait for the save under way, and publish it; raises what its ranks raised, and CheckpointError."""
        if self._pending is None:
            return
        future, partial, state = self._pending
        self._pending = None
        try:
            future.result()
            self._before_publish()
            self._publish(partial, state)
        except OSError as error:
            raise CheckpointError(f"checkpoint {partial}: {error}") from error

    def load(self, path: Path) -> ControllerState:
        """Load weights and optimizer into the train service, and return the rest."""
        state = read_state(path)
        self._model.load_checkpoint(str(path / "model"))
        if path.resolve().parent == self._folder.resolve():  # that of another run is not here yet
            self._newest = state.progress.step
        return state

    def _publish(self, partial: Path, state: ControllerState) -> None:
        step = state.progress.step
        _write_durably(partial / "state.json", msgspec.json.format(msgspec.json.encode(state)))
        _write_durably(partial / "READY", f"{step}\n".encode())
        _sync_folder(partial)
        target = self._folder / f"step_{step:06d}"
        if target.exists():  # the same step of an attempt that this one rewound, or one that never got its READY
            _remove(target)
        partial.rename(target)
        _sync_folder(self._folder)
        self._newest = step
        self._prune()
        self._on_saved(step, target)

    def _prune(self) -> None:
        if self._keep:
            for old in complete_checkpoints(self._folder)[: -self._keep]:
                _remove(old)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints with READY, oldest first; a copy under a name of its own (`step_000100.kept`) is none."""
    found = {int(path.name[5:]): path for path in folder.glob("step_*") if path.name[5:].isdecimal()}
    return [path for _, path in sorted(found.items()) if (path / "READY").exists()]


def newest_checkpoint(folder: Path) -> Path | None:
    """The one that `resume.mode: auto` takes."""
    return next(reversed(complete_checkpoints(folder)), None)


def read_state(path: Path) -> ControllerState:
    """`state.json` of a complete checkpoint; raises CheckpointError naming what is wrong with the folder."""
    if not path.is_dir():
        raise CheckpointError(f"resume: {path} is not a folder; needs a checkpoint such as …/checkpoints/step_000100")
    if not (path / "READY").exists():
        raise CheckpointError(f"resume: {path} has no READY: it was not completed, choose another checkpoint")
    try:
        state = msgspec.json.decode((path / "state.json").read_bytes(), type=ControllerState)
    except (OSError, msgspec.DecodeError) as error:
        raise CheckpointError(f"resume: {path / 'state.json'}: {error}") from error
    if state.format != FORMAT:
        raise CheckpointError(f"resume: {path} has format {state.format}, this version reads {FORMAT}")
    return state


def _remove(checkpoint: Path) -> None:
    """Away with its name first: whoever is killed in between leaves no folder with READY and half a model."""
    shutil.rmtree(checkpoint.rename(checkpoint.with_name(f".{checkpoint.name}.removed")))


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make names in `folder` durable: a rename is only as safe as the folder that holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
