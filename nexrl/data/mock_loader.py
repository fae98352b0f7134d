"""Prompts out of nothing, for smoke tests."""

from collections.abc import Iterator

from nexrl.config.schema import DataConfig
from nexrl.data.base import CountTokens
from nexrl.data.row_files import Row
from nexrl.data.sequential import SequentialDataLoader

_BATCHES = 16


class MockDataLoader(SequentialDataLoader):
    """Sums with their answers, sixteen batches of them in an epoch."""

    def __init__(self, config: DataConfig, *, count_tokens: CountTokens | None = None) -> None:
        super().__init__(config, [_Sums(config, _BATCHES * config.batch_size)], count_tokens=count_tokens)


class _Sums:
    name = "mock"

    def __init__(self, config: DataConfig, length: int) -> None:
        self._config = config
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row:
        left, right = divmod(index, 10)
        return {self._config.prompt_key: f"{left} + {right} =", self._config.ground_truth_key: str(left + right)}

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(self._length))

    def number(self, index: int) -> int:
        return index + 1
