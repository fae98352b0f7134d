"""Shows a run while it goes on: a live line on a terminal, a line now and then elsewhere."""

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from launch.progress import DROPPED, ETA, REWARD, SKIPPED, STALENESS, TOKENS_PER_SECOND, RunProgress, RunState

_PLAIN_EVERY = 10
"""Steps between two lines where output is no terminal."""
_MOST_ERRORS = 10
"""Messages of failed episodes that are shown; the others stand in events.jsonl."""


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
        self._errors = _Errors()
        self._dropped = 0
        self._skipped = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.update()

    def update(self) -> None:
        """Print the lines that are due."""
        for record in self._progress.update().in_order:
            if "event" not in record and "step" in record:
                self._show_step(RunState(step=record["step"], figures=dict(record)))
            elif text := self._errors.line(record) or event_line(record):
                self.say(text)

    def say(self, text: str) -> None:
        """Print it."""
        self._console.print(Text(text), soft_wrap=True)

    def _show_step(self, state: RunState) -> None:
        self._skipped += state.figure(SKIPPED) == 1
        if state.step % _PLAIN_EVERY and state.step not in (1, self._total_steps):
            return
        dropped = int(state.figure(DROPPED) or 0)
        lost = losses_line(dropped - self._dropped, self._skipped)  # since the line before
        self.say(f"step {state.step}/{self._total_steps}  {figures_line(state)}{lost}")
        self._dropped, self._skipped = dropped, 0


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
        self._errors = _Errors()

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
            if event.get("event") != "phase" and (text := self._errors.line(event) or event_line(event)):
                self.say(text)
        state = self._progress.state
        figures = figures_line(state) + losses_line(int(state.figure(DROPPED) or 0), state.skipped)
        self._bar.update(self._task, description=state.phase, completed=state.step, figures=figures)

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


def losses_line(dropped: int, skipped: int) -> str:
    """`  dropped 3  skipped 1` (prompts, steps), empty where nothing was lost."""
    return f"{f'  dropped {dropped}' if dropped > 0 else ''}{f'  skipped {skipped}' if skipped > 0 else ''}"


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
    return ""


class _Errors:
    """What is shown of errors that the run survives: each message once, and not many."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def line(self, event: Mapping[str, Any]) -> str:
        """One line for an error; empty for other events, for one that ends the run (the launcher says that) and for one
        that was shown before."""
        severity, message = str(event.get("severity", "error")), str(event.get("message", ""))
        if event.get("event") != "error" or severity == "critical" or message in self._shown:
            return ""
        if len(self._shown) > _MOST_ERRORS:
            return ""
        self._shown.add(message)
        if len(self._shown) > _MOST_ERRORS:
            return f"{severity}: further ones are in events.jsonl"
        return f"{severity}: {event.get('role', '?')}: {message}"


def clock(seconds: float) -> str:
    """`1:05` or `2:03:20`."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"
