"""Look into the trajectories of a run: `python -m tools.trajectories --help`."""

import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nexrl.errors import NexRLError, StoreError
from nexrl.store import FileReport, StepsReader, TrajectoryReader, clear_flags, inspect_run
from nexrl.store.check import findings
from nexrl.store.superblock import is_closed
from nexrl.types import Trajectory

_SHOWN_FINDINGS = 20

app = typer.Typer(
    help="""Look into the trajectories of a run, while it runs, after it ended, or after it was killed.

RUN is a run folder (runs/<experiment>/<run id>), its `trajectories` folder, or one .h5 file.

  python -m tools.trajectories info  runs/reverse/2026-11-21_10-00\n
  python -m tools.trajectories show  runs/reverse/2026-11-21_10-00 --worst\n
  python -m tools.trajectories check runs/reverse/2026-11-21_10-00

Exit codes: 0 fine, 1 `check` found something, 2 wrong command line, 4 RUN cannot be read.
docs/trajectory-format.md tells how to read the files with h5py, pandas or duckdb.""",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Run = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, its trajectories folder, or one .h5 file.")]


@app.command()
def info(run: Run) -> None:
    """Files, counts, rewards, weight versions, steps."""
    console = Console()
    with TrajectoryReader(run) as reader:
        console.print(_files_table(reader))
        if not len(reader):
            console.print("No trajectory was committed yet.")
            return
        headers = reader.headers()
    console.print(_rewards_table(headers))
    console.print(_counts_table("finish reason", Counter(headers["finish_reason"].tolist())))
    console.print(_counts_table("weight version", _version_counts(headers)))
    _print_steps(console, run, headers)


@app.command()
def show(
    run: Run,
    trajectory_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A trajectory id, or a number: 0 = first, -1 = last.")
    ] = None,
    worst: Annotated[bool, typer.Option("--worst", help="The one with the lowest reward.")] = False,
    best: Annotated[bool, typer.Option("--best", help="The one with the highest reward.")] = False,
    sample: Annotated[int, typer.Option("--random", metavar="N", min=0, help="N of them, drawn at random.")] = 0,
) -> None:
    """Print trajectories.

    Prompt, response, expected answer, reward, turns, weight-version spans, and the steps that trained on it.
    """
    if sum([trajectory_id is not None, worst, best, sample > 0]) != 1:
        raise typer.BadParameter("say which: one of an ID, --worst, --best, --random N")
    with TrajectoryReader(run) as reader:
        if not len(reader):
            raise StoreError(f"{run}: no trajectory was committed yet")
        chosen: list[int | str]
        if trajectory_id is not None:
            chosen = [int(trajectory_id) if trajectory_id.lstrip("-").isdigit() else trajectory_id]
        elif sample:
            chosen = list(random.sample(range(len(reader)), min(sample, len(reader))))
        else:
            rewards = reader.column("reward")
            chosen = [int(np.nanargmin(rewards) if worst else np.nanargmax(rewards))]
        with StepsReader(run if run.is_dir() else run.parent) as steps:
            for which in chosen:
                _print_trajectory(Console(), reader.read(which), steps)


@app.command()
def check(
    run: Run,
    clear: Annotated[
        bool,
        typer.Option(
            "--clear-flags",
            help="Mark files of killed writers as closed, so that programs without SWMR open them. "
            "Only when no job writes to RUN any more.",
        ),
    ] = False,
) -> None:
    """Read everything, report what is wrong.

    Damaged files; lengths, loss masks, log-probs, weight-version spans and turns that contradict one another; ids that
    were recorded twice. Exit code 1 when something was found.
    """
    console = Console()
    reports = inspect_run(run)
    console.print(_reports_table(reports))
    found = [f"{report.path.name}: {report.problem}" for report in reports if not report.ok]
    if not found:
        with TrajectoryReader(run) as reader:
            found = _all_findings(reader)
    for line in found[:_SHOWN_FINDINGS]:
        console.print(Text(line), soft_wrap=True)
    if len(found) > _SHOWN_FINDINGS:
        console.print(f"… and {len(found) - _SHOWN_FINDINGS} more")
    if clear:
        for report in reports:
            if report.ok and not report.closed:
                clear_flags(report.path)
                console.print(f"{report.path}: marked as closed", soft_wrap=True)
    trajectories = sum(report.intact for report in reports)
    console.print(f"{trajectories} trajectories, {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}")
    if found:
        raise typer.Exit(1)


def _files_table(reader: TrajectoryReader) -> Table:
    table = Table(title=f"Trajectories of {reader.path}", title_justify="left")
    for name in ("file", "attempt", "trajectories", "tokens", "MB", "compressed", "state"):
        table.add_column(name, justify="left" if name in ("file", "state") else "right")
    for file in sorted(reader.files, key=lambda file: (int(file.attributes["attempt"]), file.path.name)):
        content, stored = file.stream_bytes()
        table.add_row(
            file.path.name,
            str(file.attributes["attempt"]),
            str(file.rows),
            f"{int(file.column('num_tokens').sum())}",
            f"{file.path.stat().st_size / 1e6:.1f}",
            f"{content / stored:.1f} ×" if stored else "–",
            _state(closed=is_closed(file.path), last_commit=file.last_commit),
        )
    return table


def _state(*, closed: bool, last_commit: float) -> str:
    if closed:
        return "closed"
    ago = f"last commit {time.time() - last_commit:.0f} s ago" if last_commit else "nothing committed"
    return f"being written, or its writer was killed ({ago})"


def _rewards_table(headers: dict[str, np.ndarray]) -> Table:
    scores = [name for name in headers if name.startswith("score/")]
    table = Table(title="Rewards", title_justify="left")
    for name in ("", "trajectories", "groups", "trained tokens", "reward mean", "std", *scores):
        table.add_column(name, justify="right" if name else "left")
    for name, rows in (("training", ~headers["is_val"]), ("validation", headers["is_val"])):
        if rows.any():
            rewards = headers["reward"][rows]
            means = [headers[score][rows] for score in scores]
            table.add_row(
                name,
                str(len(rewards)),
                str(len(set(headers["group_id"][rows]))),
                str(int(headers["num_trained"][rows].sum())),
                f"{rewards.mean():.4f}",
                f"{rewards.std():.4f}",
                *(f"{np.nanmean(values):.4f}" if np.isfinite(values).any() else "–" for values in means),
            )
    return table


def _version_counts(headers: dict[str, np.ndarray]) -> Counter[str]:
    versions = zip(headers["version_min"].tolist(), headers["version_max"].tolist(), strict=True)
    counts = Counter(sorted(versions))
    return Counter({str(low) if low == high else f"{low}–{high}": count for (low, high), count in counts.items()})


def _counts_table(title: str, counts: Counter[str], *, most: int = 12) -> Table:
    table = Table(title, "trajectories", "share")
    total = sum(counts.values())
    items = list(counts.items())
    shown = items if len(items) <= most else [*items[: most // 2], ("…", 0), *items[-most // 2 :]]
    for name, count in shown:
        table.add_row(Text(name), str(count) if count else "", f"{100 * count / total:.1f} %" if count else "")
    return table


def _print_steps(console: Console, run: Path, headers: dict[str, np.ndarray]) -> None:
    with StepsReader(run if run.is_dir() else run.parent) as reader:
        steps = reader.columns()
    if not len(steps["step"]):
        console.print("No training step was recorded.")
        return
    oldest = dict(zip(headers["trajectory_id"], headers["version_min"], strict=True))
    lags = [
        version - oldest[name]
        for name, version in zip(steps["trajectory_id"], steps["weight_version"], strict=True)
        if name in oldest and oldest[name] >= 0
    ]
    trained = len(set(steps["trajectory_id"]))
    console.print(
        f"Steps {int(steps['step'].min())} to {int(steps['step'].max())} trained on {trained} trajectories"
        + (f", staleness mean {np.mean(lags):.2f}, max {max(lags)}" if lags else "")
    )


def _print_trajectory(console: Console, trajectory: Trajectory, steps: StepsReader) -> None:
    header = trajectory.header
    console.rule(Text(header.trajectory_id), align="left")
    for name, text in (
        ("prompt", trajectory.prompt),
        ("response", trajectory.response),
        ("expected", trajectory.ground_truth),
    ):
        console.print(Text(f"{name}:", style="bold"))
        console.print(Text(text), soft_wrap=True)
    spans = ", ".join(f"{span.start}:{span.end} v{span.version}" for span in trajectory.spans)
    turns = ", ".join(f"{turn.role} {turn.start}:{turn.end}" for turn in trajectory.turns)
    figures = ", ".join(f"{name} {value:g}" for name, value in header.score.items())
    trained = ", ".join(f"step {row.step} (advantage {row.advantage:+.3f})" for row in steps.of(header.trajectory_id))
    facts = {
        "reward": f"{header.reward:g}" + (f" ({figures})" if figures else ""),
        "ended": f"{header.finish_reason} after {header.finished - header.started:.2f} s on {header.worker}",
        "tokens": f"{header.num_tokens}, {header.num_trained} trained",
        "turns": turns or "–",
        "weight versions": spans or "–",
        "sampled at": f"temperature {header.temperature:g}, seed {header.seed}",
        "trained in": trained or "no step",
    }
    for name, fact in facts.items():
        console.print(Text.assemble((f"{name}: ", "bold"), fact), soft_wrap=True)


def _reports_table(reports: list[FileReport]) -> Table:
    table = Table("file", "intact", "damaged", "truncated", "state")
    for report in reports:
        state = _state(closed=report.closed, last_commit=report.last_commit)
        table.add_row(
            report.path.name,
            str(report.intact),
            str(report.damaged),
            str(report.truncated),
            state if report.ok else "damaged",
        )
    return table


def _all_findings(reader: TrajectoryReader) -> list[str]:
    seen: Counter[str] = Counter()
    found = []
    for trajectory in reader:
        seen[trajectory.header.trajectory_id] += 1
        found += [f"{trajectory.header.trajectory_id}: {finding}" for finding in findings(trajectory)]
    return found + [f"{name}: recorded {count} times" for name, count in seen.items() if count > 1]


def main() -> None:
    """Run the command line; a user's error is one line on stderr and its exit code."""
    try:
        app()
    except NexRLError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
