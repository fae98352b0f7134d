"""The recipe as a whole, and the checks that no section can make alone."""

from dataclasses import dataclass, field
from typing import Literal

from nexrl.config.checks import require
from nexrl.config.schema.data import DataConfig, RolloutWorkerConfig, TrajectoryPoolConfig, ValidateConfig
from nexrl.config.schema.run import CommConfig, LaunchConfig, LoggerConfig, RuntimeMonitorConfig
from nexrl.config.schema.service import ServiceConfig
from nexrl.config.schema.training import AlgorithmConfig, ResumeConfig, TrainerConfig, WeightConfig

_LONGEST_NAME = 200
"""Bytes; file systems take 255."""


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A recipe to run first."""

    recipe: str = ""
    """Path relative to this recipe's folder; its exported weights become `actor.model.path` here. The result is kept
    by content (recipe, data, model folder) and used again. Empty = no stage."""
    cache: str = ""
    """Folder of kept results, relative to the working folder; empty = `<launch.run_root>/.stages`."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run."""

    project_name: str = "NexRL"
    """Project in wandb."""
    experiment_name: str
    """Folder under `launch.run_root`, and run name in wandb."""
    launch_mode: Literal["processes", "local"] = "processes"
    """`processes`: every rank a process on this machine; `local`: all roles in one process, for debugging."""
    initial_stage: StageConfig = field(default_factory=StageConfig)
    data: DataConfig
    rollout_worker: RolloutWorkerConfig = field(default_factory=RolloutWorkerConfig)
    trajectory_pool: TrajectoryPoolConfig = field(default_factory=TrajectoryPoolConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    weight: WeightConfig = field(default_factory=WeightConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    validate: ValidateConfig = field(default_factory=ValidateConfig)
    resume: ResumeConfig = field(default_factory=ResumeConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    runtime_monitor: RuntimeMonitorConfig = field(default_factory=RuntimeMonitorConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    comm: CommConfig = field(default_factory=CommConfig)

    def __post_init__(self) -> None:
        name = self.experiment_name
        plain = name not in ("", ".", "..") and "/" not in name and name.isprintable()
        needed = f"a folder's name: printable, without /, at most {_LONGEST_NAME} bytes"
        require(plain and len(name.encode()) <= _LONGEST_NAME, "experiment_name", found=name, needed=needed)
        self._check_lengths()
        self._check_batches()
        self._check_algorithm()
        self._check_launch()
        self._check_services()

    def _check_lengths(self) -> None:
        data, engine, worker = self.data, self.service.inference_service, self.rollout_worker
        if worker.need_llm_inference:
            found = f"{engine.max_tokens}"
            needed = f"data.max_response_length = {data.max_response_length}"
            ok = engine.max_tokens == data.max_response_length
            require(ok, "service.inference_service.max_tokens", found=found, needed=needed)
        for section, lengths in (("data", data), ("validate.data", self.validate.data)):
            if lengths is None:
                continue
            longest = lengths.max_prompt_length + lengths.max_response_length
            needed = f"at least {section}.max_prompt_length + {section}.max_response_length = {longest}"
            ok = engine.max_model_len >= longest or not worker.need_llm_inference
            require(ok, "service.inference_service.max_model_len", found=engine.max_model_len, needed=needed)
            ok = worker.max_sequence_length >= longest
            require(ok, "rollout_worker.max_sequence_length", found=worker.max_sequence_length, needed=needed)

    def _check_batches(self) -> None:
        actor = self.service.actor_service.actor
        mini = actor.ppo_mini_batch_size
        key = f"service.train_service.{self.actor_name}.actor.ppo_mini_batch_size"
        ok = mini == 0 or self.data.batch_size % mini == 0
        require(ok, key, found=mini, needed=f"a divisor of data.batch_size = {self.data.batch_size}")
        ranks = self.launch.groups.trainer.tasks
        sequences = (mini or self.data.batch_size) * self.data.rollout_repeat_n
        needed = f"at most {sequences} ranks: one optimizer step has so many sequences"
        require(ranks <= sequences, "launch.groups.trainer.tasks", found=ranks, needed=needed)

    def _check_algorithm(self) -> None:
        if self.trainer.type != "self_hosted_grpo" or self.trainer.custom_class:
            return
        why = "with trainer.type: self_hosted_grpo, which compares the samples of a prompt"
        samples, keys, temperature = self.group_size, self.trajectory_pool.key_list, self.rollout_worker.temperature
        require(samples > 1 or self._is_supervised, "data.rollout_repeat_n", found=samples, needed=f"at least 2 {why}")
        require(bool(keys), "trajectory_pool.key_list", found=[], needed=f"[group_id] {why}")
        require(temperature > 0, "rollout_worker.temperature", found=temperature, needed=f"above 0 {why}")

    def _check_launch(self) -> None:
        if self.launch_mode != "local":
            return
        for name in ("rollout", "inference", "trainer"):
            group = getattr(self.launch.groups, name)
            needed = "1 with launch_mode: local"
            require(group.tasks == 1, f"launch.groups.{name}.tasks", found=group.tasks, needed=needed)
            needed = "0 with launch_mode: local, whose one process has launch.groups.trainer.threads"
            ok = name == "trainer" or group.threads == 0
            require(ok, f"launch.groups.{name}.threads", found=group.threads, needed=needed)

    def _check_services(self) -> None:
        cross_entropy = self.trainer.type == "self_hosted_cross_entropy" and not self.trainer.custom_class
        if not self.trainer.custom_class:
            needed = "self_hosted_cross_entropy with rollout_worker.type: supervised, self_hosted_grpo otherwise"
            require(self._is_supervised == cross_entropy, "trainer.type", found=self.trainer.type, needed=needed)
        engine, train = self.service.inference_service.identifier, self.service.actor_service.identifier
        needed = f"the train service's identifier {train!r}"
        require(engine == train, "service.inference_service.identifier", found=engine, needed=needed)
        actor = self.service.actor_service.actor
        key = f"service.train_service.{self.actor_name}.actor.model.path"
        both = bool(actor.model.path) and bool(self.initial_stage.recipe)
        require(not both, key, found=actor.model.path, needed="nothing where initial_stage.recipe makes the model")
        none = not actor.model.path and not self.initial_stage.recipe
        require(not none, key, found="", needed="a model folder (or initial_stage.recipe)")

    @property
    def _is_supervised(self) -> bool:
        return self.rollout_worker.type == "supervised" and not self.rollout_worker.custom_class

    @property
    def actor_name(self) -> str:
        """Key of the actor under `service.train_service`."""
        return next(name for name, service in self.service.train_service.items() if service.role == "actor")

    @property
    def group_size(self) -> int:
        """Samples per prompt."""
        return self.data.rollout_repeat_n
