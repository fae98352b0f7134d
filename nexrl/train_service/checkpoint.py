"""Distributed checkpoints of one train service: weights, optimizer state and progress, readable on any number of ranks.

    model.<name>        weights by Hugging Face name, tied ones once
    optimizer.…         AdamW's state by name
    progress            float64 [3]: training steps done, updates skipped in a row, KL coefficient

The learning rate is a function of the step (schedule.py), and training draws no random numbers: nothing else is needed
to continue bit by bit.
"""

import pickle
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from nexrl.errors import CheckpointError
from nexrl.train_service.fsdp import FsdpBackend


class Checkpointer:
    """Saves in the background, one checkpoint at a time; every method is collective over the ranks.

    Planning and writing go on beside training and exchange messages between ranks, hence a process group of their own.
    """

    def __init__(self, backend: FsdpBackend) -> None:
        self._backend = backend
        self._group = dist.new_group(backend="gloo")
        self._written: Future[Any] = Future()
        self._written.set_result(None)

    def save(self, path: Path, *, progress: torch.Tensor, weight_only: bool) -> None:
        """Returns when weights may change again; `written` says when the folder is on disk.

        Waits for the former checkpoint first, whose own `written` says how it ended.
        """
        self.wait()
        state = self._state(progress, weight_only=weight_only)
        try:
            written = async_save(state, checkpoint_id=path, process_group=self._group)
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"checkpoint {path}: {_reason(error)}") from error
        self._written = _translated(written, path)

    @property
    def written(self) -> "Future[Any]":
        """Of the newest checkpoint: done when it is on disk, with CheckpointError when it could not be written."""
        return self._written

    def wait(self) -> None:
        """Until nothing is being written."""
        wait([self._written])

    def load(self, path: Path, *, weight_only: bool) -> torch.Tensor:
        """Weights, and unless `weight_only` the optimizer's state, from `path`; returns its progress.

        Raises CheckpointError naming what is missing, of another shape (nothing is changed then) or unreadable.
        """
        self.wait()
        state = self._state(torch.zeros(3, dtype=torch.float64), weight_only=weight_only)
        _check(path, state)
        try:
            load(state, checkpoint_id=path, process_group=self._group)
        except (CheckpointException, OSError) as error:
            raise CheckpointError(f"checkpoint {path}: {_reason(error)}") from error
        if not weight_only:
            set_optimizer_state_dict(self._backend.model, self._backend.optimizer, state["optimizer"])
        progress: torch.Tensor = state["progress"]
        return progress

    def _state(self, progress: torch.Tensor, *, weight_only: bool) -> dict[str, Any]:
        backend = self._backend
        state: dict[str, Any] = {
            "model": {name: parameter.detach() for name, parameter in backend.model.named_parameters()},
            "progress": progress,
        }
        if not weight_only:
            state["optimizer"] = get_optimizer_state_dict(backend.model, backend.optimizer)
        return state


def _translated(written: Any, path: Path) -> "Future[Any]":
    """The same future, failing with CheckpointError."""
    outcome: Future[Any] = Future()

    def finish(done: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            outcome.set_result(None)
        else:
            outcome.set_exception(CheckpointError(f"checkpoint {path}: {_reason(error)}"))

    written.add_done_callback(finish)
    return outcome


def _reason(error: BaseException) -> str:
    """One line; torch's CheckpointException holds a traceback per rank, of which the errors are named."""
    if isinstance(error, CheckpointException):
        return "; ".join(f"rank {rank}: {_reason(cause)}" for rank, (cause, _) in sorted(error.failures.items()))
    return f"{type(error).__name__}: {error}"


def _check(path: Path, state: dict[str, Any]) -> None:
    """Compare names and shapes before anything is overwritten."""
    if not (path / ".metadata").is_file():
        raise CheckpointError(f"checkpoint {path}: found no .metadata, needs a complete distributed checkpoint")
    try:
        stored = FileSystemReader(path).read_metadata().state_dict_metadata
    except (OSError, pickle.UnpicklingError, EOFError, ValueError, LookupError, AttributeError, ImportError) as error:
        raise CheckpointError(f"checkpoint {path}: .metadata cannot be read: {_reason(error)}") from error
    for name, value in _flat(state):
        if not isinstance(value, torch.Tensor):
            continue
        entry = stored.get(name)
        if entry is None:
            raise CheckpointError(f"checkpoint {path}: has no {name}")
        if isinstance(entry, TensorStorageMetadata) and entry.size != value.size():
            raise CheckpointError(f"checkpoint {path}: {name} is {list(entry.size)}, needs {list(value.size())}")


def _flat(state: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in state.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
