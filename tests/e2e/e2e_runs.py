"""Real runs, started as a user starts them; and what they left behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil
from safetensors.torch import load_file

from nexrl.metrics import read_json_lines
from nexrl.pool import LedgerAudit, LedgerReader

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TINY = HERE / "tiny.yaml"
STEPS = 12
"""Training steps of the runs that are compared with one another."""
SLOW = ("trainer.total_train_steps=100000", "rollout_worker.evaluator_args={seconds: 0.03}")
"""A run that goes on until a test ends it."""
MODEL_KEY = "service.train_service.main_actor.actor.model.path"
LOCAL = ("--launch-mode", "local", "launch.groups.rollout.threads=0", "launch.groups.inference.threads=0")
"""Options of a run in one process, whose threads are the trainer's."""
PATIENCE = 150.0
"""Seconds after which a run that should have ended counts as hung."""


@dataclass(kw_only=True)
class Launch:
    """A launcher that was started, and its run folder."""

    process: subprocess.Popen[bytes]
    folder: Path
    output: Path

    @property
    def text(self) -> str:
        """What the launcher has said."""
        return self.output.read_text(encoding="utf-8", errors="replace")

    @property
    def steps(self) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl."""
        return list(read_json_lines(self.folder / "metrics.jsonl"))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """Events of one kind."""
        return [event for event in read_json_lines(self.folder / "events.jsonl") if event["event"] == kind]

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return msgspec.json.decode((self.folder / "summary.json").read_bytes())

    @property
    def audit(self) -> LedgerAudit:
        """The ledger, balanced."""
        return LedgerReader(self.folder / "ledger").audit()

    @property
    def weights(self) -> dict[str, Any]:
        """The exported model's tensors by name."""
        return load_file(self.folder / "hf" / "model.safetensors")

    def pid(self, name: str) -> int:
        """Of a role such as `trainer-0`, while it runs."""
        role, _, rank = name.partition("-")
        for child in psutil.Process(self.process.pid).children():
            environment = child.environ()
            if (environment.get("NEXRL_ROLE"), environment.get("NEXRL_RANK")) == (role, rank):
                return child.pid
        raise AssertionError(f"{name} does not run")

    def wait(self, seconds: float = PATIENCE) -> int:
        """The launcher's exit code; a run that does not end is killed and fails the test."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"no end within {seconds:g} s\n{self.text}") from None

    def wait_until(self, happened: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait for something that the run writes; fails the test when the run ends without it."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"the run ended too early\n{self.text}"
            assert time.monotonic() < deadline, f"waited {seconds:g} s\n{self.text}"
            time.sleep(0.02)

    def wait_for_step(self, step: int) -> None:
        """Wait until a training step is done."""
        self.wait_until(lambda: bool(self.steps) and self.steps[-1]["step"] >= step)

    def kill(self) -> None:
        """End the launcher and, by its guard, all its roles."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def start(
    folder: Path, model: Path | None, *overrides: str, recipe: Path = TINY, options: tuple[str, ...] = ()
) -> Launch:
    """`python -m launch.submit` with its own run folder."""
    values = [] if model is None else [f"{MODEL_KEY}={model}"]
    return start_command(folder, str(recipe), *values, *overrides, "--run-dir", str(folder), *options)


def start_command(folder: Path, *arguments: str) -> Launch:
    """`python -m launch.submit ARGUMENTS`; the run is expected in `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    output = folder.with_name(f"{folder.name}.out")
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "launch.submit", *arguments],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200", "WANDB_SILENT": "true"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    return Launch(process=process, folder=folder, output=output)


def run(
    folder: Path, model: Path | None, *overrides: str, recipe: Path = TINY, options: tuple[str, ...] = ()
) -> Launch:
    """The same, to its end with exit code 0."""
    launch = start(folder, model, *overrides, recipe=recipe, options=options)
    code = launch.wait()
    assert code == 0, launch.text
    return launch


def left_behind(folder: Path) -> list[str]:
    """Processes that still know of a run folder."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline", "status"]):
        if str(folder) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(f"{process.info['pid']} {process.info['cmdline']}")
    return found


def errors_said(text: str) -> list[str]:
    """Lines of the launcher that begin an error message."""
    return [line for line in text.splitlines() if line.startswith("error: ")]


def trajectories_tool(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """`python -m tools.trajectories COMMAND RUN`."""
    arguments = [sys.executable, "-m", "tools.trajectories", command, str(folder)]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
