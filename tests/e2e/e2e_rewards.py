"""Evaluators for whole-run tests, good and bad."""

import time

from nexrl.evaluators import BaseEvaluationTarget, EvaluationRunResult, Evaluator
from nexrl.types import Task

_EARLY = set("abcdefgh")


class EarlyLetters(Evaluator):
    """Share of letters a–h in eight: a policy of any quality gets some of it, and can get all."""

    def __init__(self, *, seconds: float = 0.0) -> None:
        """`seconds` of thought make a run last until a test is done with it."""
        self._seconds = seconds

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Counts letters."""
        time.sleep(self._seconds)
        return EvaluationRunResult(reward=sum(letter in _EARLY for letter in evaluation_target.final_answer) / 8)


class Raises(Evaluator):
    """Has a bug."""

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Raises KeyError."""
        raise KeyError("no such answer")


class ReturnsNan(Evaluator):
    """Divides by nothing."""

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """NaN."""
        return EvaluationRunResult(reward=float("nan"))


class HangsOn(EarlyLetters):
    """Never comes back for some prompts."""

    def __init__(self, *, letters: str) -> None:
        super().__init__()
        self._letters = letters

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Sleeps for an hour where the prompt starts with one of `letters`."""
        if str(data.prompt).startswith(tuple(self._letters)):
            time.sleep(3600)
        return super().evaluate(data, evaluation_target)
