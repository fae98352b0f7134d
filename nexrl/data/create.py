"""Which loader a recipe asks for."""

from nexrl.config.custom import load_class
from nexrl.config.schema import DataConfig
from nexrl.data.base import BaseDataLoader, CountTokens
from nexrl.data.mock_loader import MockDataLoader
from nexrl.data.torch_loader import TorchDataLoader

_LOADERS: dict[str, type[TorchDataLoader] | type[MockDataLoader]] = {"torch": TorchDataLoader, "mock": MockDataLoader}


def create_data_loader(config: DataConfig, *, count_tokens: CountTokens | None = None) -> BaseDataLoader:
    """`custom_class` where there is one, else `type`; without `count_tokens` no prompt is too long.

    Raises DataError naming file, row and column of what cannot be used, ConfigError for a class that cannot.
    """
    if config.custom_class:
        return load_class(config.custom_class, BaseDataLoader)(config, count_tokens=count_tokens)
    return _LOADERS[config.type](config, count_tokens=count_tokens)
