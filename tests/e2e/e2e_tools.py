"""Tools and a reward for an agent that must look a number up."""

from nexrl.evaluators import BaseEvaluationTarget, EvaluationRunResult, Evaluator
from nexrl.types import Task


def look_up() -> str:
    """Look the secret digit up."""
    return "7"


TOOLS = [look_up]


class SaysSeven(Evaluator):
    """Share of sevens in the last reply."""

    def evaluate(self, data: Task, evaluation_target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Counts characters."""
        answer = evaluation_target.final_answer
        share = answer.count("7") / len(answer) if answer else 0.0
        return EvaluationRunResult(reward=share, metrics={"right": float("7" in answer)})
