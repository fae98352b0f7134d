"""A model folder as the engine needs it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from nexrl.errors import ConfigError
from nexrl.types.protocols import Tokenizer


@dataclass(frozen=True)
class EngineModel:
    """A causal language model in evaluation mode and its tokenizer."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    eos_V: np.ndarray
    """bool, one per row of the output layer: tokens that end a sample."""


def load_engine_model(
    path: str | Path, *, dtype: str = "float32", device: str = "cpu", random_init: bool = False
) -> EngineModel:
    """Load the Hugging Face folder `path` (config, tokenizer, weights unless `random_init`).

    Raises ConfigError where the folder or a part of it is missing or unreadable.
    """
    folder = Path(path)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: not a Hugging Face model folder (no config.json)")
    kind = getattr(torch, dtype)
    try:
        if random_init:
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=kind)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, attn_implementation="sdpa")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: cannot be loaded: {error}") from error
    model = model.to(device).eval().requires_grad_(requires_grad=False)
    return EngineModel(model, tokenizer, _eos(model, tokenizer))


def _eos(model: PreTrainedModel, tokenizer: Tokenizer) -> np.ndarray:
    """Ends of sequence by the generation config, the model config and the tokenizer."""
    found = [getattr(part, "eos_token_id", None) for part in (model.generation_config, model.config, tokenizer)]
    eos = np.zeros(model.get_output_embeddings().weight.shape[0], dtype=bool)
    for ids in found:
        eos[[] if ids is None else ids] = True
    return eos
