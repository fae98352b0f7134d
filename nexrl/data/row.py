"""One row, checked: from columns to a prompt."""

from pathlib import PurePath
from typing import Any

import msgspec

from nexrl.config.schema import DataConfig
from nexrl.data.row_files import Row
from nexrl.errors import DataError
from nexrl.types import Message

SOURCE_KEY = "data_source"


class Prompt(msgspec.Struct, frozen=True):
    """What a row says."""

    prompt: str | list[Message]
    ground_truth: Any
    data_source: str
    fields: dict[str, Any]


def parse_row(raw: Row, *, config: DataConfig, file: str, number: int) -> Prompt:
    """Check one row; raises DataError naming file, row, column, what was found and what is needed."""
    where = f"{file}, row {number}"
    if config.prompt_key not in raw:
        found = ", ".join(sorted(raw)) or "no columns"
        raise DataError(f"{where}: no column {config.prompt_key!r} (data.prompt_key); found {found}")
    row: Row = msgspec.json.decode(msgspec.json.encode(raw))  # JSON values only: arrow has times, decimals and NaN
    prompt = _check_prompt(row.pop(config.prompt_key), where=f"{where}, column {config.prompt_key!r}")
    ground_truth = row.pop(config.ground_truth_key, None)
    if ground_truth is None and isinstance(row.get("reward_model"), dict):
        ground_truth = row["reward_model"].get("ground_truth")
    source = row.pop(SOURCE_KEY, None)
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}, column {SOURCE_KEY!r}: found {source!r}, needs text")
    return Prompt(prompt, ground_truth, source or PurePath(file).stem, row)


def _check_prompt(value: Any, *, where: str) -> str | list[Message]:
    needed = "text or a list of chat messages"
    if value is None or (isinstance(value, str) and not value.strip()) or value == []:
        raise DataError(f"{where}: is {'null' if value is None else 'empty'}, needs {needed}")
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise DataError(f"{where}: found {type(value).__name__} {value!r:.60}, needs {needed}")
    return [_check_message(message, where=f"{where}, message {place}") for place, message in enumerate(value)]


def _check_message(message: Any, *, where: str) -> Message:
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DataError(f"{where}: found {message!r:.60}, needs an object with a text `role`")
    known = {key: value for key, value in message.items() if value is not None}  # arrow fills absent keys with null
    if not {"content", "tool_calls"} & set(known):
        raise DataError(f"{where}: found {message!r:.60}, needs `content`")
    return {"content": None, **known}
