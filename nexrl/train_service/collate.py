"""From rows and their trajectories to the tensors of one forward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from nexrl.errors import TrainingError
from nexrl.train_service.attention import Segments, plan_segments
from nexrl.types import BatchRow, Trajectory


@dataclass(frozen=True)
class PackedRows:
    """Sequences one after the other in one row of T tokens; M of the tokens that follow them are trained on.

    The last token of a sequence predicts nothing and is left out.
    """

    rows: tuple[BatchRow, ...]
    input_ids: torch.Tensor
    """int64 [1, T]."""
    position_ids: torch.Tensor
    """int64 [1, T]: each sequence counts from 0."""
    segments: Segments
    trained: torch.Tensor
    """int64 [M]: packed positions whose next token is trained on, sequence after sequence."""
    targets: torch.Tensor
    """int64 [M]: those next tokens."""
    sampler_logprobs: torch.Tensor
    """[M], of the targets."""
    advantages: torch.Tensor
    """[M]."""
    lengths: tuple[int, ...]
    """Trained tokens of every row; they add up to M."""


def pack_rows(
    rows: Sequence[BatchRow], trajectories: Mapping[str, Trajectory], *, device: torch.device, dtype: torch.dtype
) -> PackedRows:
    """Tensors of `rows`, which `check_row` has passed; floats as `dtype`.

    Without rows: one token that is not trained on, so that a rank takes part in the collectives of a forward.
    """
    found = [trajectories[row.trajectory_id] for row in rows]
    inputs = [item.tokens[: max(1, len(item.tokens) - 1)] for item in found] or [np.zeros(1, np.int32)]
    masks = [item.loss_mask[1:].astype(bool) for item in found]
    lengths = tuple(int(mask.sum()) for mask in masks)
    starts = np.cumsum([0, *(len(part) for part in inputs)])
    trained = [start + np.flatnonzero(mask) for start, mask in zip(starts[:-1], masks, strict=False)]
    targets = [item.tokens[1:][mask] for item, mask in zip(found, masks, strict=True)]
    logprobs = [item.logprobs[1:][mask] for item, mask in zip(found, masks, strict=True)]

    def tensor(parts: Sequence[np.ndarray], kind: torch.dtype) -> torch.Tensor:
        joined = np.concatenate(parts) if parts else np.zeros(0)
        return torch.as_tensor(joined).to(device=device, dtype=kind)

    return PackedRows(
        rows=tuple(rows),
        input_ids=tensor(inputs, torch.int64)[None],
        position_ids=tensor([np.arange(len(part)) for part in inputs], torch.int64)[None],
        segments=plan_segments([len(part) for part in inputs], device=device),
        trained=tensor(trained, torch.int64),
        targets=tensor(targets, torch.int64),
        sampler_logprobs=tensor(logprobs, dtype),
        advantages=tensor([np.repeat([row.advantage for row in rows], lengths)], dtype),
        lengths=lengths,
    )


def check_row(row: BatchRow, trajectory: Trajectory, *, vocab_size: int) -> None:
    """Raise TrainingError naming a trajectory that does not fit its row or the model."""
    name = f"trajectory {row.trajectory_id}"
    num_tokens, num_trained = len(trajectory.tokens), int(np.count_nonzero(trajectory.loss_mask))
    if (num_tokens, num_trained) != (row.num_tokens, row.num_trained):
        raise TrainingError(
            f"{name}: found {num_tokens} tokens, {num_trained} of them trained; the batch says "
            f"{row.num_tokens} and {row.num_trained}"
        )
    if num_tokens == 0 or trajectory.loss_mask[0]:
        raise TrainingError(f"{name}: needs a first token that is not trained on: nothing predicts it")
    low, high = int(trajectory.tokens.min()), int(trajectory.tokens.max())
    if low < 0 or high >= vocab_size:
        raise TrainingError(f"{name}: found token ids {low} to {high}, the model knows 0 to {vocab_size - 1}")
