"""Which evaluator a recipe asks for."""

import inspect

from nexrl.config.custom import load_class
from nexrl.config.schema import RolloutWorkerConfig
from nexrl.errors import ConfigError
from nexrl.evaluators.base import Evaluator
from nexrl.evaluators.exact_match import ExactMatchEvaluator
from nexrl.evaluators.format_check import FormatEvaluator
from nexrl.evaluators.math_answer import MathEvaluator

_EVALUATORS: dict[str, type[Evaluator]] = {
    "exact_match": ExactMatchEvaluator,
    "math": MathEvaluator,
    "format": FormatEvaluator,
}


def create_evaluator(config: RolloutWorkerConfig) -> Evaluator:
    """`evaluator` with `evaluator_args`; raises ConfigError naming what cannot be loaded or is not an argument."""
    name = config.evaluator
    if ":" in name:
        evaluator: type[Evaluator] = load_class(name, Evaluator)
    elif name in _EVALUATORS:
        evaluator = _EVALUATORS[name]
    else:
        needed = f"one of {', '.join(_EVALUATORS)}, or path/to/file.py:Class"
        raise ConfigError(f"found {name!r}, needs {needed}", key="rollout_worker.evaluator")
    signature = inspect.signature(evaluator)
    try:
        signature.bind(**config.evaluator_args)
    except TypeError as error:
        raise ConfigError(
            f"{error}; {evaluator.__name__} takes {signature}", key="rollout_worker.evaluator_args"
        ) from error
    return evaluator(**config.evaluator_args)
