"""The records that cross boundaries, one module per hop, and the Protocols at which packages meet."""

from nexrl.types.batch import Batch, BatchRow, MicroBatch, MiniBatch, Shard
from nexrl.types.sampling import Completion, Message, SamplingParams, VersionSpan
from nexrl.types.seeds import derive_seed
from nexrl.types.task import Task
from nexrl.types.trajectory import Trajectory, TrajectoryGroup, TrajectoryHeader, Turn

__all__ = [
    "Batch",
    "BatchRow",
    "Completion",
    "Message",
    "MicroBatch",
    "MiniBatch",
    "SamplingParams",
    "Shard",
    "Task",
    "Trajectory",
    "TrajectoryGroup",
    "TrajectoryHeader",
    "Turn",
    "VersionSpan",
    "derive_seed",
]
