"""Events of the engine's thread to the event loop: gathered into whole samples, or streamed as they come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from nexrl.errors import InferenceError
from nexrl.inference.embedded.engine import EmbeddedEngine
from nexrl.inference.embedded.format import Part
from nexrl.inference.embedded.request import Event, Failed, GenerationRequest, Job, Listener, Sample, TokenEvent
from nexrl.inference.embedded.text import TextStream


class Gathering:
    """Waits until every sample of several requests is there."""

    def __init__(self, engine: EmbeddedEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = self._loop.create_future()
        self._samples: list[dict[int, Sample]] = [{} for _ in requests]
        self._left = sum(len(request.seeds) for request in requests)
        self._jobs = submit_all(engine, requests, [partial(self._hear, place) for place in range(len(requests))])

    async def samples(self) -> list[list[Sample]]:
        """Per request, in the order of its seeds; cancelling this cancels the requests."""
        try:
            await self.done
        except BaseException:
            for job in self._jobs:
                self._engine.cancel(job)
            raise
        return [[found[index] for index in range(len(found))] for found in self._samples]

    def _hear(self, place: int, event: Event) -> None:
        if isinstance(event, Sample):
            self._samples[place][event.index] = event
            self._left -= 1
            if self._left == 0:
                self._loop.call_soon_threadsafe(self._end, None)
        elif isinstance(event, Failed):
            self._loop.call_soon_threadsafe(self._end, event.error)

    def _end(self, error: InferenceError | None) -> None:
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


class Stream:
    """Parts of all choices in the order in which they come."""

    def __init__(self, engine: EmbeddedEngine, requests: Sequence[GenerationRequest]) -> None:
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._choices: dict[tuple[int, int], ChoiceStream] = {}
        for place, request in enumerate(requests):
            for index in range(len(request.seeds)):
                choice = place * len(request.seeds) + index
                self._choices[place, index] = ChoiceStream(choice, engine.tokenizer, request)
        self.generated = 0
        """Tokens of the choices that ended."""
        self._jobs = submit_all(engine, requests, [partial(self._hear, place) for place in range(len(requests))])

    async def parts(self) -> AsyncIterator[Part]:
        """Until every choice ended; raises InferenceError where the engine fails. Closing it cancels the requests."""
        left = len(self._choices)
        try:
            while left:
                place, event = await self._events.get()
                if isinstance(event, Failed):
                    raise event.error
                choice = self._choices[place, event.index]
                if isinstance(event, TokenEvent):
                    part = choice.grow(event)
                else:
                    part = choice.finish(event)
                    self.generated += len(event.token_ids)
                    left -= 1
                if part is not None:
                    yield part
        finally:
            if left:
                for job in self._jobs:
                    self._engine.cancel(job)

    def _hear(self, place: int, event: Event) -> None:
        self._loop.call_soon_threadsafe(self._events.put_nowait, (place, event))


class ChoiceStream:
    """One streamed choice: what of its text can be given out without ever having to take it back."""

    def __init__(self, choice: int, tokenizer: Any, request: GenerationRequest) -> None:
        self._choice = choice
        self._decode = partial(tokenizer.decode, skip_special_tokens=request.skip_special_tokens)
        self._stream = TextStream(tokenizer, skip_special_tokens=request.skip_special_tokens)
        self._held = max(map(len, request.sampling.stop), default=1) - 1
        """Characters that may turn out to be the beginning of a stop string."""
        self._text = ""
        self._sent_text = 0
        self._sent_tokens = 0
        self._pending: list[TokenEvent] = []

    def grow(self, event: TokenEvent) -> Part | None:
        """One more token; None while no character is certain."""
        self._pending.append(event)
        self._text += self._stream.push(event.token_id)
        safe = len(self._text) - self._held
        if safe <= self._sent_text:
            return None
        pending, self._pending = self._pending, []
        return self._part(
            self._text[self._sent_text : safe],
            [event.token_id for event in pending],
            [event.logprob for event in pending],
            [event.top for event in pending if event.top],
        )

    def finish(self, sample: Sample) -> Part:
        """The rest of the sample."""
        text = self._decode(sample.token_ids) if sample.text is None else sample.text
        start = self._sent_tokens
        return self._part(
            text[self._sent_text :],
            sample.token_ids[start:],
            sample.logprobs[start:],
            sample.top[start:],
            sample=sample,
        )

    def _part(
        self,
        text: str,
        token_ids: list[int],
        logprobs: list[float],
        top: list[list[tuple[int, float]]],
        *,
        sample: Sample | None = None,
    ) -> Part:
        offset, opens = self._sent_text, self._sent_tokens == 0
        self._sent_text += len(text)
        self._sent_tokens += len(token_ids)
        return Part(
            choice=self._choice,
            text=text,
            token_ids=token_ids,
            logprobs=logprobs,
            top=top,
            offset=offset,
            opens=opens,
            sample=sample,
        )


def submit_all(
    engine: EmbeddedEngine, requests: Sequence[GenerationRequest], listeners: Sequence[Listener]
) -> list[Job]:
    """Submit all or none."""
    jobs: list[Job] = []
    try:
        for request, listener in zip(requests, listeners, strict=True):
            jobs.append(engine.submit(request, listener))
    except InferenceError:
        for job in jobs:
            engine.cancel(job)
        raise
    return jobs
