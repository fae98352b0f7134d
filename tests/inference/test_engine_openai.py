"""The official client, as it is."""

import numpy as np
import openai
import pytest
from engine_parts import TOKEN, forward_logprobs, prompt

MESSAGES = [{"role": "user", "content": "what is the answer"}]


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


def text_of(server, ids):
    return server.engine.tokenizer.decode(ids, skip_special_tokens=True)


def test_models(client):
    (model,) = client.models.list()
    assert model.id == "tiny"
    assert client.models.retrieve("tiny").max_model_len == 128


def test_completion_of_text_and_of_tokens(client, server):
    asked = {"model": "tiny", "max_tokens": 12, "seed": 3, "logprobs": 0, "extra_body": {"ignore_eos": True}}
    ids = server.engine.tokenizer.encode("the answer is")
    first = client.completions.create(prompt="the answer is", **asked)
    second = client.completions.create(prompt=ids, **asked)
    assert first.choices == second.choices
    assert first.usage.prompt_tokens == len(ids)
    assert first.usage.total_tokens == len(ids) + 12
    assert first.choices[0].finish_reason == "length"
    assert len(first.choices[0].logprobs.tokens) == 12


def test_token_ids_logprobs_and_weight_spans(client, server, plain_model):
    extra = {"return_token_ids": True, "return_tokens_as_token_ids": True}
    answer = client.completions.create(
        model="tiny", prompt=prompt(0), max_tokens=9, temperature=0.7, logprobs=2, extra_body=extra
    )
    (choice,) = answer.choices
    assert choice.prompt_token_ids == prompt(0)
    want = forward_logprobs(plain_model, prompt(0), choice.token_ids, temperature=0.7)
    np.testing.assert_allclose(choice.logprobs.token_logprobs, want, atol=1e-5)
    assert choice.weight_spans == [[0, len(choice.token_ids), 0]]
    assert choice.text == text_of(server, choice.token_ids)
    assert [len(top) for top in choice.logprobs.top_logprobs] == [2] * len(choice.token_ids)
    assert choice.logprobs.text_offset[0] == 0


def test_several_prompts_and_samples(client):
    asked = {"model": "tiny", "max_tokens": 6, "n": 3, "seed": 1, "extra_body": {"return_token_ids": True}}
    both = client.completions.create(prompt=[prompt(0), prompt(1)], **asked)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3, 4, 5]
    second = client.completions.create(prompt=prompt(1), **asked)
    assert [c.token_ids for c in both.choices[3:]] == [c.token_ids for c in second.choices]
    assert len({tuple(choice.token_ids) for choice in second.choices}) == 3
    assert both.usage.prompt_tokens == 20


def test_seeds_name_the_samples_one_by_one(client):
    def tokens(**fields):
        answer = client.completions.create(
            model="tiny", prompt=prompt(0), max_tokens=6, extra_body={"return_token_ids": True, **fields}
        )
        return [choice.token_ids for choice in answer.choices]

    assert tokens(seeds=[4, 5]) == [*tokens(seeds=[4]), *tokens(seeds=[5])]
    assert tokens() != tokens()  # without a seed: from the system's entropy


def test_chat(client, server):
    answer = client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        max_tokens=10,
        seed=2,
        logprobs=True,
        top_logprobs=3,
        extra_body={"return_token_ids": True},
    )
    tokenizer = server.engine.tokenizer
    rendered = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
    assert answer.prompt_token_ids == tokenizer.encode(rendered, add_special_tokens=False)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == text_of(server, choice.token_ids)
    content = choice.logprobs.content
    assert [bytes(entry.bytes).decode() for entry in content] == [entry.token for entry in content]
    assert all(len(entry.top_logprobs) == 3 for entry in content)
    same = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "text", "text": "what is the answer"}]}],
        max_completion_tokens=10,
        seed=2,
    )
    assert same.choices[0].message == choice.message


def test_tools_reach_the_template(client):
    tool = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}

    def prompt_tokens(**fields):
        return client.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=1, **fields
        ).usage.prompt_tokens

    assert prompt_tokens(tools=[tool]) > prompt_tokens() == prompt_tokens(tools=[tool], tool_choice="none")


def test_stop_strings(client):
    asked = {"model": "tiny", "prompt": prompt(2), "max_tokens": 60, "seed": 0}
    text = client.completions.create(**asked).choices[0].text
    stop = text[10:12]
    (choice,) = client.completions.create(stop=[stop, "no such text"], **asked).choices
    assert (choice.finish_reason, choice.text) == ("stop", text[: text.index(stop)])


@pytest.mark.parametrize("stop", [None, "inside"])
def test_a_stream_gives_what_the_whole_answer_gives(client, stop):
    asked = {"model": "tiny", "prompt": prompt(2), "max_tokens": 60, "seed": 0, "n": 2, "logprobs": 1}
    asked["extra_body"] = {"return_token_ids": True, "ignore_eos": True}
    if stop is not None:
        asked["stop"] = client.completions.create(**asked).choices[0].text[30:34]
    whole = client.completions.create(**asked)
    *chunks, last = client.completions.create(stream=True, stream_options={"include_usage": True}, **asked)
    assert last.usage == whole.usage
    assert not last.choices
    for choice in whole.choices:
        parts = [chunk.choices[0] for chunk in chunks if chunk.choices[0].index == choice.index]
        assert len(parts) > 5
        assert "".join(part.text for part in parts) == choice.text
        assert [token for part in parts for token in part.token_ids] == choice.token_ids
        assert next(offset for part in parts for offset in part.logprobs.text_offset) == 0
        got = [value for part in parts for value in part.logprobs.token_logprobs]
        np.testing.assert_allclose(got, choice.logprobs.token_logprobs, atol=1e-5)
        assert parts[-1].finish_reason == choice.finish_reason
        assert parts[-1].weight_spans == choice.weight_spans
        assert {part.finish_reason for part in parts[:-1]} == {None}


def test_chat_stream(client):
    asked = {"model": "tiny", "messages": MESSAGES, "max_tokens": 30, "seed": 5}
    whole = client.chat.completions.create(**asked).choices[0]
    chunks = list(client.chat.completions.create(stream=True, **asked))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_errors_arrive_as_the_clients_own_exceptions(client, server):
    with pytest.raises(openai.NotFoundError, match="'other', this engine serves 'tiny'"):
        client.completions.create(model="other", prompt="x")
    with pytest.raises(openai.BadRequestError, match=r"200 tokens and max_tokens is 16") as caught:
        client.completions.create(model="tiny", prompt=prompt(0, 200))
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "prompt"
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="bearer token"),
    ):
        stranger.models.list()
