"""Records for people: a table on the console, and the tables of docs/benchmarks.md."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from nexrl.errors import ConfigError
from tools.bench.rows import Record, Row, target_text, text_of

_ROW_COLUMNS = ("figure", "measured", "target", "", "note")


def print_record(record: Record, console: Console) -> None:
    """Figures beside their targets, then the details."""
    _print_table(f"{record.benchmark}, {record.hardware}", _ROW_COLUMNS, map(_cells, record.rows), console)
    for detail in record.details:
        _print_table(detail.title, detail.columns, detail.lines, console)


def markdown(record: Record) -> str:
    """What stands in the document: where and how it was measured, figures, details."""
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    parts = [
        f"`{record.command}`  \n{record.date}, commit {record.commit or 'unknown'}, {record.hardware}  \n{versions}",
        _markdown_table(_ROW_COLUMNS, [_cells(row) for row in record.rows]),
    ]
    for detail in record.details:
        parts += [f"{detail.title}:", _markdown_table(detail.columns, detail.lines)]
    return "\n\n".join(parts)


def fill_in(document: str, records: Iterable[Record]) -> str:
    """The document with the text between `<!-- NAME -->` and `<!-- /NAME -->` replaced by the record of that benchmark.

    Raises ConfigError where it has no such place.
    """
    for record in records:
        begin, end = f"<!-- {record.benchmark} -->", f"<!-- /{record.benchmark} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(document):
            raise ConfigError(f"the document has no place for {record.benchmark}: needs {begin} … {end}")
        text = f"{begin}\n{markdown(record)}\n{end}"
        document = pattern.sub(lambda _, text=text: text, document)  # type: ignore[misc]
    return document


def write_document(path: Path, records: Sequence[Record]) -> None:
    """Fill the records into a file. Raises ConfigError where it does not exist or lacks a place."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such document")
    path.write_text(fill_in(path.read_text(encoding="utf-8"), records), encoding="utf-8")


def _cells(row: Row) -> tuple[str, ...]:
    return (row.figure, text_of(row.value, row.unit), target_text(row), row.verdict, row.note)


def _markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    drawn = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*drawn, *(f"| {' | '.join(line)} |" for line in lines)])


def _print_table(title: str, columns: Sequence[str], lines: Iterable[Sequence[str]], console: Console) -> None:
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console.print(table)
