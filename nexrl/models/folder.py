"""What a model folder must hold."""

from pathlib import Path

from nexrl.errors import ConfigError, DataError

KEY = "service.train_service.<name>.actor.model.path"
WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model*.bin.index.json")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json", "*.tiktoken")


def model_folder(path: str | Path) -> Path:
    """`path` as a folder with `config.json`; raises ConfigError where there is no folder, DataError without config."""
    folder = Path(path)
    if not str(path) or not folder.is_dir():
        raise ConfigError(f"found {str(path)!r}, needs an existing Hugging Face model folder", key=KEY)
    if not (folder / "config.json").is_file():
        raise DataError(f"model folder {folder}: has no config.json")
    return folder


def require_weights(folder: Path) -> None:
    """Raise DataError unless `folder` holds weights."""
    if not any(True for pattern in WEIGHTS for _ in folder.glob(pattern)):
        raise DataError(f"model folder {folder}: has no weights (*.safetensors); `init: random` draws new ones")


def require_tokenizer(folder: Path) -> None:
    """Raise DataError unless `folder` holds a tokenizer."""
    if not any(True for pattern in TOKENIZERS for _ in folder.glob(pattern)):
        raise DataError(f"model folder {folder}: has no tokenizer (tokenizer.json)")
