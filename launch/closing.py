"""The table at the end of a run, from its `summary.json`."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from launch.display import clock
from launch.run_folder import RunFolder
from launch.supervisor import how
from nexrl.config import Recipe
from nexrl.errors import EXIT_INTERRUPT, EXIT_OK, EXIT_TERMINATED

_SIDE_FIGURES = ("num_samples", "failed", "response_length")


def print_closing(folder: RunFolder, *, exit_code: int, recipe: Recipe, console: Console) -> None:
    """Print results before → after for each way in which validation samples, times, paths, and how it ended.

    What the run did not write is left out: a killed run has no summary.
    """
    summary = read_summary(folder.path)
    ways = recipe.validate.sampling if recipe.validate.data else ()
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, text in (
        *results(summary, ways),
        ("wall time", times(summary)),
        ("run folder", _short(folder.path)),
        *((name, _short(Path(path))) for name, path in _mapping(summary, "paths").items() if Path(path) != folder.path),
        ("outcome", ending(exit_code)),
    ):
        if text:
            table.add_row(label, Text(text))
    console.print()
    console.print(table)
    if exit_code != EXIT_OK:
        _print_what_is_left(folder, recipe, console)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """`summary.json`, or nothing where it is missing or broken."""
    try:
        return msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def results(summary: Mapping[str, Any], ways: Iterable[str]) -> list[tuple[str, str]]:
    """Rows such as `("reward, sampled", "0.268 → 0.956")`, rewards first."""
    before, after = _mapping(summary, "before"), _mapping(summary, "after")
    rows = []
    for way in ways:
        prefix = f"val/{way}_"
        names = [name.removeprefix(prefix) for name in {**before, **after} if name.startswith(prefix)]
        for figure in sorted(names, key=lambda name: (name != "reward", name != "exact_match", name)):
            if figure in _SIDE_FIGURES or figure.startswith("pass@"):
                continue
            values = [_number(part.get(prefix + figure)) for part in (before, after)]
            rows.append((f"{figure.replace('_', ' ')}, {way}", " → ".join(values)))
    return sorted(rows, key=lambda row: not row[0].startswith("reward"))


def times(summary: Mapping[str, Any]) -> str:
    """`starting 0:06, training 1:12`."""
    phases = {name: value for name, value in _mapping(summary, "phases").items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {clock(seconds)}" for name, seconds in phases.items())


def ending(exit_code: int) -> str:
    """The exit code in words."""
    words = {EXIT_OK: "finished", EXIT_INTERRUPT: "interrupted by Ctrl-C", EXIT_TERMINATED: "stopped by SIGTERM"}
    return f"{words[exit_code]} (exit code {exit_code})" if exit_code in words else how(exit_code)


def _print_what_is_left(folder: RunFolder, recipe: Recipe, console: Console) -> None:
    checkpoint, path = folder.newest_checkpoint, _short(folder.path)
    left = f"newest checkpoint {_short(checkpoint)}" if checkpoint else "no checkpoint"
    again = f"python -m launch.submit {path}/recipe.yaml --run-dir {path} resume.mode=auto"
    if recipe.resume.resume_path:
        again += " resume.resume_path="
    console.print(Text(f"left: {left}; logs {_short(folder.log_dir)}\ncontinue with: {again}"), soft_wrap=True)


def _mapping(summary: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = summary.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
