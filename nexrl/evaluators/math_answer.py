"""Reward for a mathematical answer."""

from nexrl.evaluators.base import BaseEvaluationTarget, EvaluationRunResult, Evaluator
from nexrl.evaluators.boxed import after_thinking, last_boxed
from nexrl.evaluators.ground_truth import expected_answers
from nexrl.evaluators.math_judge import MathJudge
from nexrl.types import Task


class MathEvaluator(Evaluator):
    r"""`correct` where the last `\boxed{…}` after the thinking equals the ground truth, as text or as mathematics
    (the math-verify library); `format` where a box is there and wrong; 0 where none is, or a thought is left open.

    `timeout`: seconds for one comparison; an answer that takes longer (`9^{9^{9^9}}`) counts as wrong.
    """

    def __init__(self, *, correct: float = 1.0, format: float = 0.1, timeout: float = 5.0) -> None:
        self._correct = correct
        self._format = format
        self._judge = MathJudge(timeout=timeout)

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Metrics `correct` and `format_correct` (0 or 1)."""
        expected = [last_boxed(answer) or answer for answer in expected_answers(data)]
        prompt = data.prompt if isinstance(data.prompt, str) else str(data.prompt[-1].get("content"))
        thinking = prompt.count("<think>") > prompt.count("</think>")
        text = after_thinking(evaluation_target.final_answer, thinking=thinking)
        answer = None if text is None else last_boxed(text)
        correct = answer is not None and any(self._equal(truth, answer) for truth in expected)
        reward = self._correct if correct else self._format if answer is not None else 0.0
        metrics = {"correct": float(correct), "format_correct": float(answer is not None)}
        return EvaluationRunResult(reward, expected[0], metrics, {"extracted_answer": answer})

    def _equal(self, truth: str, answer: str) -> bool:
        return "".join(truth.split()) == "".join(answer.split()) or self._judge.equal(truth, answer)
