"""Prompts: files, epochs, shuffling, exact position, replay."""

from nexrl.data.base import BaseDataLoader, CountTokens
from nexrl.data.create import create_data_loader
from nexrl.data.item import DataItem, LoaderState
from nexrl.data.mock_loader import MockDataLoader
from nexrl.data.sequential import SequentialDataLoader
from nexrl.data.torch_loader import TorchDataLoader

__all__ = [
    "BaseDataLoader",
    "CountTokens",
    "DataItem",
    "LoaderState",
    "MockDataLoader",
    "SequentialDataLoader",
    "TorchDataLoader",
    "create_data_loader",
]
