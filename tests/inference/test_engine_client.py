import contextlib
import http.server
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine_parts import TOKEN, ask, forward_logprobs, prompt

from nexrl.errors import InferenceError, RefusedRequestError
from nexrl.inference import HttpEngineClient
from nexrl.inference.client import Replicas
from nexrl.types import SamplingParams, VersionSpan

SAMPLING = SamplingParams(max_tokens=8, temperature=0.7)


@pytest.fixture
def make_client():
    """Clients that are closed with the test."""
    with contextlib.ExitStack() as stack:

        def make(*urls, token=TOKEN, **options):
            client = HttpEngineClient(urls, token=token, model="tiny", **options)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture
def client(server, make_client):
    return make_client(server.url, max_retries=0)


@contextlib.contextmanager
def answering(*statuses, delay=0.0):
    """An HTTP server that gives these statuses in turn, the last one for ever; yields (url, bodies received)."""
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            time.sleep(delay)
            body = b'{"error": {"message": "out of luck"}}'
            self.send_response(statuses[min(len(received), len(statuses)) - 1])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", received
        running.shutdown()
        thread.join()


def free_port_url():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_one_completion_per_seed(client, server, plain_model):
    completions = client.generate(prompt(0), sampling=SAMPLING, seeds=[11, 12])
    in_process = server.engine.generate(ask(prompt(0), seeds=[11, 12], temperature=0.7, ignore_eos=False))
    for completion, sample in zip(completions, in_process, strict=True):
        assert completion.prompt_ids == tuple(prompt(0))
        assert completion.token_ids == tuple(sample.token_ids)
        assert completion.finish_reason == sample.finish_reason
        assert completion.text == server.engine.tokenizer.decode(sample.token_ids, skip_special_tokens=True)
        assert completion.spans == (VersionSpan(0, len(sample.token_ids), 0),)
        want = forward_logprobs(plain_model, prompt(0), list(completion.token_ids), temperature=0.7)
        np.testing.assert_allclose(completion.logprobs, want, atol=1e-5, rtol=0)


def test_chat_brings_the_message_and_its_tokens(client, server):
    messages = [{"role": "user", "content": "hello"}]
    message, completion = client.chat(messages, sampling=SAMPLING, seed=3)
    tokenizer = server.engine.tokenizer
    rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert completion.prompt_ids == tuple(client.tokenize(rendered))
    assert message == {"role": "assistant", "content": completion.text}
    (again,) = client.generate(completion.prompt_ids, sampling=SAMPLING, seeds=[3])
    assert again.token_ids == completion.token_ids


def test_many_threads_share_one_client(client):
    def first(number):
        return client.generate(prompt(number), sampling=SAMPLING, seeds=[number])[0].token_ids

    with ThreadPoolExecutor(32) as pool:
        together = list(pool.map(first, range(64)))
    assert together == [first(number) for number in range(64)]


def test_64_concurrent_requests_share_their_steps(make_server, make_client):
    server = make_server(max_num_seqs=64)
    client = make_client(server.url)
    sampling = SamplingParams(max_tokens=32, temperature=0)
    server.engine.pause()
    with ThreadPoolExecutor(64) as pool:
        futures = [pool.submit(client.generate, prompt(n), sampling=sampling, seeds=[0]) for n in range(64)]
        while server.engine.waiting < 64:  # bounded by the test's timeout
            time.sleep(0.01)
        server.engine.resume()
        lengths = [len(future.result()[0].token_ids) for future in futures]
    assert server.engine.steps == max(lengths) - 1


def test_refused_requests_are_not_tried_again(server, make_client):
    client = make_client(server.url, max_retries=3)
    with pytest.raises(RefusedRequestError, match=rf"failed after 1 attempt.*{server.url}: HTTP 400: .*200 tokens"):
        client.generate(prompt(0, 200), sampling=SAMPLING, seeds=[0])
    stranger = make_client(server.url, token="wrong")
    with pytest.raises(RefusedRequestError, match=r"after 1 attempt.*HTTP 401"):
        stranger.generate(prompt(0), sampling=SAMPLING, seeds=[0])


def test_server_errors_are_tried_again_and_counted(make_client):
    with answering(500, 429, 404) as (url, received):
        client = make_client(url, max_retries=5)
        with pytest.raises(InferenceError, match=r"after 3 attempt.*HTTP 500: out of luck.*HTTP 429.*HTTP 404"):
            client.generate([1, 2], sampling=SAMPLING, seeds=[0])
    assert len(received) == 3
    assert len(set(received)) == 1  # every attempt asks for the same


def test_max_retries_are_further_attempts(make_client):
    with answering(500) as (url, received):
        client = make_client(url, max_retries=1)
        with pytest.raises(InferenceError, match="after 2 attempt"):
            client.generate([1, 2], sampling=SAMPLING, seeds=[0])
    assert len(received) == 2


def test_a_deadline_ends_a_silent_engine(make_client):
    with answering(200, delay=1.0) as (url, _):
        client = make_client(url, max_retries=0, request_timeout=0.1)
        with pytest.raises(InferenceError, match=rf"{url}: ReadTimeout"):
            client.generate([1, 2], sampling=SAMPLING, seeds=[0])


def test_an_answer_that_makes_no_sense_is_an_error(make_client):
    with answering(200) as (url, _):
        client = make_client(url, max_retries=0)
        with pytest.raises(InferenceError, match="cannot be read"):
            client.generate([1, 2], sampling=SAMPLING, seeds=[0])


def test_another_replica_takes_over_from_a_dead_one(server, make_client):
    client = make_client(free_port_url(), server.url, max_retries=1)
    (completion,) = client.generate(prompt(0), sampling=SAMPLING, seeds=[0])
    assert completion.token_ids


def test_the_least_busy_replica_is_chosen_and_equals_take_turns():
    replicas = Replicas(["a", "b", "c"])
    assert [replicas.take() for _ in range(3)] == ["a", "b", "c"]
    replicas.release("b")
    assert [replicas.take() for _ in range(2)] == ["b", "a"]
    assert replicas.take(avoid="c") == "b"
    assert Replicas(["only"]).take(avoid="only") == "only"
