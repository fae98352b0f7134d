"""The picture of a run: reward over steps, with validation, staleness and entropy below."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nexrl.metrics.jsonl import read_json_lines
from nexrl.metrics.record import ENTROPY, REWARD, STALENESS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_WINDOW = 20
"""Steps of the moving average."""
_COLOURS = ("#1f77b4", "#d95f02", "#2ca02c", "#9467bd")

Points = tuple[list[int], list[float]]


def plot_run(run_dir: Path, path: Path | None = None) -> Path:
    """Draw `metrics.jsonl` and the validations of `events.jsonl` as `<run_dir>/reward.png` (or `path`); give its path.

    A run without a single step gives axes that say so. Raises RunFolderError for files that are not JSON lines.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = latest_steps(read_json_lines(run_dir / "metrics.jsonl"))
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(3, 1))
    reward = figure.add_subplot(grid[0, :])
    _draw_reward(reward, steps, _validations(read_json_lines(run_dir / "events.jsonl")))
    reward.set_title(f"{run_dir.parent.name} / {run_dir.name}")
    _draw_small(figure.add_subplot(grid[1, 0]), _series(steps, STALENESS), "staleness (versions)")
    _draw_small(figure.add_subplot(grid[1, 1]), _series(steps, ENTROPY), "entropy (nats)")
    target = path or run_dir / "reward.png"
    part = target.with_name(f".{target.name}.part")
    figure.savefig(part, format="png", dpi=130)
    part.replace(target)
    return target


def latest_steps(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One line per step, ordered: the last one where a resumed run did a step again."""
    by_step = {int(line["step"]): line for line in lines}
    return [by_step[step] for step in sorted(by_step)]


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """Mean of each value and up to `window - 1` values before it."""
    means = []
    for end in range(1, len(values) + 1):
        part = values[max(0, end - window) : end]
        means.append(sum(part) / len(part))
    return means


def _series(steps: Iterable[Mapping[str, Any]], name: str) -> Points:
    """Steps and figures of `name`; null and absent ones left out."""
    known = [(int(line["step"]), float(line[name])) for line in steps if line.get(name) is not None]
    return [step for step, _ in known], [value for _, value in known]


def _validations(events: Iterable[Mapping[str, Any]]) -> dict[str, Points]:
    """Reward figures of validations (`val/<how>_reward`) by name: steps and values."""
    found: dict[str, Points] = {}
    for event in events:
        if event.get("event") != "validation":
            continue
        for name, value in event["metrics"].items():
            if name.startswith("val/") and name.endswith("reward") and value is not None:
                xs, ys = found.setdefault(name, ([], []))
                xs.append(int(event["step"]))
                ys.append(float(value))
    return found


def _draw_reward(axes: "Axes", steps: Sequence[Mapping[str, Any]], validations: Mapping[str, Points]) -> None:
    xs, ys = _series(steps, REWARD)
    if xs:
        axes.plot(xs, ys, color=_COLOURS[0], alpha=0.3, linewidth=1, label="training reward")
        average = moving_average(ys, _WINDOW)
        axes.plot(xs, average, color=_COLOURS[0], linewidth=2, label=f"mean of {_WINDOW} steps")
    for number, (name, (at, values)) in enumerate(sorted(validations.items())):
        colour = _COLOURS[1 + number % (len(_COLOURS) - 1)]
        label = f"{name} {values[0]:.3f} → {values[-1]:.3f}"
        axes.plot(at, values, "o:", color=colour, markersize=8, linewidth=1, label=label, zorder=3, clip_on=False)
    axes.set_xlabel("training step")
    axes.set_ylabel("reward")
    axes.grid(alpha=0.3)
    if xs or validations:
        axes.legend(loc="lower right")
    else:
        axes.text(0.5, 0.5, "no step was finished", ha="center", transform=axes.transAxes)
    lowest = min([0.0, *ys, *(value for _, values in validations.values() for value in values)])
    if lowest == 0.0:
        axes.set_ylim(bottom=0)


def _draw_small(axes: "Axes", points: Points, label: str) -> None:
    xs, ys = points
    axes.set_xlabel("training step")
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    if xs:
        axes.plot(xs, ys, color=_COLOURS[0], linewidth=1.2)
        axes.set_ylim(bottom=min(0.0, *ys), top=None if any(ys) else 1.0)
    else:
        axes.text(0.5, 0.5, "not recorded", ha="center", transform=axes.transAxes)
