"""What a run says of itself while it goes on, read from its `metrics.jsonl` and `events.jsonl` as they grow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

REWARD = "rollout/reward_mean"
STALENESS = "staleness/max"
TOKENS_PER_SECOND = "throughput/tokens_per_s"
ETA = "progress/eta_s"
DROPPED = "pool/dropped"
"""Prompts, counted since the attempt began."""
SKIPPED = "training/skipped"
"""1 where a step had nothing to learn from."""


class Tail:
    """New lines of a file of JSON lines that another process appends to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> list[dict[str, Any]]:
        """The objects appended since the last call (since this Tail was made, at first); a line that is still being
        written waits for its end, one that is no object is passed over."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [record for line in complete.splitlines() if (record := _object(line)) is not None]


@dataclass
class RunState:
    """Where a run stands. Belongs to its RunProgress."""

    phase: str = "starting"
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    """The newest step's."""
    checkpoint: str = ""
    skipped: int = 0
    """Steps skipped since the attempt began."""

    def figure(self, name: str) -> float | None:
        """The newest value of a figure; None where there is none, or it was no number."""
        value = self.figures.get(name)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True)
class News:
    """What is new since the last look."""

    steps: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()

    @property
    def in_order(self) -> list[Mapping[str, Any]]:
        """Steps and events together, as they happened."""
        return sorted((*self.events, *self.steps), key=_time)


class RunProgress:
    """Follows the two files of a run folder from the moment it is made."""

    def __init__(self, run_dir: Path) -> None:
        self.state = RunState()
        self._metrics = Tail(run_dir / "metrics.jsonl")
        self._events = Tail(run_dir / "events.jsonl")

    def update(self) -> News:
        """Read what has come and bring `state` up to date."""
        steps = tuple(record for record in self._metrics.read() if isinstance(record.get("step"), int))
        events = tuple(self._events.read())
        if steps:
            self.state.step = steps[-1]["step"]
            self.state.figures = dict(steps[-1])
            self.state.skipped += sum(record.get(SKIPPED) == 1 for record in steps)
        for event in events:
            self._apply(event)
        return News(steps, events)

    def _apply(self, event: Mapping[str, Any]) -> None:
        match event.get("event"):
            case "phase":
                self.state.phase = str(event.get("name", self.state.phase))
            case "checkpoint":
                self.state.checkpoint = str(event.get("path", ""))
            case "done":
                self.state.phase = "done"


def _time(record: Mapping[str, Any]) -> float:
    time = record.get("t")
    return float(time) if isinstance(time, int | float) else 0.0


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(line, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
