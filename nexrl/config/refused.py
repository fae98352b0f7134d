"""Keys and values that other systems or older recipes know, refused by name with what to write instead."""

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from nexrl.errors import ConfigError

_NO_REMOTE_API = "training through a remote API is not in this version; write zmq (the trainer ranks of this run)"
_NO_REMOTE_ENGINE = "not in this version; write embedded (the server that this run starts itself)"
_OFF_POLICY = "not in this version; write sync"
_HAS_GROUPS = "processes are counted in launch.groups.<rollout|inference|trainer>.tasks"
_HAS_RUN_FOLDER = "checkpoints stand in the run folder; launch.run_root says where run folders are"

_VALUES: dict[str, dict[str, str]] = {
    "launch_mode": {
        "ray": "there is no Ray here; write processes (every rank a process on this machine) or local (one process)",
        "slurm": "not in this version; write processes (every rank a process on this machine)",
    },
    "weight.sync_mode": {"fully-async": _OFF_POLICY, "batch-async": _OFF_POLICY},
    "weight.sync_method": dict.fromkeys(
        ("network", "disk", "ipc", "mock", "tinker", "weaver"), "not in this version; write broadcast"
    ),
    "service.inference_service.backend": dict.fromkeys(
        ("vllm", "sglang", "openai", "tinker", "weaver"), _NO_REMOTE_ENGINE
    ),
    "service.train_service.*.backend": {
        "direct-zmq": "it is called zmq here",
        "http": "not in this version; write zmq",
        "nextrainer": "it is called zmq here",
        "tinker": _NO_REMOTE_API,
        "weaver": _NO_REMOTE_API,
    },
    "service.train_service.*.role": {"teacher": "distillation is not in this version; write actor"},
    "trainer.type": {
        "self_hosted_opd": "distillation is not in this version; write self_hosted_grpo",
        "remote_api_grpo": _NO_REMOTE_API,
        "remote_api_cross_entropy": _NO_REMOTE_API,
        "remote_api_opd": _NO_REMOTE_API,
    },
    "algorithm.type": {"distillation": "not in this version; write grpo"},
    "rollout_worker.type": {
        "nexau": "agents of that kind are not in this version; write agent, or a class of your own in custom_class",
        "pig_latin": "write simple, with an evaluator of your own",
        "mock": "write supervised (responses from the data), or a class of your own in custom_class",
    },
    "logger.backend": {
        "tracking": "it is called wandb here",
        "mlflow": "not in this version; write console, wandb or tensorboard",
        "swanlab": "not in this version; write console, wandb or tensorboard",
    },
}

_KEYS: dict[str, str] = {
    "multi_model": "it never did anything; leave it out",
    "resource": _HAS_GROUPS,
    "*.resource": _HAS_GROUPS,
    "rollout_worker.num_workers": "write launch.groups.rollout.tasks",
    "rollout_worker.need_llm_inference": "it follows from rollout_worker.type; leave it out",
    "rollout_worker.custom_rollout_worker_module_path": "write rollout_worker.custom_class: path/to/file.py:Class",
    "rollout_worker.custom_rollout_worker_class_name": "write rollout_worker.custom_class: path/to/file.py:Class",
    "rollout_worker.evaluator_module_path": "write rollout_worker.evaluator: path/to/file.py:Class",
    "trainer.custom_trainer_module_path": "write trainer.custom_class: path/to/file.py:Class",
    "trainer.custom_trainer_class_name": "write trainer.custom_class: path/to/file.py:Class",
    "trainer.algorithm": "algorithm is a section of its own at the top",
    "trainer.checkpoint_path": _HAS_RUN_FOLDER,
    "trainer.sync_weight_path": "weights travel from memory to memory; leave it out",
    "trainer.remove_previous_ckpt": "write trainer.keep_checkpoints",
    "weight.sync_weight_path": "weights travel from memory to memory; leave it out",
    "weight.validate_freq": "write validate.validate_freq",
    "weight.staleness_threshold": "it belongs to batch-async, which is not in this version; leave it out",
    "validate.data.batch_size": "every row is asked once per pass, in order; leave it out",
    "validate.data.epochs": "every row is asked once per pass, in order; leave it out",
    "validate.data.seed": "data.seed is the root of all random numbers; leave it out",
    "validate.data.shuffle": "every row is asked once per pass, in order; leave it out",
    "validate.data.rollout_repeat_n": "write validate.sampling.<name>.repeat_n",
    "validate.eval": "write validate.validate_freq",
    "data.keep_batch_order": "it follows from weight.sync_mode; leave it out",
    "data.filter_prompts": "write data.overlong_prompts: drop",
    "data.drop_last": "write data.epochs and trainer.total_train_steps; leave it out",
    "data.tokenizer_path": "the tokenizer is that of actor.model.path; leave it out",
    "trajectory_pool.batch_size": "write data.batch_size (prompts per step)",
    "trajectory_pool.group_size": "write data.rollout_repeat_n",
    "service.inference_service.model_tag": "write identifier",
    "service.train_service.*.model_tag": "write identifier",
    "service.tinker_service": _NO_REMOTE_API,
    "service.weaver_service": _NO_REMOTE_API,
    "service.train_service.*.actor.clip_ratio": "write algorithm.clip_ratio_low and algorithm.clip_ratio_high",
    "service.train_service.*.actor.ppo_micro_batch_size": "write ppo_max_token_len_per_gpu (tokens per forward)",
}


def check_refused(recipe: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first key or value of a recipe that is known, and known not to be here."""
    for key, value in _leaves(recipe, ""):
        for pattern, advice in _KEYS.items():
            if fnmatchcase(key, pattern):
                raise ConfigError(f"no such key here: {advice}", key=key)
        plain = key.partition("[")[0]
        for pattern, advices in _VALUES.items():
            if isinstance(value, str) and value in advices and fnmatchcase(plain, pattern):
                raise ConfigError(f"found {value!r}: {advices[value]}", key=key)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if key:
        yield key, value
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, f"{key}[{index}]")
