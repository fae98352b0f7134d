import socket

import httpx
import pytest
from engine_parts import TOKEN, ask, break_model, prompt, write_model

from nexrl.errors import InferenceError
from nexrl.inference.embedded import EmbeddedEngine, EngineServer, load_engine_model

COMPLETION = {"model": "tiny", "prompt": [5, 6], "max_tokens": 4}
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


def failed(response, status, param=None):
    """The error's message, after checking its shape."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    return error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"logit_bias": {"5": 10}}, "logit_bias"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"best_of": 4}, "best_of"),
        ({"echo": True}, "echo"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"max_token": 4}, "max_token"),
        ({"max_tokens": "four"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 127}, "max_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 10**9}, "n"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [-1]}, "seeds"),
        ({"seeds": [2**64]}, "seeds"),
        ({"seeds": [1, 2], "n": 3}, "seeds"),
        ({"seeds": [1], "seed": 1}, "seeds"),
        ({"stop": ""}, "stop"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 5}, "min_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream_options": {"speed": 1}}, "stream_options"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [5, "x"]}, "prompt"),
        ({"prompt": [[5], []]}, "prompt"),
        ({"prompt": [320]}, "prompt"),
        ({"prompt": [5] * 128}, "prompt"),
    ],
)
def test_a_bad_completion_is_refused_by_the_fields_name(http, change, param):
    message = failed(http.post("/v1/completions", json={**COMPLETION, **change}), 400, param)
    assert param in message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {}}]}]}, "messages"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"prompt": "x"}, "prompt"),
    ],
)
def test_a_bad_chat_is_refused_by_the_fields_name(http, change, param):
    failed(http.post("/v1/chat/completions", json={**CHAT, **change}), 400, param)


def test_fields_without_effect_are_accepted(http):
    fields = {"presence_penalty": 0, "frequency_penalty": None, "logit_bias": {}, "user": "me", "best_of": 1}
    assert http.post("/v1/completions", json={**COMPLETION, **fields}).status_code == 200
    assert http.post("/v1/completions", json={**COMPLETION, "top_k": -1, "n": None}).status_code == 200


def test_a_body_that_is_not_json_and_paths_that_are_not_there(http):
    assert "not JSON" in failed(http.post("/v1/completions", content=b"{"), 400)
    failed(http.post("/v1/completions", content=b"[]"), 400)
    assert "missing required field `model`" in failed(http.post("/v1/completions", json={}), 400, "model")
    failed(http.get("/v1/nothing"), 404)
    failed(http.get("/v1/completions"), 405)


@pytest.mark.parametrize("path", ["/v1/models", "/weight_info", "/is_paused", "/nothing"])
@pytest.mark.parametrize("header", [None, "Bearer wrong", TOKEN, f"bearer {TOKEN}"])
def test_every_path_needs_the_token(server, path, header):
    response = httpx.get(server.url + path, headers={"Authorization": header} if header else {})
    assert "token" in failed(response, 401)


def test_health_needs_none(server):
    assert httpx.get(f"{server.url}/health").json()["status"] == "ok"


def test_an_engine_without_a_token_is_not_served(make_engine):
    with pytest.raises(InferenceError, match="bearer token"):
        EngineServer(make_engine(start=False), token="")


def test_tokenize_and_detokenize(http):
    ids = http.post("/tokenize", json={"prompt": "the answer €"}).json()["tokens"]
    assert http.post("/detokenize", json={"tokens": ids}).json()["prompt"] == "the answer €"
    chat = http.post("/tokenize", json={"messages": CHAT["messages"]}).json()
    whole = http.post("/v1/chat/completions", json={**CHAT, "return_token_ids": True}).json()
    assert chat["tokens"] == whole["prompt_token_ids"]
    failed(http.post("/tokenize", json={}), 400, "prompt")
    failed(http.post("/detokenize", json={"tokens": [320]}), 400, "tokens")


def test_tokens_by_id(http):
    body = {**COMPLETION, "logprobs": 0, "return_token_ids": True, "return_tokens_as_token_ids": True}
    (choice,) = http.post("/v1/completions", json=body).json()["choices"]
    assert choice["logprobs"]["tokens"] == [f"token_id:{token}" for token in choice["token_ids"]]


def test_without_a_chat_template_chat_says_so(tmp_path):
    folder = write_model(tmp_path / "bare", "qwen3", chat_template=None)
    engine = EmbeddedEngine(load_engine_model(folder), max_num_seqs=2, max_model_len=64)
    server = EngineServer(engine, token=TOKEN, model="tiny").start()
    try:
        response = httpx.post(
            f"{server.url}/v1/chat/completions", json=CHAT, headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert "no chat template" in failed(response, 400, "messages")
    finally:
        server.stop()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(make_server, stream):
    server = make_server(max_num_seqs=1, max_model_len=512)
    head = {"Authorization": f"Bearer {TOKEN}"}
    long = {**COMPLETION, "max_tokens": 500, "ignore_eos": True, "stream": stream}
    body = httpx.Request("POST", f"{server.url}/v1/completions", json=long, headers=head)
    lines = [b"POST /v1/completions HTTP/1.1", *(b": ".join(pair) for pair in body.headers.raw), b"", body.content]
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(b"\r\n".join(lines))
        while server.engine.idle:  # bounded by the test's timeout
            httpx.get(f"{server.url}/health")
    answer = httpx.post(f"{server.url}/v1/completions", json=COMPLETION, headers=head, timeout=60)
    assert answer.status_code == 200
    assert server.engine.steps < 499


def test_a_failed_engine_is_unhealthy_and_fails_requests(make_server):
    server = make_server()
    break_model(server.engine)
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        assert "size of tensor" in failed(client.post("/v1/completions", json=COMPLETION), 500)
        assert "size of tensor" in failed(client.get("/health"), 500)
        assert "size of tensor" in failed(client.post("/v1/completions", json=COMPLETION), 500)
        assert "size of tensor" in failed(client.post("/pause"), 500)


def test_a_taken_address_is_named(server, make_engine):
    port = int(server.url.rpartition(":")[2])
    with pytest.raises(InferenceError, match=f"cannot listen on 127.0.0.1:{port}"):
        EngineServer(make_engine(start=False), token=TOKEN, port=port).start()


def test_http_and_in_process_agree(http, server):
    (sample,) = server.engine.generate(ask(prompt(0), seeds=[9]))
    body = {"model": "tiny", "prompt": prompt(0), "max_tokens": 8, "seeds": [9], "ignore_eos": True}
    (choice,) = http.post("/v1/completions", json={**body, "return_token_ids": True}).json()["choices"]
    assert choice["token_ids"] == sample.token_ids
