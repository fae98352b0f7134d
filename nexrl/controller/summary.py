"""What a run leaves behind for those who did not watch it: summary.json and the plot."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from nexrl.errors import RunFolderError
from nexrl.metrics import plot_run


class Summary:
    """Collected while the run goes on, written at its end, however it ends."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._started = time.time()
        self._validation: dict[str, dict[str, float]] = {}

    def validated(self, when: str, metrics: Mapping[str, float]) -> None:
        """Figures of a validation pass `before` training, after a `step`, or at the `end`."""
        self._validation[when] = dict(metrics)

    def write(self, *, exit_code: int, steps: int, phases: Mapping[str, float], error: str) -> None:
        """`summary.json`, published by rename, and `reward.png` where a step was trained; RunFolderError where they
        cannot be written."""
        paths = {"run": self._run_dir, "trajectories": self._run_dir / "trajectories"}
        if steps:
            paths["plot"] = self._run_dir / "reward.png"
        if (self._run_dir / "hf").is_dir():
            paths["hf"] = self._run_dir / "hf"
        content: dict[str, Any] = {
            "exit_code": exit_code,
            "error": error,
            "steps": steps,
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
