"""How long training took to reach a score, evaluations excluded: pure arithmetic on what runs recorded.

Our loop starts to sample the next batch while an evaluation runs, so the step after one has its rollout for nothing.
Such a step is charged the median rollout of the others, so that the clock counts all the work that training needs.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True)
class StepTime:
    """One training step, in seconds."""

    step: int
    """Counted from 1."""
    seconds: float
    rollout: float
    """Of `seconds`, those spent waiting for samples."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A score after `step` steps."""

    step: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A score, and the seconds of training before it."""

    step: int
    score: float
    seconds: float


def charged_seconds(steps: Sequence[StepTime], *, evaluated_after: Collection[int]) -> list[float]:
    """Seconds of each step, with the median rollout added to those that follow an evaluation (after step 0 too)."""
    others = [step.rollout for step in steps if step.step - 1 not in evaluated_after]
    missing = median(others) if others else 0.0
    return [
        step.seconds - step.rollout + max(step.rollout, missing) if step.step - 1 in evaluated_after else step.seconds
        for step in steps
    ]


def curve(steps: Sequence[StepTime], evaluations: Sequence[Evaluation]) -> list[Point]:
    """Score against seconds of training. The evaluation before training, after step 0, is its first point."""
    seconds = charged_seconds(steps, evaluated_after={evaluation.step for evaluation in evaluations})
    return [
        Point(
            step=evaluation.step,
            score=evaluation.score,
            seconds=sum(second for step, second in zip(steps, seconds, strict=True) if step.step <= evaluation.step),
        )
        for evaluation in evaluations
    ]


def first_at(points: Sequence[Point], goal: float) -> Point | None:
    """The first evaluation that reached the goal, if one did."""
    return next((point for point in points if point.score >= goal), None)


def median_seconds(reached: Sequence[Point | None]) -> float | None:
    """Median over runs, where a run that never reached the goal took for ever; None where that is the median."""
    found = median([math.inf if point is None else point.seconds for point in reached])
    return None if math.isinf(found) else found


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Ours as a share of theirs; None where either never came."""
    return None if ours is None or theirs is None else ours / theirs
