"""Rewards."""

from nexrl.evaluators.base import BaseEvaluationTarget, EvaluationRunResult, Evaluator, checked
from nexrl.evaluators.create import create_evaluator
from nexrl.evaluators.exact_match import ExactMatchEvaluator
from nexrl.evaluators.format_check import FormatEvaluator
from nexrl.evaluators.math_answer import MathEvaluator

__all__ = [
    "BaseEvaluationTarget",
    "EvaluationRunResult",
    "Evaluator",
    "ExactMatchEvaluator",
    "FormatEvaluator",
    "MathEvaluator",
    "checked",
    "create_evaluator",
]
