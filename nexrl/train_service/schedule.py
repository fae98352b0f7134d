"""The learning rate as a function of the training step: nothing to save, nothing to get out of step."""

import math

from nexrl.config.schema import OptimConfig


def learning_rate(optim: OptimConfig, *, step: int, total_steps: int) -> float:
    """Of training step `step` = 1 … `total_steps`.

    Rises linearly over the warm-up, reaching `lr` at its last step; then stays, or falls (linearly, or along half a
    cosine) to `min_lr_ratio * lr` at `total_steps`, where it stays.
    """
    warmup = warmup_steps(optim, total_steps)
    if step <= warmup:
        return optim.lr * step / warmup
    if optim.warmup_style == "constant":
        return optim.lr
    done = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    left = 1.0 - done if optim.warmup_style == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return optim.lr * (optim.min_lr_ratio + (1.0 - optim.min_lr_ratio) * left)


def warmup_steps(optim: OptimConfig, total_steps: int) -> int:
    """Training steps of the warm-up."""
    return optim.lr_warmup_steps or round(optim.lr_warmup_steps_ratio * total_steps)
