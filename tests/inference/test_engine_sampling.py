import numpy as np
import pytest
import torch
from engine_parts import ask, prompt

from nexrl.inference.embedded.sampler import SamplingBatch, Truncation, draw, truncate, uniforms


def batch(uniform, **parts):
    count = len(uniform)
    return SamplingBatch(
        inverse_temperature_B=torch.ones(count), uniforms_B=torch.tensor(uniform, dtype=torch.float64), **parts
    )


def test_a_draw_is_the_inverse_cdf():
    logits = torch.tensor([0.1, 0.2, 0.0, 0.7]).log().repeat(5, 1)  # probability 0 at token 2
    drawn = draw(logits, batch([0.0, 0.0999, 0.1001, 0.3001, 1.0 - 2.0**-40]))
    assert drawn.tokens_B.tolist() == [0, 0, 1, 3, 3]
    np.testing.assert_allclose(drawn.logprobs_B, np.log([0.1, 0.1, 0.2, 0.7, 0.7]), rtol=1e-6)


def test_truncation_keeps_the_smallest_set_that_reaches_top_p_and_at_most_top_k():
    weights = torch.tensor([[0.125, 0.5, 0.25, 0.125]]).repeat(4, 1)
    top_p, top_k = torch.tensor([0.75, 0.76, 1.0, 1.0]), torch.tensor([0, 0, 2, 0])
    kept = truncate(weights, Truncation(torch.arange(4), top_p, top_k))
    assert kept.tolist() == [
        [0.0, 0.5, 0.25, 0.0],
        [0.125, 0.5, 0.25, 0.0],  # equals rank by token id
        [0.0, 0.5, 0.25, 0.0],
        [0.125, 0.5, 0.25, 0.125],
    ]


def test_greedy_rows_and_rows_that_may_not_end():
    logits = torch.tensor([[0.0, 3.0, 2.0]] * 3)
    drawn = draw(
        logits,
        batch(
            [0.0, 0.0, 0.999],
            greedy_B=torch.tensor([True, True, False]),
            no_eos_rows=torch.tensor([1, 2]),
            eos_ids=torch.tensor([1]),
        ),
    )
    assert drawn.tokens_B.tolist() == [1, 2, 2]
    np.testing.assert_allclose(drawn.logprobs_B, logits.log_softmax(-1)[0, [1, 2, 2]], rtol=1e-6)  # of the whole


def test_uniforms_are_a_function_of_the_seed():
    assert uniforms(5, 100)[:10].tolist() == uniforms(5, 10).tolist()
    assert uniforms(5, 10).tolist() != uniforms(6, 10).tolist()
    assert 0.0 <= uniforms(2**127, 1000).min() < uniforms(2**127, 1000).max() < 1.0


def test_samples_follow_the_models_distribution(make_engine, plain_model):
    count = 4000
    engine = make_engine(max_num_seqs=256, max_model_len=16)
    samples = engine.generate(ask(prompt(3), seeds=range(count), max_tokens=1, temperature=0.8, top_k=4))
    with torch.no_grad():
        probs, ids = (plain_model(torch.tensor([prompt(3)])).logits[0, -1] / 0.8).softmax(-1).topk(4)
    probs = (probs / probs.sum()).numpy()
    counts = np.bincount([sample.token_ids[0] for sample in samples], minlength=320)
    assert counts.sum() == counts[ids].sum() == count
    spread = np.sqrt(count * probs * (1 - probs))
    assert (np.abs(counts[ids.numpy()] - count * probs) < 5 * spread).all()


def test_eos_ends_a_sample_and_belongs_to_it(make_engine):
    engine = make_engine(max_num_seqs=64)
    request = ask(prompt(0), seeds=range(64), max_tokens=200, temperature=3.0)
    eos = engine.tokenizer.eos_token_id
    endless = engine.generate(request)
    ending = engine.generate(ask(prompt(0), seeds=range(64), max_tokens=200, temperature=3.0, ignore_eos=False))
    ended = [sample for sample in ending if sample.finish_reason == "stop"]
    assert ended
    for sample, whole in zip(ending, endless, strict=True):
        place = whole.token_ids.index(eos) + 1 if eos in whole.token_ids else 200
        assert sample.token_ids == whole.token_ids[:place]
    first = min(len(sample.token_ids) for sample in ended)
    later = engine.generate(
        ask(prompt(0), seeds=range(64), max_tokens=200, temperature=3.0, ignore_eos=False, min_tokens=first + 1)
    )
    assert min(len(sample.token_ids) for sample in later) > first


def test_stop_strings_end_a_sample_where_they_are_complete(make_engine):
    engine = make_engine()
    (free,) = engine.generate(ask(prompt(2), max_tokens=60))
    text = engine.tokenizer.decode(free.token_ids, skip_special_tokens=True)
    stop = next(text[i : i + 3] for i in range(20, 60) if text[i : i + 3].isascii())
    (cut,) = engine.generate(ask(prompt(2), max_tokens=60, stop=(stop,)))
    assert cut.finish_reason == "stop"
    assert cut.text == text[: text.index(stop)]
    assert cut.token_ids == free.token_ids[: len(cut.token_ids)]
    assert stop in engine.tokenizer.decode(cut.token_ids, skip_special_tokens=True)
    assert stop not in engine.tokenizer.decode(cut.token_ids[:-1], skip_special_tokens=True)
    (kept,) = engine.generate(ask(prompt(2), max_tokens=60, stop=("never in there", stop), include_stop=True))
    assert kept.text == text[: text.index(stop) + len(stop)]
    (all_,) = engine.generate(ask(prompt(2), max_tokens=60, stop=("never in there",)))
    assert (all_.finish_reason, all_.text) == ("length", text)


@pytest.mark.parametrize("alternatives", [1, 5])
def test_alternatives_are_the_most_likely_tokens(make_engine, plain_model, alternatives):
    engine = make_engine()
    request = ask(prompt(4), max_tokens=6, temperature=0, top_logprobs=alternatives)
    (sample,) = engine.generate(request)
    with torch.no_grad():
        logits = plain_model(torch.tensor([[*request.prompt_ids, *sample.token_ids]])).logits[0]
    want, ids = logits[9:-1].log_softmax(-1).topk(alternatives)
    assert [[i for i, _ in top] for top in sample.top] == ids.tolist()
    np.testing.assert_allclose([[p for _, p in top] for top in sample.top], want, atol=1e-5)
