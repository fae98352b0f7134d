"""`trainer`, `algorithm`, `weight`, `resume`: from batches to new weights."""

from dataclasses import dataclass, field
from typing import Literal

from nexrl.config.checks import require

LossAggregation = Literal["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"]


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """How long to train, and when to save."""

    type: Literal["self_hosted_grpo", "self_hosted_cross_entropy"] = "self_hosted_grpo"
    """`self_hosted_cross_entropy` learns the demonstrations of `rollout_worker.type: supervised`."""
    custom_class: str = ""
    """`path/to/file.py:Class` (relative to the recipe's folder), a SelfHostedTrainer: it makes the batches in place of
    `type`, which still chooses the loss."""
    total_train_steps: int = 100
    """Training steps in all, resumed ones included."""
    save_freq: int = 0
    """Steps between checkpoints; 0 = only at the end and when the run is interrupted."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep; 0 = all."""
    export_hf: bool = True
    """Write the final weights as a Hugging Face folder `<run>/hf`."""

    def __post_init__(self) -> None:
        require(self.total_train_steps >= 1, "total_train_steps", found=self.total_train_steps, needed="at least 1")
        require(self.save_freq >= 0, "save_freq", found=self.save_freq, needed="0 (off) or more")
        require(self.keep_checkpoints >= 0, "keep_checkpoints", found=self.keep_checkpoints, needed="0 (all) or more")


@dataclass(frozen=True, kw_only=True)
class KLControlConfig:
    """How the KL coefficient moves."""

    type: Literal["fixed", "adaptive"] = "fixed"
    """`adaptive`: Ziegler et al. 2019 (arXiv:1909.08593), section 2.2."""
    target_kl: float = 6.0
    """`adaptive`: KL per sequence to steer to."""
    horizon: int = 10000
    """`adaptive`: in sequences."""

    def __post_init__(self) -> None:
        require(self.target_kl > 0, "target_kl", found=self.target_kl, needed="above 0")
        require(self.horizon > 0, "horizon", found=self.horizon, needed="at least 1")


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    """GRPO and its loss (`self_hosted_grpo`)."""

    type: Literal["grpo"] = "grpo"
    normalize_std: bool = True
    """Divide advantages by the group's standard deviation (N - 1); false = Dr. GRPO (arXiv:2503.20783)."""
    filter_zero_variance: bool = True
    """Leave groups out of the loss whose rewards are all equal; they still count as trained."""
    clip_ratio_low: float = 0.2
    clip_ratio_high: float = 0.2
    """Above `clip_ratio_low` it is DAPO's clip-higher (arXiv:2503.14476)."""
    clip_ratio_c: float = 0.0
    """Dual clip for negative advantages (arXiv:1912.09729), at least 1; 0 = off."""
    loss_agg_mode: LossAggregation = "token-mean"
    """Normalised over the whole batch of all ranks, not over a micro-batch."""
    entropy_coeff: float = 0.0
    use_kl_loss: bool = False
    """Add KL to the reference model (the weights that training started from) to the loss."""
    kl_loss_coef: float = 0.001
    kl_penalty: Literal["kl", "abs", "mse", "low_var_kl"] = "low_var_kl"
    kl_ctrl: KLControlConfig = field(default_factory=KLControlConfig)
    importance_correction: bool = True
    """Weigh each token by min(p_trainer / p_sampler, importance_cap), for engines whose numbers differ (truncated
    importance sampling, Yao et al. 2025)."""
    importance_cap: float = 2.0
    do_old_log_prob_compute: bool = True
    """Recompute log-probs under the weights before the update; false = use the sampler's as they are."""

    def __post_init__(self) -> None:
        for key in ("clip_ratio_low", "clip_ratio_high", "entropy_coeff", "kl_loss_coef"):
            require(getattr(self, key) >= 0, key, found=getattr(self, key), needed="0 or more")
        c = self.clip_ratio_c
        require(c == 0 or c >= 1, "clip_ratio_c", found=c, needed="0 (off) or at least 1")
        require(self.importance_cap > 0, "importance_cap", found=self.importance_cap, needed="above 0")
        needed = "use_kl_loss: true, without which it does nothing (or leave it out)"
        acts = self.use_kl_loss or self.kl_ctrl.type == "fixed"
        require(acts, "kl_ctrl.type", found=self.kl_ctrl.type, needed=needed)
        acts = self.use_kl_loss or self.kl_loss_coef == 0.001
        require(acts, "kl_loss_coef", found=self.kl_loss_coef, needed=needed)


@dataclass(frozen=True, kw_only=True)
class WeightConfig:
    """How new weights reach the engines."""

    sync_mode: Literal["sync"] = "sync"
    """`sync`: a batch is sampled from the newest weights only."""
    sync_method: Literal["broadcast"] = "broadcast"
    """`broadcast`: NCCL, or Gloo on CPU, straight into the running engine."""
    bucket_mb: float = 64.0
    """MiB per broadcast; a larger tensor travels in pieces."""
    timeout: float = 300.0
    """Seconds for one update of all engines."""

    def __post_init__(self) -> None:
        require(self.bucket_mb >= 0.001, "bucket_mb", found=self.bucket_mb, needed="at least 0.001 MiB")
        require(self.timeout > 0, "timeout", found=self.timeout, needed="seconds above 0")


@dataclass(frozen=True, kw_only=True)
class ResumeConfig:
    """Where a run starts from."""

    mode: Literal["auto", "from_path", "disable"] = "disable"
    """`auto`: the newest complete checkpoint of the run folder (`--run-dir`, else the newest run of the experiment that
    has not done all its steps and that nobody holds), else afresh; `from_path`: `resume_path`, which must
    be complete; `disable`: afresh, in a run folder of its own."""
    resume_path: str = ""
    """A checkpoint folder (`…/checkpoints/step_000100`)."""

    def __post_init__(self) -> None:
        ok = (self.mode == "from_path") == bool(self.resume_path)
        require(ok, "resume_path", found=self.resume_path, needed="a folder with mode: from_path, nothing otherwise")
