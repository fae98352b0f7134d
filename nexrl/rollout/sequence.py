"""Token bookkeeping of one rollout: turns become sequences with masks, log-probs and weight-version spans.

A sequence grows while each turn's prompt starts with everything so far (prefix merge): then only the new tail is
appended, with loss mask 0, and the new response with loss mask 1. A turn whose prompt rewrote the history starts
another sequence, so that no token is ever trained under a context that it was not sampled in.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nexrl.types import Completion, Turn, VersionSpan


@dataclass
class Sequence:
    """One token sequence while it grows."""

    tokens: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[VersionSpan] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def add_context(self, token_ids: Iterable[int], *, role: str) -> None:
        """Append tokens that the policy did not sample."""
        ids = list(token_ids)
        if not ids:
            return
        start = len(self.tokens)
        self.tokens += ids
        self.loss_mask += [0] * len(ids)
        self.logprobs += [0.0] * len(ids)
        self.turns.append(Turn(start, len(self.tokens), role))

    def add_response(self, completion: Completion) -> None:
        """Append what the policy sampled."""
        start = len(self.tokens)
        self.tokens += completion.token_ids
        self.loss_mask += [1] * len(completion.token_ids)
        self.logprobs += completion.logprobs
        self.spans += [VersionSpan(start + s.start, start + s.end, s.version) for s in completion.spans]
        self.turns.append(Turn(start, len(self.tokens), "assistant"))

    def cut(self, length: int) -> bool:
        """Cut to `length` tokens from the right; says whether anything was cut."""
        if len(self.tokens) <= length:
            return False
        del self.tokens[length:], self.loss_mask[length:], self.logprobs[length:]
        self.spans = [VersionSpan(s.start, min(s.end, length), s.version) for s in self.spans if s.start < length]
        self.turns = [Turn(t.start, min(t.end, length), t.role) for t in self.turns if t.start < length]
        return True

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """tokens int32 [T], loss mask uint8 [T], log-probs float32 [T]."""
        return (
            np.asarray(self.tokens, dtype=np.int32),
            np.asarray(self.loss_mask, dtype=np.uint8),
            np.asarray(self.logprobs, dtype=np.float32),
        )


def merge_turns(completions: Iterable[Completion]) -> list[Sequence]:
    """Sequences of one episode, from its turns in order."""
    sequences: list[Sequence] = []
    for completion in completions:
        prompt = list(completion.prompt_ids)
        current = sequences[-1] if sequences else None
        if current is not None and prompt[: len(current.tokens)] == current.tokens:
            current.add_context(prompt[len(current.tokens) :], role="tool")
        else:
            current = Sequence()
            current.add_context(prompt, role="prompt")
            sequences.append(current)
        current.add_response(completion)
    return sequences
