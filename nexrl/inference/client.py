"""Generation over HTTP, from one or more engine replicas."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import msgspec

from nexrl.errors import InferenceError, RefusedRequestError
from nexrl.inference.transport import open_http, post, reason_of
from nexrl.types import Completion, Message, SamplingParams, VersionSpan

Reply = TypeVar("Reply")

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0
"""Seconds between attempts; doubled each time."""
_COMES_AGAIN = frozenset({408, 425, 429})
"""Of the statuses below 500: too slow, too early, too many. The same request may be taken later."""


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]


class _Choice(msgspec.Struct):
    text: str
    token_ids: list[int]
    logprobs: _Logprobs
    finish_reason: str
    weight_spans: list[VersionSpan]


class _CompletionReply(msgspec.Struct):
    choices: list[_Choice]


class _ChatLogprob(msgspec.Struct):
    logprob: float


class _ChatLogprobs(msgspec.Struct):
    content: list[_ChatLogprob]


class _ChatChoice(msgspec.Struct):
    message: Message
    token_ids: list[int]
    logprobs: _ChatLogprobs
    finish_reason: str
    weight_spans: list[VersionSpan]


class _ChatReply(msgspec.Struct):
    choices: list[_ChatChoice]
    prompt_token_ids: list[int]


class _TokenizeReply(msgspec.Struct):
    tokens: list[int]


class Replicas:
    """Chooses the replica with the fewest requests under way; safe to use from many threads."""

    def __init__(self, urls: Sequence[str]) -> None:
        if not urls:
            raise InferenceError("a client needs at least one engine")
        self._busy = dict.fromkeys(urls, 0)
        self._lock = threading.Lock()

    def take(self, *, avoid: str | None = None) -> str:
        """The least busy replica, another one than `avoid` if there is one; give it back with `release`."""
        with self._lock:
            url = min((url for url in self._busy if url != avoid), key=self._busy.__getitem__, default=avoid)
            assert url is not None
            # Behind the others of its load from now on, so that equals take turns.
            self._busy[url] = self._busy.pop(url) + 1
            return url

    def release(self, url: str) -> None:
        """The request on `url` is over."""
        with self._lock:
            self._busy[url] -= 1


class HttpEngineClient:
    """Implements EngineClient over OpenAI-compatible engines that answer with token ids; safe to use from many threads.

    `max_retries`: further attempts after one that failed by connection, timeout, a status from 500 on, or one of 408,
    425 and 429. Any other status from 400 on is a RefusedRequestError at once.
    `request_timeout`: seconds for one attempt.
    """

    def __init__(
        self, urls: Sequence[str], *, token: str, model: str, max_retries: int = 3, request_timeout: float = 600.0
    ) -> None:
        self._replicas = Replicas(urls)
        self._model = model
        self._attempts = max_retries + 1
        self._timeout = request_timeout
        self._http = open_http(token)

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def generate(
        self, prompt_ids: Sequence[int], *, sampling: SamplingParams, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion per seed, in the order of the seeds; raises InferenceError when retries are used up."""
        body = {**self._sampling_fields(sampling, seeds), "prompt": prompt_ids, "logprobs": 0}
        reply = self._ask("/v1/completions", body, _CompletionReply)
        return [
            Completion(
                prompt_ids=tuple(prompt_ids),
                token_ids=tuple(choice.token_ids),
                logprobs=tuple(choice.logprobs.token_logprobs),
                spans=tuple(choice.weight_spans),
                text=choice.text,
                finish_reason=choice.finish_reason,
            )
            for choice in reply.choices
        ]

    def chat(
        self,
        messages: Sequence[Message],
        *,
        sampling: SamplingParams,
        seed: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> tuple[Message, Completion]:
        """The assistant's message and its tokens; the engine applies its chat template and says the prompt's tokens.

        Raises InferenceError when retries are used up.
        """
        body = {**self._sampling_fields(sampling, [seed]), "messages": messages, "tools": tools, "logprobs": True}
        reply = self._ask("/v1/chat/completions", body, _ChatReply)
        (choice,) = reply.choices
        return choice.message, Completion(
            prompt_ids=tuple(reply.prompt_token_ids),
            token_ids=tuple(choice.token_ids),
            logprobs=tuple(entry.logprob for entry in choice.logprobs.content),
            spans=tuple(choice.weight_spans),
            text=choice.message.get("content") or "",
            finish_reason=choice.finish_reason,
        )

    def tokenize(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """Token ids of `text` by the engine's tokenizer; raises InferenceError when retries are used up."""
        body = {"prompt": text, "add_special_tokens": add_special_tokens}
        return self._ask("/tokenize", body, _TokenizeReply).tokens

    def _sampling_fields(self, sampling: SamplingParams, seeds: Sequence[int]) -> dict[str, Any]:
        return {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "stop": sampling.stop,
            "n": len(seeds),
            "seeds": seeds,
            "return_token_ids": True,
        }

    def _ask(self, path: str, body: Mapping[str, Any], kind: type[Reply]) -> Reply:
        """POST until an engine answers; errors that another attempt cannot cure are raised at once."""
        failures: list[str] = []
        url: str | None = None
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE))
            url = self._replicas.take(avoid=url)
            try:
                response = post(self._http, url + path, body, timeout=self._timeout)
            except httpx.TransportError as error:
                failures.append(f"{url}: {type(error).__name__}: {error}")
                continue
            finally:
                self._replicas.release(url)
            if response.status_code < 400:
                return self._read(response, url + path, msgspec.json.Decoder(kind).decode)
            failures.append(f"{url}: {reason_of(response)}")
            if response.status_code < 500 and response.status_code not in _COMES_AGAIN:
                raise RefusedRequestError(_told(path, failures))
        raise InferenceError(_told(path, failures))

    @staticmethod
    def _read(response: httpx.Response, url: str, decode: Callable[[bytes], Reply]) -> Reply:
        try:
            return decode(response.content)
        except msgspec.DecodeError as error:
            raise InferenceError(f"{url}: the answer cannot be read: {error}") from error


def _told(path: str, failures: Sequence[str]) -> str:
    return f"{path} failed after {len(failures)} attempt(s): {'; '.join(failures)}"
