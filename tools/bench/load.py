"""Load generator: so many requests in flight at once, for the time that their answers take.

    python -m tools.bench.load PLAN        PLAN: a Load as JSON; prints a LoadResult as JSON

A process of its own, so that the server's cost and its own are apart, and plain asyncio streams, because an HTTP
library's millisecond per request would be a good part of what is measured.
"""

import asyncio
import random
import sys
import time
from urllib.parse import urlsplit

import msgspec

from nexrl.errors import InferenceError

PROMPT_TOKENS = 19


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. Bench → load generator."""

    url: str
    """`http://host:port` of a server with /v1/completions."""
    token: str
    """Bearer token; empty = none."""
    model: str
    concurrency: int
    """Connections, each with one request in flight."""
    requests: int
    """In all; the connections share them."""
    max_tokens: int
    """To generate per request, whatever the model says (ignore_eos)."""
    vocabulary: int
    """Prompts are random ids below this."""
    seed: int
    """Of prompts and samples."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came back. Load generator → bench."""

    seconds: float
    """From the first byte sent to the last byte received."""
    tokens: int
    """Generated in all."""

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens by wall time."""
        return self.tokens / self.seconds


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]


class _Completion(msgspec.Struct):
    token_ids: list[int]
    logprobs: _Logprobs


class _Answer(msgspec.Struct):
    choices: list[_Completion]


async def generate(load: Load) -> LoadResult:
    """Send all requests and wait for the answers, which are read after the clock has stopped.

    Raises InferenceError where one is an error, has another number of tokens than was asked for, or lacks log-probs.
    """
    payloads = _payloads(load)
    answers: list[tuple[int, bytes]] = []
    connections = [await _connect(load.url) for _ in range(load.concurrency)]
    try:
        started = time.perf_counter()
        await asyncio.gather(*(_drain(reader, writer, payloads, answers) for reader, writer in connections))
        seconds = time.perf_counter() - started
    finally:
        for _, writer in connections:
            writer.close()
    return LoadResult(seconds=seconds, tokens=sum(_tokens(*answer, load.max_tokens) for answer in answers))


async def _connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _drain(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    payloads: list[bytes],
    answers: list[tuple[int, bytes]],
) -> None:
    """One connection: take a payload, send it, wait for its answer, until none is left."""
    while payloads:
        writer.write(payloads.pop())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        except asyncio.IncompleteReadError as error:
            raise InferenceError("the server closed a connection instead of answering") from error
        length = head.partition("content-length:")[2].split("\r\n", 1)[0]
        if not length:
            raise InferenceError(f"needs an answer with Content-Length, found:\n{head}")
        answers.append((int(head.split(" ", 2)[1]), await reader.readexactly(int(length))))


def _payloads(load: Load) -> list[bytes]:
    """Requests as bytes, ready before the clock starts."""
    rng = random.Random(load.seed)
    host = urlsplit(load.url).netloc
    guard = f"Authorization: Bearer {load.token}\r\n" if load.token else ""
    payloads = []
    for _ in range(load.requests):
        body = msgspec.json.encode(
            {
                "model": load.model,
                "prompt": [rng.randrange(load.vocabulary) for _ in range(PROMPT_TOKENS)],
                "max_tokens": load.max_tokens,
                "temperature": 1.0,
                "ignore_eos": True,
                "logprobs": 0,
                "return_token_ids": True,
                "seed": rng.getrandbits(31),
            }
        )
        head = f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n{guard}Content-Type: application/json\r\n"
        payloads.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return payloads


def _tokens(status: int, body: bytes, wanted: int) -> int:
    """Generated tokens of an answer, which has to have `wanted` of them, each with its log-prob."""
    if status != 200:
        raise InferenceError(f"status {status}: {body[:500].decode(errors='replace')}")
    choice = msgspec.json.decode(body, type=_Answer).choices[0]
    tokens, logprobs = len(choice.token_ids), len(choice.logprobs.token_logprobs)
    if not tokens == logprobs == wanted:
        raise InferenceError(f"asked for {wanted} tokens, found {tokens} with {logprobs} log-probs")
    return tokens


def main() -> None:
    """Command line."""
    load = msgspec.json.decode(sys.argv[1], type=Load)
    sys.stdout.write(msgspec.json.encode(asyncio.run(generate(load))).decode() + "\n")


if __name__ == "__main__":
    main()
