import numpy as np
import pytest
import torch
from engine_parts import Listener, ask, break_model, forward_logprobs, prompt
from transformers import AutoModelForCausalLM

from nexrl.errors import ConfigError, InferenceError
from nexrl.inference.embedded import EmbeddedEngine, RequestError, Sample, load_engine_model
from nexrl.inference.embedded.request import TokenEvent


@pytest.mark.parametrize("architecture", ["qwen3", "llama"])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("deterministic", [False, True])
def test_logprobs_are_those_of_a_plain_forward(make_engine, model_folders, architecture, temperature, deterministic):
    engine = make_engine(architecture, deterministic=deterministic)
    model = AutoModelForCausalLM.from_pretrained(model_folders[architecture]).eval()
    jobs = []
    for number, length in enumerate([1, 3, 40, 130, 17]):  # ragged prompts, in one batch
        listener = Listener()
        request = ask(prompt(number, length), seeds=[1, 2], max_tokens=20, temperature=temperature, top_p=0.9, top_k=50)
        engine.submit(request, listener)
        jobs.append((request, listener))
    for request, listener in jobs:
        for sample in listener.wait(lambda events: len(events) == 2):
            want = forward_logprobs(model, request.prompt_ids, sample.token_ids, temperature=temperature or 1.0)
            np.testing.assert_allclose(sample.logprobs, want, atol=1e-5, rtol=0)


def test_bfloat16_stays_near_a_plain_forward(model_folders, plain_model):
    engine = EmbeddedEngine(
        load_engine_model(model_folders["qwen3"], dtype="bfloat16"), max_num_seqs=4, max_model_len=64
    )
    engine.start()
    for sample in engine.generate(ask(prompt(0), seeds=[1, 2, 3], max_tokens=20)):
        want = forward_logprobs(plain_model, prompt(0), sample.token_ids)
        assert np.abs(want - sample.logprobs).mean() < 0.05
    engine.stop()


def test_greedy_equals_transformers_generate(make_engine, plain_model):
    want = plain_model.generate(torch.tensor([prompt(1)]), max_new_tokens=16, min_new_tokens=16, do_sample=False)
    (sample,) = make_engine().generate(ask(prompt(1), max_tokens=16, temperature=0))
    assert sample.token_ids == want[0, 10:].tolist()
    assert sample.finish_reason == "length"


def test_64_requests_share_their_steps(make_engine):
    engine = make_engine(max_num_seqs=64, start=False)
    listeners = [Listener() for _ in range(64)]
    for number, listener in enumerate(listeners):
        engine.submit(ask(prompt(number), max_tokens=32), listener)
    engine.start()
    for listener in listeners:
        (sample,) = listener.wait(bool)
        assert len(sample.token_ids) == 32
    assert engine.steps == 31  # the first token comes from the prefill


def test_a_seed_gives_the_same_tokens_whatever_else_runs(make_engine):
    engine = make_engine()
    (alone,) = engine.generate(ask(prompt(0), seeds=[7], max_tokens=24))
    others = [Listener() for _ in range(5)]
    for number, listener in enumerate(others):
        engine.submit(ask(prompt(number + 1, 5 + number), seeds=[number], max_tokens=40), listener)
    _, among_others = engine.generate(ask(prompt(0), seeds=[3, 7], max_tokens=24))
    assert among_others.token_ids == alone.token_ids
    np.testing.assert_allclose(among_others.logprobs, alone.logprobs, atol=1e-5, rtol=0)


def test_requests_join_while_others_run(make_engine):
    engine = make_engine()
    first = Listener()
    engine.submit(ask(prompt(0), max_tokens=200, stream=True), first)
    first.wait(lambda events: len(events) >= 5)
    second = engine.generate(ask(prompt(1), max_tokens=4))[0]
    assert not any(isinstance(event, Sample) for event in first.events)  # the first still runs
    assert len(second.token_ids) == 4
    events = first.wait(lambda events: isinstance(events[-1], Sample))
    sample = events[-1]
    assert [event.token_id for event in events if isinstance(event, TokenEvent)] == sample.token_ids[:-1]
    assert engine.generate(ask(prompt(0), max_tokens=200))[0].token_ids == sample.token_ids


def test_more_samples_than_slots_queue(make_engine):
    engine = make_engine(max_num_seqs=3)
    samples = engine.generate(ask(prompt(0), seeds=range(8), max_tokens=6))
    assert [sample.index for sample in samples] == list(range(8))
    single = [engine.generate(ask(prompt(0), seeds=[seed], max_tokens=6))[0].token_ids for seed in range(8)]
    assert [sample.token_ids for sample in samples] == single


def test_cancel_frees_the_slot(make_engine):
    engine = make_engine(max_num_seqs=1)
    running, waiting = Listener(), Listener()
    job = engine.submit(ask(prompt(0), max_tokens=240, stream=True), running)
    engine.submit(ask(prompt(1), max_tokens=4), waiting)
    running.wait(bool)
    engine.cancel(job)
    assert len(waiting.wait(bool)[0].token_ids) == 4
    assert not any(isinstance(event, Sample) for event in running.events)


def test_a_prompt_may_fill_the_context(make_engine):
    engine = make_engine(max_model_len=64)
    (sample,) = engine.generate(ask(prompt(0, 63), max_tokens=1))
    assert len(sample.token_ids) == 1
    with pytest.raises(RequestError, match=r"64 tokens and max_tokens is 1: 65 together, the engine takes 64"):
        engine.generate(ask(prompt(0, 64), max_tokens=1))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask([]), "at least one"),
        (ask([5, 320]), "0 to 319"),
        (ask([-1]), "0 to 319"),
        (ask([5], min_tokens=9), "max_tokens is 8"),
        (ask([5], seeds=[2**64]), "seeds"),
        (ask([5], temperature=1e-9), "temperature"),
    ],
)
def test_impossible_requests_are_refused(make_engine, request_, message):
    with pytest.raises(RequestError, match=message):
        make_engine(start=False).submit(request_, Listener())


def test_a_failing_model_fails_all_requests_and_says_why(make_engine):
    engine = make_engine()
    listener = Listener()
    break_model(engine)
    engine.submit(ask(prompt(0)), listener)
    (event,) = listener.wait(bool)
    assert "the engine failed: RuntimeError: The size of tensor" in str(event.error)
    with pytest.raises(InferenceError, match="The size of tensor"):
        engine.generate(ask(prompt(0)))
    with pytest.raises(InferenceError, match="The size of tensor"):
        engine.wait_idle(60)


def test_an_engine_that_was_not_started_says_so(make_engine):
    with pytest.raises(InferenceError, match="not been started"):
        make_engine(start=False).generate(ask(prompt(0)))


def test_weights_that_are_not_finite_fail_the_request_alone(make_engine):
    engine = make_engine()
    (good,) = engine.generate(ask(prompt(0), temperature=0))
    norm = engine.parameters()["model.norm.weight"]
    kept = norm.clone()
    norm.fill_(torch.nan)
    with pytest.raises(InferenceError, match="not finite"):
        engine.generate(ask(prompt(0), seeds=[1, 2, 3]))
    norm.copy_(kept)
    assert engine.generate(ask(prompt(0), temperature=0))[0].token_ids == good.token_ids


def test_stop_fails_what_runs(make_engine):
    engine = make_engine(max_num_seqs=1)
    listeners = [Listener(), Listener()]
    for listener in listeners:
        engine.submit(ask(prompt(0), max_tokens=240), listener)
    engine.stop()
    for listener in listeners:
        assert "stopped" in str(listener.wait(bool)[-1].error)


def test_parameters_are_the_models_own_and_tied_once(make_engine):
    engine = make_engine()
    names = engine.parameters().keys()
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    before = engine.generate(ask(prompt(0), temperature=0, max_tokens=16))[0]
    with torch.no_grad():
        engine.parameters()["model.embed_tokens.weight"].mul_(-1)
    engine.commit(5)
    after = engine.generate(ask(prompt(0), temperature=0, max_tokens=16))[0]
    assert (before.version, after.version) == (0, 5)
    assert before.token_ids != after.token_ids


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere: not a Hugging Face model folder"):
        load_engine_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_engine_model(tmp_path)


def test_random_init_needs_no_weights(model_folders, tmp_path):
    for path in model_folders["qwen3"].iterdir():
        if path.suffix != ".safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    engine = EmbeddedEngine(load_engine_model(tmp_path, random_init=True), max_num_seqs=2, max_model_len=64)
    engine.start()
    assert len(engine.generate(ask(prompt(0)))[0].token_ids) == 8
    engine.stop()


def test_a_context_longer_than_the_models_is_refused(make_engine):
    with pytest.raises(ConfigError, match=r"max_model_len: found 513, the model has positions for 512"):
        make_engine(max_model_len=513)
