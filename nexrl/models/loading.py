"""Causal language models from a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexrl.config.schema import ModelConfig
from nexrl.errors import DataError
from nexrl.models.folder import model_folder, require_weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_policy(
    config: ModelConfig, *, seed: int, device: "torch.device", attention: str = "sdpa"
) -> "PreTrainedModel":
    """The model of `config.path` with parameters of `config.dtype` on `device`, in training mode, without dropout.

    `init: random` draws the weights from `seed` alone, the same on every machine of one torch version; the generators
    of the process are as before. `attention` names a registered attention function of transformers. Raises ConfigError
    or DataError naming the folder and what is wrong with it: no folder, no config, no weights, weights that don't fit.
    """
    import torch

    folder = model_folder(config.path)
    options = {"attn_implementation": attention, "dtype": getattr(torch, config.dtype)}
    if config.init == "random":
        model = _random(folder, seed, options)
    else:
        require_weights(folder)
        model = _pretrained(folder, options)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.to(device).train()


def _random(folder: Path, seed: int, options: dict[str, Any]) -> "PreTrainedModel":
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"model folder {folder}: cannot read config.json: {error}") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, **options)


def _pretrained(folder: Path, options: dict[str, Any]) -> "PreTrainedModel":
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"model folder {folder}: cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"]) + sorted(str(item) for item in report["mismatched_keys"])
    if missing:
        raise DataError(f"model folder {folder}: its weights lack {', '.join(missing[:5])} ({len(missing)} in all)")
    return model
