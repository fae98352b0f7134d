"""Reward for the form of a reply."""

import re

from nexrl.errors import ConfigError
from nexrl.evaluators.base import BaseEvaluationTarget, EvaluationRunResult, Evaluator
from nexrl.types import Task


class FormatEvaluator(Evaluator):
    """1.0 where `pattern` (Python's `re`; `.` matches line ends too) is found in the reply, else 0.0; with `full` the
    whole reply must match."""

    def __init__(self, *, pattern: str, full: bool = False) -> None:
        try:
            compiled = re.compile(pattern, re.DOTALL)
        except re.error as error:
            raise ConfigError(
                f"found {pattern!r}, needs a regular expression: {error}", key="rollout_worker.evaluator_args.pattern"
            ) from error
        self._matches = compiled.fullmatch if full else compiled.search

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Metric `format_correct` (0 or 1)."""
        reward = float(self._matches(evaluation_target.final_answer) is not None)
        return EvaluationRunResult(reward, metrics={"format_correct": reward})
