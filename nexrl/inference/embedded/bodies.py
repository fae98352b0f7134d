"""Request bodies of the OpenAI-compatible routes, and what they mean to the engine.

A field that would change the answer and that the engine does not have is refused by name; the same field with the
value that changes nothing is accepted, because clients send such defaults.
"""

import re
import secrets
from typing import Any, Literal, TypeVar

import msgspec

from nexrl.inference.embedded.request import GenerationRequest, RequestError
from nexrl.types import Message, SamplingParams, derive_seed

_MAX_SAMPLES = 1024
_MAX_TOP_LOGPROBS = 20
_COMPLETION_TOKENS = 16
"""OpenAI's default of `max_tokens` for completions."""

_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0, None),
    "frequency_penalty": (0, None),
    "repetition_penalty": (1, None),
    "length_penalty": (1, None),
    "min_p": (0, None),
    "logit_bias": ({}, None),
    "best_of": (1, None),
    "use_beam_search": (False, None),
    "echo": (False, None),
    "suffix": ("", None),
    "prompt_logprobs": (None,),
    "response_format": ({"type": "text"}, None),
    "parallel_tool_calls": (True, False, None),
    "modalities": (["text"], None),
    "spaces_between_special_tokens": (True, None),
}
_FOR_THE_RECORD = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "request_id"}
"""Fields that never change an answer."""


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`stream_options` of a streaming request."""

    include_usage: bool = False


class GenerationBody(msgspec.Struct, frozen=True, kw_only=True):
    """Fields that chat and completions share."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    """-1 and 0 = the whole vocabulary."""
    stop: str | list[str] | None = None
    n: int | None = None
    seed: int | None = None
    """Sample i is drawn from derive_seed(seed, i); none = from the system's entropy."""
    seeds: list[int] | None = None
    """One per sample, used as they are."""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None

    def sample_seeds(self) -> tuple[int, ...]:
        """One seed per sample."""
        if self.seeds is None:
            count = 1 if self.n is None else self.n
            if not 1 <= count <= _MAX_SAMPLES:
                raise RequestError(f"n: found {count}, needs 1 to {_MAX_SAMPLES}", param="n")
            root = secrets.randbits(63) if self.seed is None else self.seed
            return tuple(derive_seed(root, i) for i in range(count))
        if not 1 <= len(self.seeds) <= _MAX_SAMPLES:
            raise RequestError(f"seeds: found {len(self.seeds)} numbers, needs 1 to {_MAX_SAMPLES}", param="seeds")
        if self.seed is not None or self.n not in (None, len(self.seeds)):
            raise RequestError(
                f"seeds: found {len(self.seeds)} with n {self.n} and seed {self.seed}, needs n (or no n) and no seed",
                param="seeds",
            )
        return tuple(self.seeds)

    def request(
        self, prompt_ids: list[int], *, seeds: tuple[int, ...], max_tokens: int, top_logprobs: int
    ) -> GenerationRequest:
        """The engine's request for one prompt."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stop:
            raise RequestError("stop: found an empty string, which every text contains", param="stop")
        if self.min_tokens < 0:
            raise RequestError(f"min_tokens: found {self.min_tokens}, needs 0 or more", param="min_tokens")
        if not 0 <= top_logprobs <= _MAX_TOP_LOGPROBS:
            raise RequestError(f"logprobs: found {top_logprobs}, needs 0 to {_MAX_TOP_LOGPROBS}", param="logprobs")
        try:
            sampling = SamplingParams(
                max_tokens=max_tokens,
                temperature=1.0 if self.temperature is None else self.temperature,
                top_p=1.0 if self.top_p is None else self.top_p,
                top_k=0 if self.top_k in (None, -1) else self.top_k,
                stop=stop,
            )
        except ValueError as error:
            raise RequestError(str(error), param=str(error).partition(":")[0]) from error
        return GenerationRequest(
            prompt_ids=prompt_ids,
            sampling=sampling,
            seeds=seeds,
            min_tokens=self.min_tokens,
            ignore_eos=self.ignore_eos,
            top_logprobs=top_logprobs,
            include_stop=self.include_stop_str_in_output,
            skip_special_tokens=self.skip_special_tokens,
            stream=bool(self.stream),
        )


class CompletionBody(GenerationBody, frozen=True, kw_only=True):
    """POST /v1/completions."""

    prompt: Any
    """Text, token ids, or a list of either."""
    logprobs: int | None = None
    """Alternatives to report at each token; 0 = the sampled token alone."""
    add_special_tokens: bool = True
    """Whether the tokenizer adds its own (such as a begin-of-sequence) to a prompt of text."""

    def requests(self, tokenizer: Any) -> list[GenerationRequest]:
        """One per prompt."""
        seeds = self.sample_seeds()
        max_tokens = _COMPLETION_TOKENS if self.max_tokens is None else self.max_tokens
        return [
            self.request(ids, seeds=seeds, max_tokens=max_tokens, top_logprobs=self.logprobs or 0)
            for ids in self._prompts(tokenizer)
        ]

    def _prompts(self, tokenizer: Any) -> list[list[int]]:
        prompts: list[Any] = self.prompt if isinstance(self.prompt, list) else [self.prompt]
        if prompts and isinstance(prompts[0], int):
            prompts = [prompts]
        if not prompts:
            raise RequestError("prompt: found an empty list", param="prompt")
        return [
            tokenizer.encode(prompt, add_special_tokens=self.add_special_tokens)
            if isinstance(prompt, str)
            else _token_ids(prompt)
            for prompt in prompts
        ]


class ChatBody(GenerationBody, frozen=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    """Shown to the chat template; calls in the answer are left in its text."""
    tool_choice: Literal["auto", "none"] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None

    def generation_request(self, prompt_ids: list[int], *, max_model_len: int) -> GenerationRequest:
        """The engine's request; without `max_tokens` an answer may fill the context."""
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs: needs logprobs: true", param="top_logprobs")
        asked = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return self.request(
            prompt_ids,
            seeds=self.sample_seeds(),
            max_tokens=max(1, max_model_len - len(prompt_ids)) if asked is None else asked,
            top_logprobs=self.top_logprobs or 0,
        )


class TokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /tokenize: either `prompt` or `messages`."""

    model: str | None = None
    prompt: str | None = None
    add_special_tokens: bool = True
    messages: list[Message] | None = None
    tools: list[dict[str, Any]] | None = None
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None


class DetokenizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST /detokenize."""

    model: str | None = None
    tokens: list[int]


Body = TypeVar("Body", bound=msgspec.Struct)


def decode_body(raw: bytes, kind: type[Body]) -> Body:
    """Read a JSON body as `kind`; raises RequestError naming the field that is missing, wrong or unknown."""
    try:
        fields = msgspec.json.decode(raw, type=dict[str, Any])
        if issubclass(kind, GenerationBody):
            fields = _without_neutral(fields, kind)
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise RequestError(str(error), param=_field_of(str(error))) from error
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from error


def _without_neutral(fields: dict[str, Any], kind: type[GenerationBody]) -> dict[str, Any]:
    for name in fields.keys() - set(kind.__struct_fields__):
        if name in _FOR_THE_RECORD:
            continue
        if name not in _WITHOUT_EFFECT:
            raise RequestError(f"{name}: this engine has no such field", param=name)
        if fields[name] not in _WITHOUT_EFFECT[name]:
            raise RequestError(f"{name}: found {fields[name]!r}, which this engine does not support", param=name)
    return {name: value for name, value in fields.items() if name in kind.__struct_fields__}


def _field_of(message: str) -> str | None:
    """The field that a msgspec message speaks of: `… at `$.field`` or `… field `field``."""
    found = re.search(r"`\$\.(\w+)", message) or re.search(r"field `(\w+)`", message)
    return found[1] if found else None


def _token_ids(prompt: Any) -> list[int]:
    try:
        return msgspec.convert(prompt, list[int])
    except msgspec.ValidationError as error:
        raise RequestError(f"prompt: needs text, token ids, or a list of either: {error}", param="prompt") from error
