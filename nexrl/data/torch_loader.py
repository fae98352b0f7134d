"""Prompts from files."""

from nexrl.config.schema import DataConfig
from nexrl.data.base import CountTokens
from nexrl.data.row import SOURCE_KEY
from nexrl.data.row_files import open_rows
from nexrl.data.sequential import SequentialDataLoader


class TorchDataLoader(SequentialDataLoader):
    """Reads `config.data_files` (parquet, jsonl, csv). The name is the one that recipes know; torch is not needed."""

    def __init__(self, config: DataConfig, *, count_tokens: CountTokens | None = None) -> None:
        text = (config.prompt_key, config.ground_truth_key, SOURCE_KEY)
        sources = [open_rows(file, text_columns=text) for file in config.data_files]
        super().__init__(config, sources, count_tokens=count_tokens)
