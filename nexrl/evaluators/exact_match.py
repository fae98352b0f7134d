"""Reward 1 for the expected text."""

import re

from nexrl.evaluators.base import BaseEvaluationTarget, EvaluationRunResult, Evaluator
from nexrl.evaluators.ground_truth import expected_answers
from nexrl.types import Task


class ExactMatchEvaluator(Evaluator):
    """1.0 where the answer equals the ground truth (one of them, if it is a list), else 0.0.

    `strip` leaves white space around both out of account. With `answer_tag: answer` the answer is what stands in the
    first `<answer>…</answer>`; a reply without it earns 0.
    """

    def __init__(self, *, strip: bool = True, answer_tag: str = "") -> None:
        self._strip = strip
        tag = re.escape(answer_tag)
        self._answer = re.compile(f"<{tag}>(.*?)</{tag}>", re.DOTALL) if answer_tag else None

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Metric `exact_match` (0 or 1), and with a tag `format_correct`."""
        expected = expected_answers(data)
        answer: str | None = evaluation_target.final_answer
        metrics = {}
        if self._answer is not None:
            found = self._answer.search(evaluation_target.final_answer)
            answer = found[1] if found else None
            metrics["format_correct"] = float(found is not None)
        reward = float(answer is not None and self._normal(answer) in map(self._normal, expected))
        return EvaluationRunResult(reward, expected[0], {"exact_match": reward, **metrics})

    def _normal(self, text: str) -> str:
        return text.strip() if self._strip else text
