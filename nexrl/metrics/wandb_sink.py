"""Weights & Biases."""

import math
import os
from pathlib import Path
from typing import Any

import yaml

from nexrl.config import dump_recipe
from nexrl.config.schema import Recipe
from nexrl.metrics.record import MetricRecord


class WandbSink:
    """Sends every finite figure to a wandb run named after the run folder.

    Without WANDB_API_KEY the run is kept offline below `<run_dir>/wandb` (`wandb sync` uploads it). The config that
    wandb sees is the resolved recipe with secrets masked; code, git state and console output are not sent.
    """

    def __init__(self, recipe: Recipe, run_dir: Path) -> None:
        import wandb

        config: dict[str, Any] = yaml.safe_load(dump_recipe(recipe))
        settings = wandb.Settings(silent=True, console="off", disable_git=True, disable_code=True, x_disable_stats=True)
        self._run = wandb.init(
            project=recipe.project_name,
            group=recipe.experiment_name,
            name=run_dir.name,
            dir=run_dir,
            config=config,
            mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
            settings=settings,
        )

    def write(self, record: MetricRecord) -> None:
        """Queue the figures; wandb's own process writes them."""
        finite = {name: value for name, value in record.values.items() if math.isfinite(value)}
        self._run.log({**finite, "trainer/step": record.step})

    def close(self) -> None:
        """End the wandb run; returns when its process has everything."""
        self._run.finish()
