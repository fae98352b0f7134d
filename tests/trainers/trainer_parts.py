"""Recipes, groups and a train service for the trainers' tests."""

from dataclasses import replace

from nexrl.config.schema import (
    ActorConfig,
    AlgorithmConfig,
    DataConfig,
    ModelConfig,
    Recipe,
    RolloutWorkerConfig,
    ServiceConfig,
    TrainerConfig,
    TrainServiceConfig,
)
from nexrl.config.schema.service import InferenceServiceConfig
from nexrl.mock import MockTrainServiceClient
from nexrl.types import TrajectoryGroup, TrajectoryHeader


class RecordingService(MockTrainServiceClient):
    """Keeps the batches that it is asked to train on."""

    changes_weights = True

    def __init__(self, world_size=1, metrics=None):
        super().__init__()
        self.calls = []
        self.batches = []
        self._ranks = world_size
        self._metrics = metrics or {}

    @property
    def world_size(self):
        return self._ranks

    def initialize_worker(self):
        self.calls.append("initialize_worker")
        return []

    def init_model(self):
        self.calls.append("init_model")

    def update_actor(self, batch):
        self.calls.append("update_actor")
        self.batches.append(batch)
        return {"metrics": dict(self._metrics), "meta_info": {}}


def recipe(*, custom_class="", kind="self_hosted_grpo", prompts=4, samples=4, temperature=1.0, algorithm=None, **actor):
    """`actor` are keys of ActorConfig, `algorithm` keys of AlgorithmConfig."""
    model = ModelConfig(path="model")
    worker = RolloutWorkerConfig(temperature=temperature, max_sequence_length=64)
    if kind == "self_hosted_cross_entropy":
        worker = replace(worker, type="supervised")
    return Recipe(
        experiment_name="test",
        data=DataConfig(
            data_files=("train.jsonl",),
            batch_size=prompts,
            rollout_repeat_n=samples,
            max_prompt_length=8,
            max_response_length=8,
        ),
        rollout_worker=worker,
        trainer=TrainerConfig(type=kind, custom_class=custom_class),
        algorithm=AlgorithmConfig(**(algorithm or {})),
        service=ServiceConfig(
            inference_service=InferenceServiceConfig(max_tokens=8, max_model_len=64),
            train_service={"main_actor": TrainServiceConfig(actor=ActorConfig(model=model, **actor))},
        ),
    )


def header(name, run_id=0, *, reward=0.0, sequence=0, num_tokens=5, num_trained=2, version=0, **others):
    fields = {
        "trajectory_id": f"{name}/{run_id}.0.{sequence}",
        "group_id": name,
        "task_id": name,
        "order": 0,
        "run_id": run_id,
        "attempt": 0,
        "sequence": sequence,
        "model_tag": "default",
        "is_val": False,
        "num_tokens": num_tokens,
        "num_trained": num_trained,
        "reward": reward,
        "score": {},
        "finish_reason": "stop",
        "version_min": version,
        "version_max": version,
        "data_source": "words",
        "worker": "rollout-0@here",
        "seed": 1,
        "temperature": 1.0,
        "started": 0.0,
        "finished": 1.0,
        "recorder": "recorder-0",
    }
    return TrajectoryHeader(**(fields | others))


def group(name, rewards, **fields):
    """One sequence per run."""
    return group_of(name, [header(name, run_id, reward=reward, **fields) for run_id, reward in enumerate(rewards)])


def group_of(name, headers, order=0):
    return TrajectoryGroup(group_id=name, order=order, headers=tuple(headers))


def advantages(batch):
    """Trajectory id → advantage."""
    return {row.trajectory_id: row.advantage for row in batch.rows}
