"""What crosses the command socket between the controller and the other roles."""

import msgspec

from nexrl.types.trajectory import TrajectoryHeader


class LeaseRequest(msgspec.Struct, frozen=True):
    """Rollout worker → controller: give me up to `limit` tasks; answered when there is at least one, or at the end
    of the run with none."""

    limit: int


class SampleResult(msgspec.Struct, frozen=True, kw_only=True):
    """One finished sample. Its arrays are with the recorder already."""

    group_id: str
    run_id: int
    attempt: int
    is_val: bool
    headers: tuple[TrajectoryHeader, ...]


class SampleFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Samples of one lease that gave nothing."""

    group_id: str
    run_ids: tuple[int, ...]
    attempt: int
    is_val: bool
    reason: str
    """`<ErrorClass>: <message>`."""
    fatal: bool
    """No other attempt can end differently (a broken evaluator): the run ends."""


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """Rollout worker → controller: everything that ended since the last report."""

    results: tuple[SampleResult, ...] = ()
    failures: tuple[SampleFailure, ...] = ()


class ErrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """Any role → controller: an error that the role could not deal with."""

    module: str
    work: str
    severity: str
    error: str
    """Class name, as in nexrl.errors where it is one of ours."""
    message: str
    traceback: str


class Beat(msgspec.Struct, frozen=True):
    """Any role → controller: a sign of life."""

    doing: str
    """Work in flight in words; empty where there is none."""


class AppendReply(msgspec.Struct, frozen=True):
    """Recorder → rollout worker."""

    sequence: int
    """Trajectories this recorder has taken so far."""


class TrajectoryIds(msgspec.Struct, frozen=True):
    """Trainer rank → recorder (fetch), controller → recorder (release)."""

    ids: tuple[str, ...]


class DiscoverRequest(msgspec.Struct, frozen=True):
    """Any role → controller: who plays `role`? Answered when all of them have registered."""

    role: str


class GroupAddress(msgspec.Struct, frozen=True):
    """Trainer rank 0 → controller: where the weight group meets."""

    address: str
    port: int


class OpenGroup(msgspec.Struct, frozen=True):
    """Controller → trainer ranks: make the weight group `epoch` of `world_size` members (rank 0 sends)."""

    world_size: int
    epoch: int


class SendWeights(msgspec.Struct, frozen=True):
    """Controller → trainer ranks: stream the current weights as `version`."""

    version: int
