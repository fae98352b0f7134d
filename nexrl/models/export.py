"""Weights back into a Hugging Face folder."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nexrl.errors import CheckpointError
from nexrl.models.folder import WEIGHTS, model_folder

if TYPE_CHECKING:
    import torch

COMPANIONS = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""Files that go with the weights: configs, tokenizer, chat template."""


def export_hf(model_state: "Mapping[str, torch.Tensor]", source_folder: str | Path, target: str | Path) -> None:
    """Write `target`: the weights as safetensors, config and tokenizer as in `source_folder`.

    `model_state` holds full tensors by Hugging Face name, tied ones once. The folder appears by rename, complete; an
    earlier one of that name is replaced. Raises CheckpointError naming the folder when it cannot be written.
    """
    from huggingface_hub import save_torch_state_dict
    from safetensors import SafetensorError

    source, target = model_folder(source_folder), Path(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _copy_companions(source, partial)
        _write_config(model_state, source, partial)
        save_torch_state_dict(
            {name: _alone(tensor) for name, tensor in model_state.items()}, partial, metadata={"format": "pt"}
        )
        _publish(partial, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"export to {target}: {error}") from error


def _alone(tensor: "torch.Tensor") -> "torch.Tensor":
    """On the CPU, in storage of its own: a gathered tensor may be a view of a longer one."""
    tensor = tensor.detach().cpu().contiguous()
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()


def _copy_companions(source: Path, partial: Path) -> None:
    weights = {path.name for pattern in WEIGHTS for path in source.glob(pattern)}
    for pattern in COMPANIONS:
        for path in source.glob(pattern):
            if path.is_file() and path.name not in weights:
                shutil.copyfile(path, partial / path.name)


def _write_config(model_state: "Mapping[str, torch.Tensor]", source: Path, partial: Path) -> None:
    """The source's config.json, saying the dtype of the exported weights."""
    config = json.loads((source / "config.json").read_text())
    config.pop("torch_dtype", None)
    config["dtype"] = str(next(iter(model_state.values())).dtype).removeprefix("torch.")
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _publish(partial: Path, target: Path) -> None:
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if target.exists():
        old = target.with_name(f".{target.name}.{os.getpid()}.old")
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old)
    else:
        partial.rename(target)
