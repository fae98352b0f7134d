"""Files as rows: parquet, csv and jsonl behind one Protocol."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from nexrl.errors import DataError

Row = dict[str, Any]


class RowFile(Protocol):
    """Rows of one source, by index from 0."""

    @property
    def name(self) -> str:
        """For messages: the path."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Row: ...

    def __iter__(self) -> Iterator[Row]: ...

    def number(self, index: int) -> int:
        """The row's number as a reader of the file counts, from 1."""
        ...


class ArrowRows:
    """A table in memory (parquet, csv)."""

    def __init__(self, path: Path, table: Any) -> None:
        self.name = str(path)
        self._table = table

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, index: int) -> Row:
        row: Row = self._table.slice(index, 1).to_pylist()[0]
        return row

    def __iter__(self) -> Iterator[Row]:
        for batch in self._table.to_batches(max_chunksize=1024):
            yield from batch.to_pylist()

    def number(self, index: int) -> int:
        """Data rows from 1; a header line does not count."""
        return index + 1


class JsonLines:
    """One JSON object per line; empty lines are passed over."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.name = str(path)
        lines = enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
        self._lines = [(number, line) for number, line in lines if line.strip()]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> Row:
        number, line = self._lines[index]
        try:
            return msgspec.json.decode(line, type=Row)
        except msgspec.ValidationError as error:
            raise DataError(f"{self.name}, row {number}: needs a JSON object with text keys; {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{self.name}, row {number}: not valid JSON: {error}; found {line[:60]!r}") from error

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    def number(self, index: int) -> int:
        """The line in the file, from 1."""
        return self._lines[index][0]


def open_rows(file: str, *, text_columns: Sequence[str]) -> RowFile:
    """The rows of `file`; raises DataError naming it where it is missing, empty, of unknown suffix or unreadable.

    csv has no types: `text_columns` stay text as written ("007"), others are numbers where all their cells are.
    """
    path = Path(file)
    readers = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}
    if path.suffix not in readers:
        raise DataError(f"{path}: found suffix {path.suffix!r}, needs one of {', '.join(readers)}")
    if not path.is_file():
        raise DataError(f"{path}: no such file (data.data_files)")
    try:
        rows = readers[path.suffix](path, text_columns)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if not len(rows):
        raise DataError(f"{path}: is empty, needs at least one row")
    return rows


def _read_parquet(path: Path, text_columns: Sequence[str]) -> RowFile:
    import pyarrow  # slow to import: only where a file needs it
    from pyarrow import parquet

    try:
        return ArrowRows(path, parquet.ParquetFile(path).read())
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: not a readable parquet file: {error}") from error


def _read_csv(path: Path, text_columns: Sequence[str]) -> RowFile:
    import pyarrow
    from pyarrow import csv

    types = dict.fromkeys(text_columns, pyarrow.string())
    try:
        table = csv.read_csv(
            path,
            convert_options=csv.ConvertOptions(column_types=types),
            parse_options=csv.ParseOptions(newlines_in_values=True),
        )
    except pyarrow.ArrowException as error:
        reason = "is empty, needs a header line and at least one row" if not path.stat().st_size else str(error)
        raise DataError(f"{path}: not a readable csv file: {reason}") from error
    return ArrowRows(path, table)


def _read_jsonl(path: Path, text_columns: Sequence[str]) -> RowFile:
    return JsonLines(path, path.read_bytes())
