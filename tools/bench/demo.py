"""The demo recipe from nothing: how long, how well, how much memory."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from nexrl.errors import RunFolderError
from tools.bench.facts import make_record
from tools.bench.memory import PeakMemory
from tools.bench.rows import Record, Row, at_least, at_most
from tools.bench.runs import GRPO_RECIPE, events_of, only_run, run_to_end, steps_of

SCORE = "val/sampled_exact_match"


@dataclass(frozen=True, kw_only=True)
class DemoRun:
    """What one demo took and reached."""

    wall: float
    """Seconds of the whole command."""
    before: float
    after: float
    """Sampled exact match on the held-out words."""
    first_step: float
    """Seconds from the end of the supervised stage to the end of the first GRPO step."""
    peak_bytes: int
    processes: int


def measure(folder: Path, overrides: Sequence[str]) -> Record:
    """Run the demo with an empty stage cache, and hold the figures to their targets."""
    return make_record("demo", figures(run_demo(folder, overrides)))


def run_demo(folder: Path, overrides: Sequence[str]) -> DemoRun:
    """One run through the launcher; `overrides` follow the recipe. Raises RoleError when it fails."""
    root = folder / "runs"
    places = (f"launch.run_root={root}", f"initial_stage.cache={folder / 'stages'}")
    memory = PeakMemory()

    def watch(pid: int) -> bool:
        memory.follow(pid)
        return False

    started = time.perf_counter()
    try:
        run_to_end([str(GRPO_RECIPE), *places, *overrides], log=folder / "demo.log", watch=watch)
    finally:
        memory.stop()
    wall = time.perf_counter() - started
    stage, run_dir = only_run(root, "reverse-sft"), only_run(root, "reverse-grpo")
    summary = read_summary(run_dir)
    return DemoRun(
        wall=wall,
        before=summary["before"][SCORE],
        after=summary["after"][SCORE],
        first_step=steps_of(run_dir)[0]["t"] - events_of(stage, "done")[0]["t"],
        peak_bytes=memory.peak,
        processes=memory.processes,
    )


def figures(run: DemoRun) -> list[Row]:
    """The demo's four promises."""
    return [
        Row(figure="the whole command", value=run.wall, unit="s", target=at_most(300)),
        Row(figure="sampled exact match before GRPO", value=run.before, target=at_most(0.40)),
        Row(figure="sampled exact match after GRPO", value=run.after, target=at_least(0.90)),
        Row(
            figure="end of the supervised stage to the first GRPO step",
            value=run.first_step,
            unit="s",
            target=at_most(20),
            note="the first validation (1024 samples) included",
        ),
        Row(
            figure="memory of all processes together, peak",
            value=run.peak_bytes / 2**30,
            unit="GiB",
            target=at_most(4),
            note=f"sum of PSS, {run.processes} processes",
        ),
    ]


def read_summary(run_dir: Path) -> dict[str, Any]:
    """summary.json; raises RunFolderError where there is none."""
    path = run_dir / "summary.json"
    if not path.is_file():
        raise RunFolderError(f"{path} is missing: the run did not end by itself")
    return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
