"""The evaluator's face, and the one place where its results are checked."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from nexrl.errors import RewardError
from nexrl.types import Task


@dataclass(frozen=True, kw_only=True)
class BaseEvaluationTarget:
    """What a rollout came to. Rollout worker → evaluator."""

    final_answer: str
    """Text of the last reply, special tokens left out."""
    is_truncated: bool = False
    """The rollout was cut at `max_sequence_length`; its reward will be 0 whatever the evaluator says."""


@dataclass(frozen=True)
class EvaluationRunResult:
    """What an evaluator says. Evaluator → rollout worker."""

    reward: float = 0.0
    ground_truth: str = ""
    """The expected answer as it was compared."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Figures that stand beside the reward in trajectories and metrics."""
    extra_info: dict[str, Any] = field(default_factory=dict)
    """For callers of one's own; not recorded."""


class Evaluator(ABC):
    """Extend this for a reward of one's own; called from many threads at once."""

    @abstractmethod
    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Judge one rollout of `data`."""


def checked(evaluator: Evaluator, data: Task, target: BaseEvaluationTarget) -> EvaluationRunResult:
    """Evaluate, and raise RewardError naming evaluator, task and value where that raised or gave anything but finite
    numbers; numbers come back as float."""
    name = type(evaluator).__name__
    where = f"{name} on task {data.task_id}"
    try:
        result = evaluator.evaluate(data, target)
    except RewardError as error:
        raise RewardError(f"{where}: {error}") from error
    except Exception as error:
        raise RewardError(f"{where} raised {type(error).__name__}: {error}") from error
    if not isinstance(result, EvaluationRunResult):
        raise RewardError(f"{where} returned {result!r:.80}, needs an EvaluationRunResult")
    return EvaluationRunResult(
        reward=_finite(result.reward, f"{where}: reward"),
        ground_truth=result.ground_truth,
        metrics={key: _finite(value, f"{where}: metric {key!r}") for key, value in result.metrics.items()},
        extra_info=result.extra_info,
    )


def _finite(value: Any, what: str) -> float:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise RewardError(f"{what} is {value!r:.80} ({type(value).__name__}), needs a finite number")
    return float(value)
