"""One rollout as it is recorded, and the part of it that the controller sees."""

from typing import Any, Self

import msgspec
import numpy as np

from nexrl.types.sampling import VersionSpan


class Turn(msgspec.Struct, frozen=True, array_like=True):
    """Token positions `start <= i < end` belong to one message of `role` (`prompt`, `assistant`, `tool`, `user`)."""

    start: int
    end: int
    role: str


class TrajectoryHeader(msgspec.Struct, frozen=True, kw_only=True):
    """All of a trajectory but its arrays. Rollout worker → controller; what pool and algorithms decide on."""

    trajectory_id: str
    """`<group_id>/<run_id>.<attempt>.<sequence>`: unique in a run."""
    group_id: str
    task_id: str
    order: int
    run_id: int
    attempt: int
    sequence: int
    """A rollout whose history was rewritten gives several sequences, numbered from 0."""
    model_tag: str
    is_val: bool
    num_tokens: int
    num_trained: int
    """Tokens with loss mask 1."""
    reward: float
    score: dict[str, float]
    """Named figures of the evaluator; `reward` stands apart."""
    finish_reason: str
    """`stop`, `length` (tokens of one generation), `truncated` (of the whole sequence), `max_turns`, `supervised`."""
    version_min: int
    """Oldest weight version that any trained token was sampled under; -1 where no engine was asked."""
    version_max: int
    data_source: str
    worker: str
    """`<role>-<rank>@<host>`."""
    seed: int
    temperature: float
    started: float
    """Unix time in seconds."""
    finished: float
    recorder: str
    """Name of the recorder process that holds the arrays (`recorder-0`)."""
    extra: dict[str, Any] = {}
    """For pool keys of one's own (`key_list`); numbers and text only."""


class Trajectory(msgspec.Struct, frozen=True, kw_only=True):
    """A header and its arrays. Rollout worker → recorder → (store, trainer rank).

    Shapes: [T] with T = `header.num_tokens`. Log-probs are the sampler's, natural logarithm of
    softmax(logits / temperature), 0.0 where the loss mask is 0.
    """

    header: TrajectoryHeader
    tokens: np.ndarray
    """int32 [T]: prompt and response."""
    loss_mask: np.ndarray
    """uint8 [T]: 1 = the policy sampled this token and it is trained on."""
    logprobs: np.ndarray
    """float32 [T]."""
    spans: tuple[VersionSpan, ...] = ()
    """Positions count from the first token of the trajectory; they tile the trained tokens."""
    turns: tuple[Turn, ...] = ()
    prompt: str = ""
    response: str = ""
    ground_truth: str = ""

    def __post_init__(self) -> None:
        lengths = {len(self.tokens), len(self.loss_mask), len(self.logprobs), self.header.num_tokens}
        if len(lengths) != 1:
            raise ValueError(
                f"trajectory {self.header.trajectory_id}: tokens {len(self.tokens)}, loss_mask "
                f"{len(self.loss_mask)}, logprobs {len(self.logprobs)}, header.num_tokens {self.header.num_tokens}: "
                "all four must be equal"
            )

    def with_recorder(self, recorder: str) -> Self:
        """The same trajectory, its header naming the recorder that holds it."""
        return msgspec.structs.replace(self, header=msgspec.structs.replace(self.header, recorder=recorder))


class TrajectoryGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The samples of one prompt. Pool → trainer."""

    group_id: str
    order: int
    headers: tuple[TrajectoryHeader, ...]
    """Sorted by (run id, sequence)."""

    @property
    def rewards(self) -> tuple[float, ...]:
        """One per sequence, in the order of `headers`."""
        return tuple(header.reward for header in self.headers)
