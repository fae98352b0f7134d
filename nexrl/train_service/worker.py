"""The work of one trainer rank. Every rank gets the same calls in the same order, each with its own shard."""

import dataclasses
import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore  # torch.distributed has it, untyped

from nexrl.algorithms.kl_control import AdaptiveKL
from nexrl.config.schema import Recipe
from nexrl.errors import NexRLError, TrainingError
from nexrl.models import export_hf, load_policy
from nexrl.train_service.attention import ATTENTION, register_attention
from nexrl.train_service.checkpoint import Checkpointer
from nexrl.train_service.collate import check_row
from nexrl.train_service.fsdp import FsdpBackend, shard_model
from nexrl.train_service.records import LoadReply, LogProbReply, UpdateReply, WorkerInfo
from nexrl.train_service.updater import Updater
from nexrl.types import Shard, Trajectory
from nexrl.types.protocols import TrajectorySource

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """What `init_model` makes."""

    backend: FsdpBackend
    updater: Updater
    checkpointer: Checkpointer
    vocab_size: int
    parameters: int


class TrainWorker:
    """The service logic of one rank, and the WeightSource of the weight plane.

    `trainer.type: self_hosted_cross_entropy` trains on the likelihood of the trained tokens, any other type by
    `algorithm`. Ranks are those of torch's default process group; without one, `init_model` makes one of this rank
    alone.
    """

    def __init__(self, recipe: Recipe, *, source: TrajectorySource, device: torch.device) -> None:
        self._recipe = recipe
        self._source = source
        self._device = device
        self._loaded: _Loaded | None = None
        self._held: dict[str, Trajectory] = {}
        """Rows fetched for log-probs, kept for the update that follows."""

    def init_model(self) -> None:
        """Load model, reference (where there is a KL loss) and optimizer; raises ConfigError, DataError."""
        if not dist.is_initialized():
            dist.init_process_group(store=HashStore(), rank=0, world_size=1)
        actor, algorithm = self._recipe.service.actor_service.actor, self._recipe.algorithm
        supervised = self._recipe.trainer.type == "self_hosted_cross_entropy"
        register_attention()
        model = self._load()
        parameters = sum(parameter.numel() for parameter in model.parameters())
        backend = FsdpBackend(model, actor, device=self._device)
        updater = Updater(
            backend,
            self._load_reference() if algorithm.use_kl_loss and not supervised else None,
            actor=actor,
            algorithm=None if supervised else algorithm,
            total_steps=self._recipe.trainer.total_train_steps,
        )
        vocab_size = model.get_input_embeddings().num_embeddings
        self._loaded = _Loaded(backend, updater, Checkpointer(backend), vocab_size, parameters)

    def compute_log_prob(self, shard: Shard, *, reference: bool = False) -> LogProbReply:
        """Log-probs of a shard's trained tokens under the current weights, or under the reference model; they are kept
        for the `update_actor` that follows. KL sums are there once both are."""
        updater = self._model.updater
        found = updater.remember(shard, self._fetch(shard), reference=reference)
        sums = {name: float(values.sum()) for name, values in found.items()}
        return LogProbReply(logprob_sums=sums, kl_sums=updater.kl_sums() if reference else {})

    def update_actor(self, shard: Shard) -> UpdateReply:
        """One training step. Raises CommError when rows cannot be fetched, TrainingError when the numbers cannot be
        trusted."""
        trajectories = self._fetch(shard)
        metrics = self._model.updater.update(shard, trajectories)
        self._held = {}
        tokens = sum(trajectory.header.num_tokens for trajectory in trajectories.values())
        return UpdateReply(metrics=metrics, meta_info={"global_step": float(shard.step), "rank_tokens": float(tokens)})

    def save_checkpoint(self, path: Path, *, global_step: int, weight_only: bool = False) -> None:
        """Start to save; returns when weights may change again. `checkpoint_written` says when it is on disk."""
        updater = self._model.updater
        progress = torch.tensor([global_step, updater.streak, updater.kl.coefficient], dtype=torch.float64)
        self._model.checkpointer.save(path, progress=progress, weight_only=weight_only)

    def checkpoint_written(self) -> "Future[Any]":
        """Done when the newest checkpoint is on disk; fails with CheckpointError."""
        return self._model.checkpointer.written

    def load_checkpoint(self, path: Path, *, weight_only: bool = False) -> LoadReply:
        """Continue from `path`, bit by bit unless `weight_only`; raises CheckpointError naming what does not fit."""
        updater = self._model.updater
        step, streak, coefficient = self._model.checkpointer.load(path, weight_only=weight_only).tolist()
        if weight_only:
            return LoadReply(global_step=-1)
        updater.step, updater.streak = int(step), int(streak)
        if isinstance(updater.kl, AdaptiveKL):
            updater.kl = dataclasses.replace(updater.kl, coefficient=coefficient)
        return LoadReply(global_step=updater.step)

    def export_hf(self, path: Path) -> None:
        """Write the current weights as a Hugging Face folder (rank 0 does)."""
        state = {name: tensor.cpu() for name, tensor in self.tensors() if self._rank == 0}
        if self._rank == 0:
            export_hf(state, self._recipe.service.actor_service.actor.model.path, path)

    def tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """WeightSource: full tensors by Hugging Face name, tied ones once; every rank must exhaust it."""
        return self._model.backend.tensors()

    def worker_info(self) -> WorkerInfo:
        """Who this rank is, and how far."""
        return WorkerInfo(
            rank=self._rank,
            world_size=dist.get_world_size() if dist.is_initialized() else 1,
            host=socket.gethostname(),
            pid=os.getpid(),
            device=str(self._device),
            parameters=self._loaded.parameters if self._loaded else 0,
            global_step=self._loaded.updater.step if self._loaded else 0,
        )

    def destroy(self) -> None:
        """Let the model go, once a checkpoint under way is written."""
        if self._loaded is not None:
            self._loaded.checkpointer.wait()
        self._loaded = None

    @property
    def _model(self) -> _Loaded:
        if self._loaded is None:
            raise TrainingError("the model is not loaded: init_model comes first")
        return self._loaded

    @property
    def _rank(self) -> int:
        return dist.get_rank() if dist.is_initialized() else 0

    def _load(self) -> "PreTrainedModel":
        config = self._recipe.service.actor_service.actor.model
        return load_policy(config, seed=self._recipe.data.seed, device=self._device, attention=ATTENTION)

    def _load_reference(self) -> "PreTrainedModel":
        """The weights that training started from, also after a resume."""
        reference = self._load().requires_grad_(requires_grad=False)
        shard_model(reference, self._recipe.service.actor_service.actor.fsdp_config, device=self._device)
        return reference

    def _fetch(self, shard: Shard) -> dict[str, Trajectory]:
        """Rows of the shard by trajectory id, checked. All ranks go on, or none does."""
        rows = [row for mini in shard.mini_batches for micro in mini.micro_batches for row in micro.rows]
        vocab_size = self._model.vocab_size
        failure: NexRLError | None = None
        try:
            missing = [row for row in rows if row.trajectory_id not in self._held]
            fetched = dict(self._source.fetch(missing)) if missing else {}
            for row in missing:
                check_row(row, fetched[row.trajectory_id], vocab_size=vocab_size)
            self._held |= fetched
        except NexRLError as error:
            failure = error
        failed_rank = self._agree(failed=failure is not None)
        if failure is not None:
            raise failure
        if failed_rank is not None:
            raise TrainingError(f"trainer rank {failed_rank} did not get its rows (training step {shard.step})")
        return {row.trajectory_id: self._held[row.trajectory_id] for row in rows}

    def _agree(self, *, failed: bool) -> int | None:
        """The highest rank that failed, None where none did."""
        mine = self._rank if failed else -1
        if dist.is_initialized() and dist.get_world_size() > 1:
            flag = torch.tensor([mine], device=self._device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            mine = int(flag)
        return None if mine < 0 else mine
