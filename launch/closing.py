"""The table at the end of a run, from its `summary.json`."""

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from launch.display import clock
from launch.run_folder import RunFolder
from launch.supervisor import how
from nexrl.config import Recipe
from nexrl.errors import EXIT_INTERRUPT, EXIT_OK, EXIT_TERMINATED, ConfigError, DataError

_SIDE_FIGURES = ("num_samples", "failed", "response_length")
_LOSSES = {
    "dropped": "dropped prompts",
    "skipped_steps": "skipped steps",
    "failed_validation": "failed validation samples",
}
"""Key of the summary → what it counts."""
_HOPELESS = (ConfigError.exit_code, DataError.exit_code)
"""Ends after which the same command ends in the same way."""


def print_closing(folder: RunFolder, *, exit_code: int, recipe: Recipe, console: Console) -> None:
    """Print results before → after for each way in which validation samples, what was lost, times, paths, and how it
    ended; a path is never cut.

    What the run did not write is left out: a killed run has no summary.
    """
    summary = read_summary(folder.path)
    ways = recipe.validate.sampling if recipe.validate.data else ()
    rows = (
        *results(summary, ways),
        *losses(summary),
        ("wall time", times(summary)),
        ("run folder", _short(folder.path)),
        *((name, _short(Path(path))) for name, path in _mapping(summary, "paths").items() if Path(path) != folder.path),
        ("outcome", ending(exit_code, summary)),
    )
    width = max(len(label) for label, _ in rows)
    console.print()
    for label, text in rows:
        if text:
            console.print(Text.assemble((label.ljust(width), "bold"), "  ", text), soft_wrap=True)
    if exit_code != EXIT_OK:
        _print_what_is_left(folder, exit_code, recipe, console)


def read_summary(run_dir: Path) -> dict[str, Any]:
    """`summary.json`, or nothing where it is missing or broken."""
    try:
        return msgspec.json.decode((run_dir / "summary.json").read_bytes(), type=dict[str, Any])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def results(summary: Mapping[str, Any], ways: Iterable[str]) -> list[tuple[str, str]]:
    """Rows such as `("reward, sampled", "0.268 → 0.956")`, rewards first; an exact match that is the reward is no row
    of its own."""
    before, after = _mapping(summary, "before"), _mapping(summary, "after")
    rows = []
    for way in ways:
        prefix = f"val/{way}_"
        names = {name.removeprefix(prefix) for name in {**before, **after} if name.startswith(prefix)}
        values = {name: [part.get(prefix + name) for part in (before, after)] for name in names}
        for figure in sorted(names, key=lambda name: (name != "reward", name != "exact_match", name)):
            if figure in _SIDE_FIGURES or figure.startswith("pass@"):
                continue
            if figure == "exact_match" and values[figure] == values.get("reward"):
                continue
            rows.append((f"{figure.replace('_', ' ')}, {way}", " → ".join(map(_number, values[figure]))))
    return sorted(rows, key=lambda row: not row[0].startswith("reward"))


def losses(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows for what the run did without, none where there is nothing to tell."""
    counts = ((words, summary.get(key)) for key, words in _LOSSES.items())
    rows = [(words, str(count)) for words, count in counts if isinstance(count, int) and count > 0]
    ended = summary.get("ended")
    return [*rows, ("ended early", ended)] if isinstance(ended, str) and ended else rows


def times(summary: Mapping[str, Any]) -> str:
    """`1:18 (starting 0:06, training 1:12)`."""
    phases = {name: value for name, value in _mapping(summary, "phases").items() if isinstance(value, int | float)}
    each = ", ".join(f"{name} {clock(seconds)}" for name, seconds in phases.items())
    total = summary.get("wall_s")
    if not isinstance(total, int | float):
        return each
    return f"{clock(total)} ({each})" if each else clock(total)


def ending(exit_code: int, summary: Mapping[str, Any]) -> str:
    """The exit code in words, and the error that the run itself gives as the reason."""
    words = {EXIT_OK: "finished", EXIT_INTERRUPT: "interrupted by Ctrl-C", EXIT_TERMINATED: "stopped by SIGTERM"}
    told = f"{words[exit_code]} (exit code {exit_code})" if exit_code in words else how(exit_code)
    error = summary.get("error")
    return f"{told}: {' '.join(error.split())}" if isinstance(error, str) and error else told


def _print_what_is_left(folder: RunFolder, exit_code: int, recipe: Recipe, console: Console) -> None:
    checkpoint, path = folder.newest_checkpoint, _short(folder.path)
    left = f"newest checkpoint {_short(checkpoint)}" if checkpoint else "no checkpoint"
    lines = [f"left: {left}; logs {_short(folder.log_dir)}"]
    again = f"python -m launch.submit {shlex.quote(f'{path}/recipe.yaml')}"
    if checkpoint:
        again += f" --run-dir {shlex.quote(path)} resume.mode=auto"
        if recipe.resume.resume_path:
            again += " resume.resume_path="
    if exit_code not in _HOPELESS:
        lines.append(f"{'continue' if checkpoint else 'start again'} with: {again}")
    console.print(Text("\n".join(lines)), soft_wrap=True)


def _mapping(summary: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = summary.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
