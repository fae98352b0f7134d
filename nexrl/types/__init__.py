"""The records that cross boundaries, one module per hop, and the Protocols at which packages meet."""

from nexrl.types.batch import Batch, BatchRow, MicroBatch, MiniBatch, Shard
from nexrl.types.commands import (
    AppendReply,
    Beat,
    DiscoverRequest,
    ErrorReport,
    GroupAddress,
    LeaseRequest,
    OpenGroup,
    RolloutReport,
    SampleFailure,
    SampleResult,
    SendWeights,
    TrajectoryIds,
)
from nexrl.types.sampling import Completion, Message, SamplingParams, VersionSpan
from nexrl.types.seeds import derive_seed
from nexrl.types.task import Task
from nexrl.types.trajectory import Trajectory, TrajectoryGroup, TrajectoryHeader, Turn

__all__ = [
    "AppendReply",
    "Batch",
    "BatchRow",
    "Beat",
    "Completion",
    "DiscoverRequest",
    "ErrorReport",
    "GroupAddress",
    "LeaseRequest",
    "Message",
    "MicroBatch",
    "MiniBatch",
    "OpenGroup",
    "RolloutReport",
    "SampleFailure",
    "SampleResult",
    "SamplingParams",
    "SendWeights",
    "Shard",
    "Task",
    "Trajectory",
    "TrajectoryGroup",
    "TrajectoryHeader",
    "TrajectoryIds",
    "Turn",
    "VersionSpan",
    "derive_seed",
]
