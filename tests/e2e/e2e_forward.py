"""Log-probs of recorded tokens under an exported model: what the engine must have had in memory."""

from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from nexrl.types import Trajectory


@torch.no_grad()
def largest_difference(folder: Path, trajectories: list[Trajectory]) -> float:
    """Between recorded log-probs and those of a plain forward of the model in `folder`; greedy ones are those of
    temperature 1."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    worst = 0.0
    for one in trajectories:
        tokens_T = torch.from_numpy(one.tokens.astype(np.int64))
        logits_TV = model(tokens_T[None]).logits[0, :-1] / (one.header.temperature or 1.0)
        logprobs_T = logits_TV.log_softmax(-1).gather(-1, tokens_T[1:, None])[:, 0].numpy()
        trained_T = one.loss_mask[1:].astype(bool)
        worst = max(worst, float(np.abs(logprobs_T - one.logprobs[1:])[trained_T].max()))
    return worst
