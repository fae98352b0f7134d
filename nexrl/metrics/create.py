"""From `logger.backend` to sinks."""

from pathlib import Path

from nexrl.config.schema import Recipe
from nexrl.metrics.console import ConsoleSink
from nexrl.metrics.jsonl import JsonlSink
from nexrl.metrics.record import MetricSink
from nexrl.metrics.tensorboard_sink import TensorBoardSink
from nexrl.metrics.wandb_sink import WandbSink


def create_sinks(recipe: Recipe, run_dir: Path) -> list[MetricSink]:
    """`metrics.jsonl` always, and the sinks that `logger.backend` names, all below `run_dir`."""
    sinks: list[MetricSink] = [JsonlSink(run_dir / "metrics.jsonl")]
    for backend in dict.fromkeys(recipe.logger.backend):
        match backend:
            case "console":
                sinks.append(ConsoleSink(recipe.trainer.total_train_steps))
            case "tensorboard":
                sinks.append(TensorBoardSink(run_dir / "tensorboard"))
            case "wandb":
                sinks.append(WandbSink(recipe, run_dir))
    return sinks
