"""Which rollout worker a recipe asks for."""

from nexrl.config.custom import load_class
from nexrl.rollout.agent import AgentRolloutWorker
from nexrl.rollout.base import BaseRolloutWorker, RolloutContext
from nexrl.rollout.simple import SimpleRolloutWorker
from nexrl.rollout.supervised import SupervisedRolloutWorker

_WORKERS: dict[str, type[BaseRolloutWorker]] = {
    "simple": SimpleRolloutWorker,
    "agent": AgentRolloutWorker,
    "supervised": SupervisedRolloutWorker,
}


def create_rollout_worker(context: RolloutContext) -> BaseRolloutWorker:
    """`custom_class` where there is one, else `type`; raises ConfigError naming what cannot be loaded."""
    config = context.config
    worker = load_class(config.custom_class, BaseRolloutWorker) if config.custom_class else _WORKERS[config.type]
    return worker(context)
