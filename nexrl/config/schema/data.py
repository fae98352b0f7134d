"""`data`, `rollout_worker`, `trajectory_pool`, `validate`: from prompts to batches."""

from dataclasses import dataclass, field
from typing import Any, Literal

from nexrl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where prompts come from, and how they are ordered."""

    type: Literal["torch", "mock"] = "torch"
    """`torch` reads files; `mock` makes a few canned prompts; a class of your own: `custom_class`."""
    custom_class: str = ""
    """`path/to/file.py:Class` (relative to the recipe's folder), a BaseDataLoader; replaces `type`."""
    data_files: tuple[str, ...] = ()
    """`.parquet`, `.jsonl`, `.csv`, read one after the other; relative to the recipe's folder."""
    batch_size: int = 32
    """Prompts per training step."""
    rollout_repeat_n: int = 1
    """Samples per prompt (the GRPO group size); validation data has its own value."""
    epochs: int = 1
    """Passes over the data; 0 = without end."""
    shuffle: bool = False
    """A new permutation each epoch, keyed by (seed, epoch)."""
    seed: int = 42
    """Root of all random numbers of the run: shuffling, sampling, initial weights."""
    prompt_key: str = "prompt"
    """Column with the prompt: text, or a list of chat messages."""
    ground_truth_key: str = "ground_truth"
    """Column with the expected answer; a row may lack it, or hold it as `reward_model.ground_truth`."""
    max_prompt_length: int = 1024
    """Tokens."""
    max_response_length: int = 1024
    """Tokens; must equal `service.inference_service.max_tokens` where an engine is asked."""
    overlong_prompts: Literal["error", "drop"] = "error"
    """A prompt above `max_prompt_length`: end the run naming the row, or skip the row and count it."""

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "batch_size", found=self.batch_size, needed="at least 1")
        require(self.rollout_repeat_n >= 1, "rollout_repeat_n", found=self.rollout_repeat_n, needed="at least 1")
        require(self.epochs >= 0, "epochs", found=self.epochs, needed="0 (without end) or more")
        _check_source(self)


@dataclass(frozen=True, kw_only=True)
class RolloutWorkerConfig:
    """What a rollout worker does with a prompt."""

    type: Literal["simple", "agent", "supervised"] = "simple"
    """`simple`: one completion; `agent`: turns with tools; `supervised`: the data row holds the response."""
    custom_class: str = ""
    """`path/to/file.py:Class` (relative to the recipe's folder), a BaseRolloutWorker; replaces `type`."""
    temperature: float = 1.0
    """Sampling temperature of training rollouts."""
    top_p: float = 1.0
    top_k: int = 0
    """0 = off."""
    stop: tuple[str, ...] = ()
    """Stop strings; the end-of-sequence token always stops."""
    max_sequence_length: int = 2048
    """Tokens of prompt and response; a longer trajectory is cut and its reward set to 0."""
    max_turns: int = 8
    """`agent` (or a class of your own): generations per episode."""
    concurrency: int = 64
    """Episodes at once in one worker process."""
    episode_timeout: float = 600.0
    """Seconds; an episode that takes longer has failed."""
    evaluator: str = "exact_match"
    """`exact_match`, `math`, `format`, or `path/to/file.py:Class` of your own (an Evaluator)."""
    evaluator_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the evaluator's constructor."""
    agent_args: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the agent's environment (`agent`): `tools: path/to/file.py:NAME`, a list of functions."""
    response_key: str = "response"
    """`supervised`: column with the response to learn."""

    def __post_init__(self) -> None:
        require(self.temperature >= 0, "temperature", found=self.temperature, needed="0 or more")
        require(0 < self.top_p <= 1, "top_p", found=self.top_p, needed="0 < top_p <= 1")
        require(self.top_k >= 0, "top_k", found=self.top_k, needed="0 (off) or more")
        require(self.concurrency >= 1, "concurrency", found=self.concurrency, needed="at least 1")
        require(self.max_turns >= 1, "max_turns", found=self.max_turns, needed="at least 1")
        require(self.episode_timeout > 0, "episode_timeout", found=self.episode_timeout, needed="seconds above 0")
        require("" not in self.stop, "stop", found=list(self.stop), needed="strings that are not empty")
        self._check_acting()

    def _check_acting(self) -> None:
        """Keys that only one type reads stay at their defaults with the others; a class of one's own may read all."""
        defaults: dict[str, tuple[str, Any]] = {
            "max_turns": ("agent", 8),
            "agent_args": ("agent", {}),
            "response_key": ("supervised", "response"),
        }
        for key, (reader, default) in defaults.items():
            found = getattr(self, key)
            acts = bool(self.custom_class) or self.type == reader or found == default
            require(acts, key, found=found, needed=f"type: {reader}, which alone reads it (or leave it out)")

    @property
    def need_llm_inference(self) -> bool:
        """Whether an engine is asked at all."""
        return bool(self.custom_class) or self.type != "supervised"


@dataclass(frozen=True, kw_only=True)
class TrajectoryPoolConfig:
    """How finished trajectories become groups, and groups batches."""

    key_list: tuple[str, ...] = ("group_id",)
    """Header fields that group trajectories: none → simple store, one → grouped, two or more → hierarchical."""
    check_batch_ready_function: Literal[
        "batch_size_reached", "loaded_batch_finished", "batch_size_reached_and_loaded_batch_finished"
    ] = "loaded_batch_finished"
    """`batch_size_reached`: the first prompts that finish make the batch; `loaded_batch_finished`: every prompt of the
    oldest batch has ended, dropped ones leave a gap; both joined: dropped ones are replaced."""
    group_timeout: float = 900.0
    """Seconds from a group's first issue after which its missing samples are given up."""
    max_attempts: int = 3
    """Times a failed sample is tried in all."""
    incomplete_groups: Literal["drop", "accept_partial"] = "drop"
    """A group that is still incomplete after its attempts or its timeout."""
    min_group_fraction: float = 0.5
    """`accept_partial`: share of a group's samples that must be there; below it the group is dropped."""

    def __post_init__(self) -> None:
        require(self.group_timeout > 0, "group_timeout", found=self.group_timeout, needed="seconds above 0")
        require(self.max_attempts >= 1, "max_attempts", found=self.max_attempts, needed="at least 1")
        ok = 0 < self.min_group_fraction <= 1
        require(ok, "min_group_fraction", found=self.min_group_fraction, needed="above 0, at most 1")


@dataclass(frozen=True, kw_only=True)
class ValidationDataConfig:
    """Where held-out prompts come from: each is asked once per pass and way to sample, in the order of the files."""

    type: Literal["torch", "mock"] = "torch"
    """As `data.type`."""
    custom_class: str = ""
    """As `data.custom_class`."""
    data_files: tuple[str, ...] = ()
    """As `data.data_files`."""
    prompt_key: str = "prompt"
    """Column with the prompt."""
    ground_truth_key: str = "ground_truth"
    """Column with the expected answer."""
    max_prompt_length: int = 1024
    """Tokens."""
    max_response_length: int = 1024
    """Tokens."""
    overlong_prompts: Literal["error", "drop"] = "error"
    """As `data.overlong_prompts`."""

    def __post_init__(self) -> None:
        _check_source(self)

    @property
    def loader_config(self) -> DataConfig:
        """What a data loader takes: one pass, in order."""
        return DataConfig(
            type=self.type,
            custom_class=self.custom_class,
            data_files=self.data_files,
            batch_size=1,
            prompt_key=self.prompt_key,
            ground_truth_key=self.ground_truth_key,
            max_prompt_length=self.max_prompt_length,
            max_response_length=self.max_response_length,
            overlong_prompts=self.overlong_prompts,
        )


def _check_source(data: DataConfig | ValidationDataConfig) -> None:
    for key in ("max_prompt_length", "max_response_length"):
        require(getattr(data, key) >= 1, key, found=getattr(data, key), needed="at least 1 token")
    has_files = data.type != "torch" or bool(data.custom_class) or bool(data.data_files)
    require(has_files, "data_files", found=list(data.data_files), needed="at least one file for type: torch")


@dataclass(frozen=True, kw_only=True)
class SamplingOverride:
    """One way in which validation samples; reported as `val/<name>_…`."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 = off."""
    repeat_n: int = 1
    """Samples per prompt."""

    def __post_init__(self) -> None:
        require(self.temperature >= 0, "temperature", found=self.temperature, needed="0 (greedy) or more")
        require(0 < self.top_p <= 1, "top_p", found=self.top_p, needed="0 < top_p <= 1")
        require(self.top_k >= 0, "top_k", found=self.top_k, needed="0 (off) or more")
        require(self.repeat_n >= 1, "repeat_n", found=self.repeat_n, needed="at least 1")


@dataclass(frozen=True, kw_only=True)
class ValidateConfig:
    """Held-out prompts, run through the same rollout workers."""

    data: ValidationDataConfig | None = None
    """None = no validation."""
    validate_freq: int = 0
    """Every so many training steps; 0 = only where the two flags below say so."""
    validate_before_train: bool = True
    validate_at_end: bool = True
    sampling: dict[str, SamplingOverride] = field(default_factory=lambda: {"sampled": SamplingOverride()})
    """Name → how to sample. `{sampled: {temperature: 1.0}, greedy: {temperature: 0.0}}` runs the prompts twice."""

    def __post_init__(self) -> None:
        require(self.validate_freq >= 0, "validate_freq", found=self.validate_freq, needed="0 (off) or more")
        require(bool(self.sampling), "sampling", found="{}", needed="at least one named way to sample")
