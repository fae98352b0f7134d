"""Records between a rollout and an inference engine."""

from typing import Any

import msgspec

Message = dict[str, Any]
"""One chat message in OpenAI's shape: `role`, `content`, optionally `tool_calls`, `tool_call_id`, `name`."""


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How to sample. Rollout worker → engine.

    Log-probs that come back are those of softmax(logits / temperature) over the whole vocabulary, whatever
    `top_p` and `top_k` cut away. Temperature 0 is greedy; its log-probs are those of temperature 1.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 = the whole vocabulary."""
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens: found {self.max_tokens}, needs at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature: found {self.temperature}, needs 0 or more")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p: found {self.top_p}, needs 0 < top_p <= 1")
        if self.top_k < 0:
            raise ValueError(f"top_k: found {self.top_k}, needs 0 (off) or more")


class VersionSpan(msgspec.Struct, frozen=True, array_like=True):
    """Token positions `start <= i < end` were sampled under weight version `version`."""

    start: int
    end: int
    version: int


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine generated for one sample. Engine client → rollout worker."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """One per token of `token_ids`, natural logarithm."""
    spans: tuple[VersionSpan, ...]
    """Positions count from the first generated token; they tile `token_ids`."""
    text: str
    finish_reason: str
    """`stop` (end-of-sequence token or stop string) or `length`."""
