"""Samples to replies, one format per route."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from nexrl.inference.embedded.replies import (
    ChatChoice,
    ChatLogprobs,
    ChatMessage,
    ChatReply,
    CompletionChoice,
    CompletionLogprobs,
    CompletionReply,
    TokenLogprob,
    TopLogprob,
    Usage,
)
from nexrl.inference.embedded.request import GenerationRequest, Sample, TopLogprobs
from nexrl.types import VersionSpan


class TokenTexts:
    """Text of single tokens, each decoded once."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._texts: dict[int, str] = {}

    def __call__(self, token_id: int) -> str:
        """The token's text; the replacement character stands for a part of a character."""
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._tokenizer.decode([token_id], skip_special_tokens=False)
        return text


def numbered(token_id: int) -> str:
    """A token named by its id, as `return_tokens_as_token_ids` asks."""
    return f"token_id:{token_id}"


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a choice gained: all of a sample, or the next piece of a stream."""

    choice: int
    """Prompt number * samples per prompt + sample number."""
    text: str
    token_ids: list[int]
    logprobs: list[float]
    top: list[TopLogprobs]
    offset: int = 0
    """Where `text` begins in the choice's text."""
    opens: bool = True
    """The first part of its choice."""
    sample: Sample | None = None
    """The finished sample, with the last part."""

    @property
    def finish_reason(self) -> str | None:
        """Why the sample ended, where it did."""
        return None if self.sample is None else self.sample.finish_reason

    @property
    def spans(self) -> list[VersionSpan] | UnsetType:
        """Weight versions, where the sample ended."""
        return UNSET if self.sample is None else [VersionSpan(0, len(self.sample.token_ids), self.sample.version)]


class ReplyFormat(Protocol):
    """Makes a route's replies. `stream` = for a chunk."""

    def reply(self, parts: Sequence[Part], *, stream: bool, usage: Usage | None) -> CompletionReply | ChatReply:
        """One body."""
        ...


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a body asked its reply to hold."""

    model: str
    logprobs: bool
    token_ids: bool
    token_text: Any
    """Callable: token id → text."""
    prompts: Sequence[list[int]]
    samples: int
    """Per prompt."""


class CompletionFormat:
    """Replies of /v1/completions."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._id = f"cmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def reply(self, parts: Sequence[Part], *, stream: bool, usage: Usage | None) -> CompletionReply:
        """A whole answer and a chunk look alike."""
        return CompletionReply(
            id=self._id,
            created=self._created,
            model=self._wishes.model,
            choices=[self._choice(part) for part in parts],
            usage=usage,
        )

    def _choice(self, part: Part) -> CompletionChoice:
        wishes = self._wishes
        prompt, sample = divmod(part.choice, wishes.samples)
        with_prompt = wishes.token_ids and part.opens and sample == 0
        return CompletionChoice(
            index=part.choice,
            text=part.text,
            logprobs=self._logprobs(part) if wishes.logprobs else None,
            finish_reason=part.finish_reason,
            token_ids=part.token_ids if wishes.token_ids else UNSET,
            prompt_token_ids=wishes.prompts[prompt] if with_prompt else UNSET,
            weight_spans=part.spans,
        )

    def _logprobs(self, part: Part) -> CompletionLogprobs:
        text_of = self._wishes.token_text
        tokens = [text_of(token_id) for token_id in part.token_ids]
        offsets, offset = [], part.offset
        for token in tokens:
            offsets.append(offset)
            offset += len(token)
        return CompletionLogprobs(
            tokens=tokens,
            token_logprobs=part.logprobs,
            top_logprobs=[{text_of(i): p for i, p in top} for top in part.top] if part.top else None,
            text_offset=offsets,
        )


class ChatFormat:
    """Replies of /v1/chat/completions."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def reply(self, parts: Sequence[Part], *, stream: bool, usage: Usage | None) -> ChatReply:
        """An answer holds messages, a chunk holds what they gained."""
        with_prompt = self._wishes.token_ids and any(part.opens and part.choice == 0 for part in parts)
        return ChatReply(
            id=self._id,
            object="chat.completion.chunk" if stream else "chat.completion",
            created=self._created,
            model=self._wishes.model,
            choices=[self._choice(part, stream=stream) for part in parts],
            usage=usage,
            prompt_token_ids=self._wishes.prompts[0] if with_prompt else UNSET,
        )

    def _choice(self, part: Part, *, stream: bool) -> ChatChoice:
        message = ChatMessage(role="assistant" if part.opens else UNSET, content=part.text)
        return ChatChoice(
            index=part.choice,
            message=UNSET if stream else message,
            delta=message if stream else UNSET,
            logprobs=self._logprobs(part) if self._wishes.logprobs else None,
            finish_reason=part.finish_reason,
            token_ids=part.token_ids if self._wishes.token_ids else UNSET,
            weight_spans=part.spans,
        )

    def _logprobs(self, part: Part) -> ChatLogprobs:
        text_of = self._wishes.token_text
        tops = part.top or [[]] * len(part.token_ids)
        content = []
        for token_id, logprob, top in zip(part.token_ids, part.logprobs, tops, strict=True):
            text = text_of(token_id)
            others = [(text_of(other), value) for other, value in top]
            content.append(
                TokenLogprob(
                    token=text,
                    logprob=logprob,
                    bytes=list(text.encode()),
                    top_logprobs=[TopLogprob(token=t, logprob=p, bytes=list(t.encode())) for t, p in others],
                )
            )
        return ChatLogprobs(content=content)


def usage_of(requests: Sequence[GenerationRequest], generated: int) -> Usage:
    """Prompt tokens are counted once per prompt, as they are computed once."""
    prompt = sum(len(request.prompt_ids) for request in requests)
    return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated)
