"""What the engine is asked, and what it says while it generates. HTTP routes → engine thread → HTTP routes."""

from collections.abc import Callable, Sequence

import msgspec

from nexrl.errors import InferenceError
from nexrl.types import SamplingParams

TopLogprobs = list[tuple[int, float]]
"""The most likely tokens of one position: (token id, log-prob), best first."""

_SEEDS = 2**64
_LOWEST_TEMPERATURE = 1e-4
"""Below it, logits / temperature may leave the range of float32."""


class RequestError(InferenceError):
    """A request that cannot be served as it stands. `status` is the HTTP status, `param` the field at fault."""

    def __init__(self, message: str, *, param: str | None = None, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.code = code


class GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt and its samples: one per seed."""

    prompt_ids: list[int]
    sampling: SamplingParams
    seeds: tuple[int, ...]
    min_tokens: int = 0
    """Neither end-of-sequence nor a stop string ends a sample that has fewer."""
    ignore_eos: bool = False
    top_logprobs: int = 0
    """How many alternatives to report at each position."""
    include_stop: bool = False
    """Leave the stop string at the end of the text."""
    skip_special_tokens: bool = True
    """Leave special tokens out of the text."""
    stream: bool = False
    """Report every token but the last as it comes, not only the finished sample."""

    def check(self, *, max_model_len: int, vocab_size: int) -> None:
        """Raise RequestError where the engine's limits forbid this request."""
        length, wanted = len(self.prompt_ids), self.sampling.max_tokens
        if length == 0:
            raise RequestError("prompt: found no token, needs at least one", param="prompt")
        if length + wanted > max_model_len:
            raise RequestError(
                f"prompt has {length} tokens and max_tokens is {wanted}: {length + wanted} together, "
                f"the engine takes {max_model_len} (max_model_len)",
                param="prompt" if length >= max_model_len else "max_tokens",
                code="context_length_exceeded",
            )
        if min(self.prompt_ids) < 0 or max(self.prompt_ids) >= vocab_size:
            raise RequestError(
                f"prompt: token ids from {min(self.prompt_ids)} to {max(self.prompt_ids)}, "
                f"the vocabulary has 0 to {vocab_size - 1}",
                param="prompt",
            )
        if not all(0 <= seed < _SEEDS for seed in self.seeds):
            raise RequestError(f"seeds: needs numbers from 0 to {_SEEDS - 1}", param="seeds")
        if 0 < self.sampling.temperature < _LOWEST_TEMPERATURE:
            raise RequestError(
                f"temperature: found {self.sampling.temperature}, needs 0 (greedy) or at least {_LOWEST_TEMPERATURE}",
                param="temperature",
            )
        if self.min_tokens > wanted:
            raise RequestError(f"min_tokens: found {self.min_tokens}, max_tokens is {wanted}", param="min_tokens")


class TokenEvent(msgspec.Struct, frozen=True):
    """One more token of sample `index`, which goes on."""

    index: int
    token_id: int
    logprob: float
    top: TopLogprobs


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """A finished sample."""

    index: int
    """Its seed's place in the request."""
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: str
    """`stop` or `length`."""
    version: int
    """Weights under which all its tokens were sampled."""
    text: str | None
    """Only of requests with stop strings, which the engine has to read anyway."""
    top: list[TopLogprobs]
    """One per token where the request asked for alternatives; else empty."""


class Failed(msgspec.Struct, frozen=True):
    """No further event will come for this request."""

    error: InferenceError


Event = TokenEvent | Sample | Failed
Listener = Callable[[Event], None]
"""Called on the engine's thread: it must only hand the event on."""


class Job:
    """A request on its way through the engine."""

    def __init__(self, request: GenerationRequest, listener: Listener) -> None:
        self.request = request
        self.listener = listener
        self.waiting = list(range(len(request.seeds)))
        """Samples that have no slot yet."""
        self.cancelled = False

    @property
    def started(self) -> bool:
        """Some sample has, or had, a slot."""
        return len(self.waiting) < len(self.request.seeds)


def prompt_groups(jobs: Sequence[Job], free: int) -> list[tuple[Job, list[int]]]:
    """Which samples of which jobs get the `free` slots: first come, first served; they are taken off `waiting`."""
    groups = []
    for job in jobs:
        if free == 0:
            break
        taken, job.waiting = job.waiting[:free], job.waiting[free:]
        free -= len(taken)
        groups.append((job, taken))
    return groups
