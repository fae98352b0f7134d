"""`service`: the inference engine and the train service."""

from dataclasses import dataclass, field
from typing import Literal

from nexrl.config.checks import require


@dataclass(frozen=True, kw_only=True)
class InferenceServiceConfig:
    """The engine that rollouts ask."""

    identifier: str = "default"
    """The model line: the same on engine and train service."""
    backend: Literal["embedded"] = "embedded"
    """`embedded`: our OpenAI-compatible server over transformers."""
    model: str = "policy"
    """Name under which the model is served."""
    model_path: str = ""
    """Hugging Face folder to start from; empty = the train service's `actor.model.path`."""
    max_tokens: int = 1024
    """Tokens to generate at most; equals `data.max_response_length`."""
    max_retries: int = 3
    """Further attempts after a failed one; 0 = one attempt, no retry."""
    request_timeout: float = 600.0
    """Seconds for one request."""
    freeze_for_weight_sync: bool = True
    """Hold new requests back during a weight update, so that no request mixes versions."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_num_seqs: int = 64
    """Sequences generated at once."""
    max_model_len: int = 2048
    """Tokens of prompt and response of one sequence."""
    deterministic: bool = False
    """Make a sequence's tokens and log-probs independent of what else runs in the batch; slower."""

    def __post_init__(self) -> None:
        for key in ("max_tokens", "max_num_seqs", "max_model_len"):
            require(getattr(self, key) >= 1, key, found=getattr(self, key), needed="at least 1")
        require(self.max_retries >= 0, "max_retries", found=self.max_retries, needed="0 (no retry) or more")
        require(self.request_timeout > 0, "request_timeout", found=self.request_timeout, needed="seconds above 0")
        require(self.freeze_for_weight_sync, "freeze_for_weight_sync", found=False, needed="true with sync_mode: sync")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The policy."""

    path: str = ""
    """Hugging Face folder (config, tokenizer, weights unless `init: random`), relative to the recipe's folder."""
    init: Literal["pretrained", "random"] = "pretrained"
    """`random`: weights drawn from `data.seed`; the folder needs no weights."""
    dtype: Literal["float32", "float64"] = "float32"
    """Of the parameters that are trained; `float64` for tests of exactness."""
    enable_gradient_checkpointing: bool = False


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule."""

    lr: float = 2e-6
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup_style: Literal["constant", "linear", "cosine"] = "constant"
    """What follows the warm-up: constant, or a decay to `min_lr_ratio` at the last step."""
    lr_warmup_steps: int = 0
    lr_warmup_steps_ratio: float = 0.0
    """Share of `trainer.total_train_steps`; used where `lr_warmup_steps` is 0."""
    min_lr_ratio: float = 0.0
    """Lowest learning rate of a decay, as a share of `lr`."""

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", found=self.lr, needed="above 0")
        ok = all(0 <= beta < 1 for beta in self.betas)
        require(ok, "betas", found=list(self.betas), needed="two numbers, each at least 0 and below 1")
        require(self.eps > 0, "eps", found=self.eps, needed="above 0")
        for key in ("weight_decay", "lr_warmup_steps"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), needed="0 or more")
        for key in ("lr_warmup_steps_ratio", "min_lr_ratio"):
            value = getattr(self, key)
            require(0 <= value <= 1, key, found=value, needed="0 to 1")


@dataclass(frozen=True, kw_only=True)
class FsdpConfig:
    """FSDP2."""

    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Computation and gathering; gradients are always reduced in float32."""
    reshard_after_forward: bool = True


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """How the train service trains."""

    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    fsdp_config: FsdpConfig = field(default_factory=FsdpConfig)
    ppo_mini_batch_size: int = 0
    """Prompts per optimizer step over all ranks; 0 = the whole batch. Must divide `data.batch_size`."""
    ppo_epochs: int = 1
    """Passes over a batch."""
    ppo_max_token_len_per_gpu: int = 16384
    """Tokens packed into one forward of one rank; a longer sequence has a forward of its own."""
    grad_clip: float = 1.0
    """Largest gradient norm; 0 = no clipping."""
    max_nonfinite_steps: int = 3
    """Updates skipped in a row for a non-finite loss or gradient norm before the run ends."""

    def __post_init__(self) -> None:
        require(
            self.ppo_mini_batch_size >= 0, "ppo_mini_batch_size", found=self.ppo_mini_batch_size, needed="0 or more"
        )
        require(self.ppo_epochs >= 1, "ppo_epochs", found=self.ppo_epochs, needed="at least 1")
        tokens = self.ppo_max_token_len_per_gpu
        require(tokens >= 1, "ppo_max_token_len_per_gpu", found=tokens, needed="at least 1 token")
        skips = self.max_nonfinite_steps
        require(skips >= 0, "max_nonfinite_steps", found=skips, needed="0 (none may be skipped) or more")
        require(self.grad_clip >= 0, "grad_clip", found=self.grad_clip, needed="0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class TrainServiceConfig:
    """One named train service."""

    identifier: str = "default"
    role: Literal["actor"] = "actor"
    backend: Literal["zmq", "mock"] = "zmq"
    """`zmq`: the trainer ranks of this job; `mock`: answers without training, for smoke tests."""
    actor: ActorConfig = field(default_factory=ActorConfig)


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Both services."""

    inference_service: InferenceServiceConfig = field(default_factory=InferenceServiceConfig)
    train_service: dict[str, TrainServiceConfig] = field(default_factory=lambda: {"main_actor": TrainServiceConfig()})
    """Name → service; exactly one has the role `actor`."""

    def __post_init__(self) -> None:
        actors = [name for name, service in self.train_service.items() if service.role == "actor"]
        require(len(actors) == 1, "train_service", found=actors, needed="exactly one service with role: actor")

    @property
    def actor_service(self) -> TrainServiceConfig:
        """The service that trains the policy."""
        return next(service for service in self.train_service.values() if service.role == "actor")
