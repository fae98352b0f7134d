"""Shows a run while it goes on: a live line on a terminal, a line now and then elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from launch.progress import ETA, REWARD, STALENESS, TOKENS_PER_SECOND, RunProgress, RunState

_PLAIN_EVERY = 10
"""Steps between two lines where output is no terminal."""


class Display(Protocol):
    """Follows one run; a context manager."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self) -> None:
        """Look at the run's files and show what is new."""
        ...

    def say(self, text: str) -> None:
        """Show a message of the launcher's own."""
        ...


def create_display(run_dir: Path, *, total_steps: int, console: Console) -> Display:
    """The display that suits the console."""
    kind = LiveDisplay if console.is_terminal else PlainDisplay
    return kind(RunProgress(run_dir), total_steps=total_steps, console=console)


class PlainDisplay:
    """A line for each change of phase, each validation and every tenth step."""

    def __init__(self, progress: RunProgress, *, total_steps: int, console: Console) -> None:
        self._progress = progress
        self._total_steps = total_steps
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update()

    def update(self) -> None:
        """Print the lines that are due."""
        news = self._progress.update()
        for event in news.events:
            if text := event_line(event):
                self.say(text)
        for record in news.steps:
            step = record["step"]
            if step % _PLAIN_EVERY == 0 or step in (1, self._total_steps):
                state = RunState(step=step, figures=dict(record))
                self.say(f"step {step}/{self._total_steps}  {figures_line(state)}")

    def say(self, text: str) -> None:
        """Print it."""
        self._console.print(Text(text), soft_wrap=True)


class LiveDisplay:
    """One bar that moves, below the lines that stay."""

    def __init__(self, progress: RunProgress, *, total_steps: int, console: Console) -> None:
        self._progress = progress
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=total_steps, figures="")
        self._live = Live(self._bar, console=console, refresh_per_second=4, transient=True)
        self._console = console

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update()
        self._live.stop()

    def update(self) -> None:
        """Move the bar, print what stays."""
        for event in self._progress.update().events:
            if event.get("event") != "phase" and (text := event_line(event)):
                self.say(text)
        state = self._progress.state
        self._bar.update(self._task, description=state.phase, completed=state.step, figures=figures_line(state))

    def say(self, text: str) -> None:
        """Print above the bar."""
        self._console.print(Text(text), soft_wrap=True)


def figures_line(state: RunState) -> str:
    """`reward 0.913  staleness 0  1840 tokens/s  ETA 1:05`, as far as the run tells."""
    reward, staleness = state.figure(REWARD), state.figure(STALENESS)
    rate, eta = state.figure(TOKENS_PER_SECOND), state.figure(ETA)
    parts = [
        "" if reward is None else f"reward {reward:.3f}",
        "" if staleness is None else f"staleness {staleness:g}",
        "" if rate is None else f"{rate:.0f} tokens/s",
        "" if eta is None else f"ETA {clock(eta)}",
    ]
    return "  ".join(part for part in parts if part)


def event_line(event: Mapping[str, Any]) -> str:
    """One line for an event that a reader wants to see; empty for the others."""
    match event.get("event"):
        case "phase":
            return f"{event.get('name', '')} …"
        case "validation":
            metrics = event.get("metrics") or {}
            told = {name.removeprefix("val/"): value for name, value in metrics.items() if name.endswith("_reward")}
            figures = "  ".join(f"{name} {value:.3f}" for name, value in told.items() if isinstance(value, int | float))
            return f"validation after step {event.get('step', 0)}: {figures or 'no rewards'}"
        case "checkpoint":
            return f"checkpoint {event.get('path', '')}"
        case "error":
            return f"{event.get('severity', 'error')}: {event.get('role', '?')}: {event.get('message', '')}"
    return ""


def clock(seconds: float) -> str:
    """`1:05` or `2:03:20`."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
