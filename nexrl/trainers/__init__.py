"""From groups of trajectories to one training step, through the train service."""

from nexrl.trainers.base import BaseTrainer, TrainReport
from nexrl.trainers.create import create_trainer
from nexrl.trainers.cross_entropy import SelfHostedCrossEntropyTrainer
from nexrl.trainers.grpo import SelfHostedGrpoTrainer
from nexrl.trainers.self_hosted import SelfHostedTrainer

__all__ = [
    "BaseTrainer",
    "SelfHostedCrossEntropyTrainer",
    "SelfHostedGrpoTrainer",
    "SelfHostedTrainer",
    "TrainReport",
    "create_trainer",
]
