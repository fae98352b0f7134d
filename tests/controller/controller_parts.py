"""A run without processes: real pool, ledger, feeder, checkpoints and books; trainer and recorders are lists."""

import json
import threading
from pathlib import Path

from nexrl.config.schema import (
    ActorConfig,
    DataConfig,
    ModelConfig,
    Recipe,
    ResumeConfig,
    RolloutWorkerConfig,
    ServiceConfig,
    TrainerConfig,
    TrainServiceConfig,
    ValidateConfig,
    ValidationDataConfig,
)
from nexrl.config.schema.service import InferenceServiceConfig
from nexrl.metrics import read_json_lines
from nexrl.mock import MockTrainServiceClient
from nexrl.trainers import BaseTrainer, TrainReport
from nexrl.types import Batch, BatchRow, MicroBatch, MiniBatch, SampleResult, Shard, TrajectoryHeader

LONG = 30.0
"""Seconds: nothing waits so long unless it is broken."""
HELD_OUT = ValidationDataConfig(type="mock", max_prompt_length=8, max_response_length=4)
"""Sixteen prompts for validation."""


def recipe(*, steps=3, save_freq=0, export_hf=False, validate=None, resume=None, prompts=2, samples=2, epochs=1):
    """Sums as prompts: 32 of them in an epoch of two prompts per step."""
    length = {"max_prompt_length": 8, "max_response_length": 4}
    actor = ActorConfig(model=ModelConfig(path="model"))
    return Recipe(
        experiment_name="test",
        data=DataConfig(type="mock", batch_size=prompts, rollout_repeat_n=samples, epochs=epochs, **length),
        rollout_worker=RolloutWorkerConfig(max_sequence_length=16, temperature=0.7, top_p=0.9, top_k=5, stop=("\n",)),
        trainer=TrainerConfig(total_train_steps=steps, save_freq=save_freq, export_hf=export_hf),
        service=ServiceConfig(
            inference_service=InferenceServiceConfig(max_tokens=4, max_model_len=16),
            train_service={"main_actor": TrainServiceConfig(backend="mock", actor=actor)},
        ),
        validate=validate or ValidateConfig(),
        resume=resume or ResumeConfig(),
    )


def header(task, run_id, *, reward=1.0, tokens=3):
    """What the recorder would say of one sample of `task`."""
    return TrajectoryHeader(
        trajectory_id=f"{task.group_id}/{run_id}.{task.attempt}.0",
        group_id=task.group_id,
        task_id=task.task_id,
        order=task.order,
        run_id=run_id,
        attempt=task.attempt,
        sequence=0,
        model_tag=task.model_tag,
        is_val=task.is_val,
        num_tokens=tokens,
        num_trained=tokens - 1,
        reward=reward,
        score={},
        finish_reason="stop",
        version_min=0,
        version_max=0,
        data_source=task.data_source,
        worker="rollout-0@here",
        seed=task.seed,
        temperature=1.0,
        started=0.0,
        finished=1.0,
        recorder="recorder-0",
    )


def result(task, run_id):
    """A finished sample, as a rollout worker reports it."""
    return SampleResult(
        group_id=task.group_id,
        run_id=run_id,
        attempt=task.attempt,
        is_val=task.is_val,
        headers=(header(task, run_id),),
    )


def batch(step, groups):
    """Everything of `groups` in one micro-batch of one rank."""
    rows = tuple(
        BatchRow(one.trajectory_id, one.recorder, one.num_tokens, one.num_trained, 0.5)
        for group in groups
        for one in group.headers
    )
    mini = MiniBatch((MicroBatch(rows),), sum(row.num_trained for row in rows), len(rows))
    shard = Shard(step=step, mini_batches=(mini,) if rows else (), temperature=1.0)
    return Batch(step=step, shards=(shard,), group_ids=tuple(group.group_id for group in groups))


class Rollouts:
    """A rollout worker that finishes every sample at once; `answer(task)` may do something else with a task."""

    def __init__(self, pool, answer=None):
        self._pool = pool
        self._answer = answer or self.finish
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def finish(self, task):
        for run_id in task.run_ids:
            self._pool.put(task.group_id, task.attempt, run_id, (header(task, run_id),))

    def fail(self, task, reason="InferenceError: gone"):
        self._pool.fail(task.group_id, task.run_ids, task.attempt, reason)

    def join(self):
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    def _work(self):
        while tasks := self._pool.lease("rollout-0", 4).result(LONG):
            for task in tasks:
                self._answer(task)


class Recorders:
    """Writes down what it is asked for; `durable` holds `wait_durable` back until it is set."""

    def __init__(self, log=None, failure=None):
        self.log = [] if log is None else log
        self.released = []
        self.failure = failure
        self.durable = threading.Event()
        self.durable.set()

    def wait_durable(self):
        if self.failure is not None:
            raise self.failure
        assert self.durable.wait(LONG)
        self.log.append("durable")

    def release(self, trajectory_ids):
        self.released += trajectory_ids

    def flush(self):
        if self.failure is not None:
            raise self.failure
        self.durable.set()


class Service(MockTrainServiceClient):
    """Its weights are a number in a file."""

    changes_weights = True

    def __init__(self, log=None):
        super().__init__()
        self.log = [] if log is None else log
        self.weights = 0

    def save_checkpoint(self, local_path, global_step=0, save_weight_only=False):
        self.log.append(f"save {global_step}")
        Path(local_path).write_text(str(self.weights))
        return super().save_checkpoint(local_path, global_step)

    def load_checkpoint(self, path, load_weight_only=False):
        self.weights = int(Path(path).read_text())
        self.log.append(f"load {self.weights}")
        return super().load_checkpoint(path)

    def export_hf(self, path):
        self.log.append("export")


class Trainer(BaseTrainer):
    """Adds one to the service's weights; `during(step)` is called in the middle of a step."""

    def __init__(self, service, log, during=None):
        self.skips = False
        """Whether every step finds nothing to learn from."""
        self._service = service
        self._log = log
        self._during = during or (lambda step: None)
        self.trained = []
        """Per step the group ids of its batch."""

    def initialize_workers(self):
        self._log.append("initialize")

    def train(self, groups, *, step):
        self._log.append(f"train {step}")
        self._during(step)
        self._service.weights += 1
        self.trained.append([group.group_id for group in groups])
        return TrainReport(batch=batch(step, groups), metrics={"actor/loss": 0.5}, skipped=self.skips)


def summary(run_dir):
    return json.loads((run_dir / "summary.json").read_text())


def events(run_dir, kind):
    return [event for event in read_json_lines(run_dir / "events.jsonl") if event["event"] == kind]


def phases(run_dir):
    return [event["name"] for event in events(run_dir, "phase")]
