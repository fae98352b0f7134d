"""The OpenAI-compatible routes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from nexrl.errors import InferenceError
from nexrl.inference.embedded.bodies import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    GenerationBody,
    TokenizeBody,
    decode_body,
)
from nexrl.inference.embedded.chat import chat_prompt
from nexrl.inference.embedded.delivery import Gathering, Stream
from nexrl.inference.embedded.engine import EmbeddedEngine
from nexrl.inference.embedded.format import (
    ChatFormat,
    CompletionFormat,
    Part,
    ReplyFormat,
    TokenTexts,
    Wishes,
    numbered,
    usage_of,
)
from nexrl.inference.embedded.http import error_body, json_response, unless_client_leaves
from nexrl.inference.embedded.request import GenerationRequest, RequestError, Sample


class GenerationRoutes:
    """Generation, models and tokens, under the name `model`."""

    def __init__(self, engine: EmbeddedEngine, *, model: str) -> None:
        self._engine = engine
        self._model = model
        self._created = int(time.time())
        self._texts = TokenTexts(engine.tokenizer)

    def routes(self) -> list[Route]:
        """Paths and their methods."""
        return [
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat_completions, methods=["POST"]),
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{model:path}", self.one_model, methods=["GET"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/health", self.health, methods=["GET"]),
        ]

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions."""
        body = decode_body(await request.body(), CompletionBody)
        self._check_model(body.model)
        requests = body.requests(self._engine.tokenizer)
        wishes = self._wishes(body, requests, logprobs=body.logprobs is not None)
        return await self._answer(request, body, requests, CompletionFormat(wishes))

    async def chat_completions(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        body = decode_body(await request.body(), ChatBody)
        self._check_model(body.model)
        prompt_ids = chat_prompt(
            self._engine.tokenizer,
            body.messages,
            tools=None if body.tool_choice == "none" else body.tools,
            add_generation_prompt=body.add_generation_prompt,
            options=body.chat_template_kwargs,
        )
        requests = [body.generation_request(prompt_ids, max_model_len=self._engine.max_model_len)]
        return await self._answer(
            request, body, requests, ChatFormat(self._wishes(body, requests, logprobs=bool(body.logprobs)))
        )

    async def models(self, _: Request) -> Response:
        """GET /v1/models."""
        return json_response({"object": "list", "data": [self._card()]})

    async def one_model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._check_model(request.path_params["model"])
        return json_response(self._card())

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize: text or messages to ids."""
        body = decode_body(await request.body(), TokenizeBody)
        if body.prompt is not None and body.messages is None:
            ids = self._engine.tokenizer.encode(body.prompt, add_special_tokens=body.add_special_tokens)
        elif body.messages is not None and body.prompt is None:
            ids = chat_prompt(
                self._engine.tokenizer,
                body.messages,
                tools=body.tools,
                add_generation_prompt=body.add_generation_prompt,
                options=body.chat_template_kwargs,
            )
        else:
            raise RequestError("prompt: needs either prompt or messages", param="prompt")
        return json_response({"tokens": ids, "count": len(ids), "max_model_len": self._engine.max_model_len})

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize: ids to text, special tokens included."""
        body = decode_body(await request.body(), DetokenizeBody)
        if any(not 0 <= token < self._engine.vocab_size for token in body.tokens):
            raise RequestError(f"tokens: needs ids from 0 to {self._engine.vocab_size - 1}", param="tokens")
        return json_response({"prompt": self._engine.tokenizer.decode(body.tokens, skip_special_tokens=False)})

    async def health(self, _: Request) -> Response:
        """GET /health: 200, or 500 with the reason."""
        if self._engine.failure is not None:
            raise self._engine.failure
        return json_response(
            {
                "status": "ok",
                "weight_version": self._engine.version,
                "running": self._engine.running,
                "waiting": self._engine.waiting,
                "steps": self._engine.steps,
            }
        )

    def _card(self) -> dict[str, Any]:
        limit = self._engine.max_model_len
        return {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "nexrl",
            "max_model_len": limit,
        }

    def _check_model(self, name: str) -> None:
        if name != self._model:
            raise RequestError(
                f"model: found {name!r}, this engine serves {self._model!r}",
                param="model",
                status=404,
                code="model_not_found",
            )

    def _wishes(self, body: GenerationBody, requests: Sequence[GenerationRequest], *, logprobs: bool) -> Wishes:
        token_text: Callable[[int], str] = numbered if body.return_tokens_as_token_ids else self._texts
        return Wishes(
            model=self._model,
            logprobs=logprobs,
            token_ids=bool(body.return_token_ids),
            token_text=token_text,
            prompts=[request.prompt_ids for request in requests],
            samples=len(requests[0].seeds),
        )

    async def _answer(
        self, request: Request, body: GenerationBody, requests: Sequence[GenerationRequest], style: ReplyFormat
    ) -> Response:
        if body.stream:
            include_usage = body.stream_options is not None and body.stream_options.include_usage
            chunks = _chunks(Stream(self._engine, requests), requests, style, include_usage=include_usage)
            return StreamingResponse(chunks, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        if body.stream_options is not None:
            raise RequestError("stream_options: needs stream: true", param="stream_options")
        found = await unless_client_leaves(request, Gathering(self._engine, requests).samples())
        parts = [
            self._whole(asked, sample, place * len(samples) + sample.index)
            for place, (asked, samples) in enumerate(zip(requests, found, strict=True))
            for sample in samples
        ]
        usage = usage_of(requests, sum(len(part.token_ids) for part in parts))
        return json_response(style.reply(parts, stream=False, usage=usage))

    def _whole(self, request: GenerationRequest, sample: Sample, choice: int) -> Part:
        text = sample.text
        if text is None:
            skip = request.skip_special_tokens
            text = self._engine.tokenizer.decode(sample.token_ids, skip_special_tokens=skip)
        return Part(
            choice=choice,
            text=text,
            token_ids=sample.token_ids,
            logprobs=sample.logprobs,
            top=sample.top,
            sample=sample,
        )


async def _chunks(
    stream: Stream, requests: Sequence[GenerationRequest], style: ReplyFormat, *, include_usage: bool
) -> AsyncIterator[bytes]:
    """Server-sent events of one answer; an error after the first byte can only be one more event."""
    parts = stream.parts()
    try:
        async for part in parts:
            yield _event(style.reply([part], stream=True, usage=None))
        if include_usage:
            yield _event(style.reply([], stream=True, usage=usage_of(requests, stream.generated)))
    except InferenceError as error:
        yield _event(error_body(error)[0])
    finally:
        await asyncio.shield(parts.aclose())  # type: ignore[attr-defined]  # it is an async generator
    yield b"data: [DONE]\n\n"


def _event(body: Any) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"
