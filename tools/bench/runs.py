"""Runs of the launcher, as a user starts them, and what they leave in their folders."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL
from typing import Any

from nexrl.config import read_resolved
from nexrl.errors import EXIT_INTERRUPT, EXIT_OK, RoleError
from nexrl.metrics import read_json_lines
from tools.bench.facts import ROOT

GRPO_RECIPE = ROOT / "recipes" / "reverse" / "grpo.yaml"
MODEL_KEY = "service.train_service.main_actor.actor.model.path"
_LOOK = 0.5
"""Seconds between two looks at what a run has written; a look costs less than a millisecond."""


def run_to_end(arguments: Sequence[str], *, log: Path, watch: Callable[[int], bool] = lambda pid: False) -> None:
    """`python -m launch.submit ARGUMENTS` to its end, its output in `log`.

    `watch` is called with the launcher's pid twice a second; where it returns True the run is ended as by Ctrl-C.
    Raises RoleError with the end of the log when the run fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "launch.submit", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    accepted = {EXIT_OK}
    try:
        while (code := _wait(process)) is None:
            if EXIT_INTERRUPT not in accepted and watch(process.pid):
                accepted.add(EXIT_INTERRUPT)
                process.send_signal(SIGINT)
    except BaseException:
        process.send_signal(SIGINT)
        if _wait(process, seconds=60) is None:
            process.send_signal(SIGKILL)  # its guard ends the roles
        raise
    if code not in accepted:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RoleError(f"{' '.join(command[1:])} ended with exit code {code}; the end of {log}:\n{tail}")


def steps_of(run_dir: Path) -> list[dict[str, Any]]:
    """The steps of metrics.jsonl."""
    return [line for line in read_json_lines(run_dir / "metrics.jsonl") if "timing/step" in line]


def events_of(run_dir: Path, kind: str) -> list[dict[str, Any]]:
    """Events of one kind, in order."""
    return [event for event in read_json_lines(run_dir / "events.jsonl") if event["event"] == kind]


def only_run(root: Path, experiment: str) -> Path:
    """The one run folder of an experiment under a run root. Raises RoleError unless there is one."""
    found = list((root / experiment).glob("*/recipe.yaml"))
    if len(found) != 1:
        raise RoleError(f"{root / experiment}: found {len(found)} runs, needed one")
    return found[0].parent


def stage_weights(say: Callable[[str], None]) -> Path:
    """The model that the demo's supervised stage made: found, or made now, by a run of one step."""
    say("weights: those of the recipe's supervised stage, which runs first unless it is kept")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        run_dir = Path(folder) / "run"
        none = ("validate.validate_before_train=false", "validate.validate_at_end=false", "trainer.export_hf=false")
        arguments = [str(GRPO_RECIPE), "trainer.total_train_steps=1", *none, "--run-dir", str(run_dir)]
        run_to_end(arguments, log=Path(folder) / "stage.log")
        return Path(read_resolved(run_dir / "recipe.yaml").service.actor_service.actor.model.path)


def _wait(process: subprocess.Popen[bytes], seconds: float = _LOOK) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
