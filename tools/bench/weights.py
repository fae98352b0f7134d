"""How long a new weight version keeps rollouts waiting: pause, broadcast, checksum, resume."""

from pathlib import Path
from statistics import median, quantiles

from tools.bench.facts import make_record
from tools.bench.rows import Record, Row
from tools.bench.runs import GRPO_RECIPE, MODEL_KEY, run_to_end, steps_of

_PUBLISH = "timing/publish"


def measure(*, weights: Path, steps: int, folder: Path) -> Record:
    """A short run of the demo's recipe from `weights`; the pauses are `timing/publish` of all steps but the first."""
    run_dir = folder / "run"
    arguments = [
        str(GRPO_RECIPE),
        "initial_stage.recipe=",
        f"{MODEL_KEY}={weights}",
        f"trainer.total_train_steps={steps}",
        "validate.validate_before_train=false",
        "validate.validate_at_end=false",
        "trainer.export_hf=false",
        "--run-dir",
        str(run_dir),
    ]
    run_to_end(arguments, log=folder / "run.log")
    mebibytes = sum(file.stat().st_size for file in weights.glob("*.safetensors")) / 2**20
    return make_record("weights", figures([step[_PUBLISH] for step in steps_of(run_dir)[1:]], mebibytes=mebibytes))


def figures(pauses: list[float], *, mebibytes: float) -> list[Row]:
    """Median and 95th percentile of the pauses (seconds)."""
    note = f"{len(pauses)} steps, weights of {mebibytes:.1f} MiB, one trainer rank to one engine"
    return [
        Row(figure="pause for new weights, median", value=1000 * median(pauses), unit="ms", note=note),
        Row(figure="pause for new weights, 95th percentile", value=1000 * quantiles(pauses, n=20)[-1], unit="ms"),
    ]
