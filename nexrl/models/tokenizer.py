"""Tokenizers."""

from pathlib import Path
from typing import cast

from nexrl.errors import DataError
from nexrl.models.folder import model_folder, require_tokenizer
from nexrl.types.protocols import Tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer of a model folder, from disk only; raises ConfigError or DataError naming the folder."""
    folder = model_folder(path)
    require_tokenizer(folder)
    from transformers import AutoTokenizer

    try:
        return cast("Tokenizer", AutoTokenizer.from_pretrained(str(folder), local_files_only=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"model folder {folder}: cannot read its tokenizer: {error}") from error
