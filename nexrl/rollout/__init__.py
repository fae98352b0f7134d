"""From a leased task to recorded, rewarded trajectories."""

from nexrl.rollout.agent import AgentRolloutWorker
from nexrl.rollout.base import BaseRolloutWorker, RolloutContext
from nexrl.rollout.create import create_rollout_worker
from nexrl.rollout.runner import RolloutRunner
from nexrl.rollout.simple import SimpleRolloutWorker
from nexrl.rollout.supervised import SupervisedRolloutWorker

__all__ = [
    "AgentRolloutWorker",
    "BaseRolloutWorker",
    "RolloutContext",
    "RolloutRunner",
    "SimpleRolloutWorker",
    "SupervisedRolloutWorker",
    "create_rollout_worker",
]
