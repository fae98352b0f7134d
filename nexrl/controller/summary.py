"""What a run leaves behind for those who did not watch it: summary.json and the plot."""

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from nexrl.errors import RunFolderError
from nexrl.metrics import plot_run

_FAILED = re.compile(r"val/[^/]+_failed")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How an attempt at a run ended. Controller → summary.json."""

    exit_code: int
    error: str
    """`<ErrorClass>: <message>` of what ended it; empty where nothing went wrong."""
    steps: int
    """Training steps done, those of earlier attempts included."""
    dropped: int = 0
    """Prompts that this attempt dropped before the run was ending."""
    skipped_steps: int = 0
    """Steps of this attempt that had nothing to learn from."""
    ended: str = ""
    """Why it ended before all steps were done; empty where they were, or where the run was told to end."""


class Summary:
    """Collected while the run goes on, written at its end, however it ends."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._started = time.time()
        self._validation: dict[str, dict[str, float]] = {}
        self._failed_validation = 0
        """Validation samples that gave nothing, over all passes."""

    def validated(self, when: str, metrics: Mapping[str, float]) -> None:
        """Figures of a validation pass `before` training, after a `step`, or at the `end`."""
        self._validation[when] = dict(metrics)
        self._failed_validation += int(sum(value for name, value in metrics.items() if _FAILED.fullmatch(name)))

    def write(self, outcome: Outcome, *, phases: Mapping[str, float]) -> None:
        """`summary.json`, published by rename, and `reward.png` where a step was trained; RunFolderError where they
        cannot be written."""
        steps = outcome.steps
        paths = {"run": self._run_dir, "trajectories": self._run_dir / "trajectories"}
        if steps:
            paths["plot"] = self._run_dir / "reward.png"
        if (self._run_dir / "hf").is_dir():
            paths["hf"] = self._run_dir / "hf"
        content: dict[str, Any] = {
            **asdict(outcome),
            "failed_validation": self._failed_validation,
            "wall_s": time.time() - self._started,
            "before": self._validation.get("before", {}),
            "after": self._validation.get("end", {}),
            "phases": dict(phases),
            "paths": {name: str(path) for name, path in paths.items()},
        }
        partial = self._run_dir / ".summary.json.partial"
        try:
            partial.write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
            partial.rename(self._run_dir / "summary.json")
            if steps:
                plot_run(self._run_dir)
        except OSError as error:
            raise RunFolderError(f"{self._run_dir}: summary and plot: {error}") from error
