"""A model folder, recipes and batches small enough to compute everything twice."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nexrl.config.schema import (
    ActorConfig,
    AlgorithmConfig,
    DataConfig,
    ModelConfig,
    Recipe,
    ServiceConfig,
    TrainerConfig,
    TrainServiceConfig,
)
from nexrl.errors import CommError
from nexrl.train_service import TrainWorker, plan_shards
from nexrl.types import BatchRow, Shard, Trajectory, TrajectoryHeader

VOCABULARY = 23


def make_model_folder(folder: Path, *, layers: int = 2, tied: bool = True) -> Path:
    """A Qwen3 config and a character tokenizer, without weights."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": tied,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }
    (folder / "config.json").write_text(json.dumps(config))
    vocabulary = {"<pad>": 0, "<eos>": 1} | {chr(97 + i): i + 2 for i in range(VOCABULARY - 2)}
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "added_tokens": [],
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


class MemorySource:
    """TrajectorySource over a dict."""

    def __init__(self, trajectories: Iterable[Trajectory]) -> None:
        self.held = {trajectory.header.trajectory_id: trajectory for trajectory in trajectories}
        self.asked: list[str] = []

    def fetch(self, rows: Iterable[BatchRow]) -> dict[str, Trajectory]:
        names = [row.trajectory_id for row in rows]
        self.asked += names
        missing = [name for name in names if name not in self.held]
        if missing:
            raise CommError(f"recorder-0 does not hold {missing}")
        return {name: self.held[name] for name in names}


def make_trajectory(name: str, tokens: Sequence[int], mask: Sequence[int], logprobs: Sequence[float]) -> Trajectory:
    header = TrajectoryHeader(
        trajectory_id=name,
        group_id=name,
        task_id=name,
        order=0,
        run_id=0,
        attempt=0,
        sequence=0,
        model_tag="default",
        is_val=False,
        num_tokens=len(tokens),
        num_trained=sum(mask),
        reward=0.0,
        score={},
        finish_reason="stop",
        version_min=0,
        version_max=0,
        data_source="",
        worker="",
        seed=0,
        temperature=1.0,
        started=0.0,
        finished=0.0,
        recorder="recorder-0",
    )
    return Trajectory(
        header=header,
        tokens=np.array(tokens, dtype=np.int32),
        loss_mask=np.array(mask, dtype=np.uint8),
        logprobs=np.array(logprobs, dtype=np.float32),
    )


def make_trajectories(lengths: Sequence[int], *, seed: int = 0) -> list[Trajectory]:
    """Random tokens; prompts of a third of each, at least one token; masks with holes as multi-turn episodes have."""
    random = np.random.default_rng(seed)
    made = []
    for index, length in enumerate(lengths):
        mask = (random.random(length) < 0.8).astype(int)
        mask[: max(1, length // 3)] = 0
        mask[-1] = length > 1
        logprobs = np.where(mask, -random.random(length) * 4, 0.0)
        tokens = random.integers(2, VOCABULARY, length)
        made.append(make_trajectory(f"t{index}", tokens.tolist(), mask.tolist(), logprobs.tolist()))
    return made


def rows_of(trajectories: Sequence[Trajectory], *, seed: int = 1) -> list[BatchRow]:
    """Rows with random advantages of both signs."""
    advantages = np.random.default_rng(seed).normal(size=len(trajectories))
    return [
        BatchRow(item.header.trajectory_id, "recorder-0", item.header.num_tokens, item.header.num_trained, float(value))
        for item, value in zip(trajectories, advantages, strict=True)
    ]


def make_recipe(
    model: Path,
    *,
    algorithm: AlgorithmConfig | None = None,
    supervised: bool = False,
    steps: int = 10,
    dtype: str = "float64",
    gradient_checkpointing: bool = False,
    init: str = "random",
    **actor: Any,
) -> Recipe:
    """A recipe whose only interesting part is the trainer's."""
    model_config = ModelConfig(
        path=str(model), init=init, dtype=dtype, enable_gradient_checkpointing=gradient_checkpointing
    )
    recipe = Recipe(
        experiment_name="test",
        data=DataConfig(type="mock", seed=7, rollout_repeat_n=2),
        trainer=TrainerConfig(total_train_steps=steps),
        algorithm=algorithm or AlgorithmConfig(),
        service=ServiceConfig(
            train_service={"main_actor": TrainServiceConfig(actor=ActorConfig(model=model_config, **actor))}
        ),
    )
    if supervised:
        worker = replace(recipe.rollout_worker, type="supervised")
        trainer = replace(recipe.trainer, type="self_hosted_cross_entropy")
        recipe = replace(recipe, rollout_worker=worker, trainer=trainer)
    return recipe


def make_worker(recipe: Recipe, trajectories: Sequence[Trajectory]) -> TrainWorker:
    worker = TrainWorker(recipe, source=MemorySource(trajectories), device=torch.device("cpu"))
    worker.init_model()
    return worker


def plan_for(
    rows: Sequence[BatchRow], *, step: int = 1, parts: int = 1, max_tokens: int = 10_000, **options: Any
) -> tuple[Shard, ...]:
    """Shards with the rows in `parts` optimizer steps."""
    size = -(-len(rows) // parts)
    minis = [rows[start : start + size] for start in range(0, len(rows), size)]
    plan = {"world_size": 1, "epochs": 1, "temperature": 1.0} | options
    return plan_shards(minis, max_tokens=max_tokens, step=step, **plan)


def one_shard(rows: Sequence[BatchRow], **options: Any) -> Shard:
    """The only rank's shard."""
    return plan_for(rows, **options)[0]


def weights_of(worker: TrainWorker) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in worker.tensors()}
