"""The recipe's schema: one dataclass per section, a docstring under every key, checks where the keys live."""

from nexrl.config.schema.data import (
    DataConfig,
    RolloutWorkerConfig,
    SamplingOverride,
    TrajectoryPoolConfig,
    ValidateConfig,
    ValidationDataConfig,
)
from nexrl.config.schema.recipe import Recipe
from nexrl.config.schema.run import (
    CommConfig,
    ExceptionHandlingConfig,
    GroupConfig,
    GroupsConfig,
    HealthCheckConfig,
    LaunchConfig,
    LoggerConfig,
    RuntimeMonitorConfig,
)
from nexrl.config.schema.service import (
    ActorConfig,
    FsdpConfig,
    InferenceServiceConfig,
    ModelConfig,
    OptimConfig,
    ServiceConfig,
    TrainServiceConfig,
)
from nexrl.config.schema.training import (
    AlgorithmConfig,
    KLControlConfig,
    LossAggregation,
    ResumeConfig,
    TrainerConfig,
    WeightConfig,
)

__all__ = [
    "ActorConfig",
    "AlgorithmConfig",
    "CommConfig",
    "DataConfig",
    "ExceptionHandlingConfig",
    "FsdpConfig",
    "GroupConfig",
    "GroupsConfig",
    "HealthCheckConfig",
    "InferenceServiceConfig",
    "KLControlConfig",
    "LaunchConfig",
    "LoggerConfig",
    "LossAggregation",
    "ModelConfig",
    "OptimConfig",
    "Recipe",
    "ResumeConfig",
    "RolloutWorkerConfig",
    "RuntimeMonitorConfig",
    "SamplingOverride",
    "ServiceConfig",
    "TrainServiceConfig",
    "TrainerConfig",
    "TrajectoryPoolConfig",
    "ValidateConfig",
    "ValidationDataConfig",
    "WeightConfig",
]
