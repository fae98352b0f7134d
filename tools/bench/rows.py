"""Figures, the record that a benchmark leaves behind, and its file."""

from pathlib import Path

import msgspec

from nexrl.errors import ConfigError


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """What a figure should be: at most or at least `limit`, in the figure's unit."""

    limit: float
    at_most: bool

    def met_by(self, value: float | None) -> bool:
        """Whether the figure is good enough; one that was never reached is not."""
        if value is None:
            return False
        return value <= self.limit if self.at_most else value >= self.limit


def at_most(limit: float) -> Target:
    """A target from above."""
    return Target(limit=limit, at_most=True)


def at_least(limit: float) -> Target:
    """A target from below."""
    return Target(limit=limit, at_most=False)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure."""

    figure: str
    value: float | None
    """None: never reached."""
    unit: str = ""
    target: Target | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, or nothing where there is no target."""
        if self.target is None:
            return ""
        return "met" if self.target.met_by(self.value) else "missed"


class Detail(msgspec.Struct, frozen=True, kw_only=True):
    """A table behind the figures: every seed, every repetition."""

    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """All that one benchmark found, and on what."""

    benchmark: str
    """The subcommand's name."""
    command: str
    """What was typed."""
    date: str
    """UTC, to the minute."""
    commit: str
    """Of the checkout; `+` behind it where files differed from it."""
    hardware: str
    """Processor, cores that the measurement could use, memory."""
    versions: dict[str, str]
    """Distribution → version."""
    rows: tuple[Row, ...]
    details: tuple[Detail, ...] = ()

    @property
    def all_met(self) -> bool:
        """Whether no target was missed."""
        return all(row.verdict != "missed" for row in self.rows)


def save_record(record: Record, path: Path) -> None:
    """Write the record as JSON; a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    half.rename(path)


def load_record(path: Path) -> Record:
    """Read what `save_record` wrote; raises ConfigError naming the file."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; a benchmark's --out writes it") from error
    except msgspec.DecodeError as error:
        raise ConfigError(f"{path}: not a benchmark's record: {error}") from error


def text_of(value: float | None, unit: str = "") -> str:
    """A figure for people: three digits that count, its unit behind; `never` for None."""
    if value is None:
        return "never"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit}".rstrip()


def target_text(row: Row) -> str:
    """`≤ 300 s`, or nothing."""
    if row.target is None:
        return ""
    return f"{'≤' if row.target.at_most else '≥'} {text_of(row.target.limit, row.unit)}"
