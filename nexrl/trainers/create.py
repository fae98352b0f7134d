"""Which trainer a recipe asks for."""

from nexrl.config.custom import load_class
from nexrl.config.schema import Recipe
from nexrl.train_service import TrainServiceClient
from nexrl.trainers.cross_entropy import SelfHostedCrossEntropyTrainer
from nexrl.trainers.grpo import SelfHostedGrpoTrainer
from nexrl.trainers.self_hosted import SelfHostedTrainer

_TRAINERS: dict[str, type[SelfHostedTrainer]] = {
    "self_hosted_grpo": SelfHostedGrpoTrainer,
    "self_hosted_cross_entropy": SelfHostedCrossEntropyTrainer,
}


def create_trainer(recipe: Recipe, client: TrainServiceClient) -> SelfHostedTrainer:
    """`custom_class` where there is one, else `type`, which chooses the ranks' loss in both cases; raises ConfigError
    naming what cannot be loaded."""
    config = recipe.trainer
    trainer = load_class(config.custom_class, SelfHostedTrainer) if config.custom_class else _TRAINERS[config.type]
    return trainer(recipe, client)
