import pytest
from engine_parts import Listener, ask, prompt

from nexrl.inference.embedded.runner import ModelRunner

REQUESTS = [
    ask(prompt(n, 1 + (n * 37) % 140), seeds=[n], max_tokens=8 + n % 20, temperature=0.0 if n % 5 == 0 else 0.8)
    for n in range(24)
]


def serve(engine, order, *, held_back=0):
    """Bits of every request, submitted in `order`; the last `held_back` only when the first one already streams."""
    listeners = {n: Listener() for n in order}
    started = Listener()
    early = order[: len(order) - held_back]
    for n in early:
        engine.submit(REQUESTS[n], listeners[n])
    if held_back:
        engine.submit(ask(prompt(99), max_tokens=100, stream=True), started)
        started.wait(lambda events: len(events) > 3)
    for n in order[len(early) :]:
        engine.submit(REQUESTS[n], listeners[n])
    samples = {n: listener.wait(bool)[-1] for n, listener in listeners.items()}
    return {n: (sample.token_ids, sample.logprobs) for n, sample in samples.items()}


@pytest.mark.parametrize("rows", ["together", "one by one"])
def test_bits_do_not_depend_on_order_batching_or_slot(make_engine, monkeypatch, rows):
    if rows == "one by one":
        monkeypatch.setattr(ModelRunner, "_place_does_not_matter", lambda _: False)
    engine = make_engine(max_num_seqs=8, deterministic=True)
    alone = {n: serve(engine, [n])[n] for n in range(len(REQUESTS))}
    assert serve(engine, list(range(24))) == alone
    assert serve(engine, list(range(23, -1, -1)), held_back=10) == alone
    assert serve(engine, [(n * 7) % 24 for n in range(24)], held_back=4) == alone


def test_bits_do_not_depend_on_n(make_engine):
    engine = make_engine(max_num_seqs=8, deterministic=True)
    together = engine.generate(ask(prompt(1, 33), seeds=range(11), max_tokens=20, top_p=0.9))
    for sample in together:
        (alone,) = engine.generate(ask(prompt(1, 33), seeds=[sample.index], max_tokens=20, top_p=0.9))
        assert (alone.token_ids, alone.logprobs) == (sample.token_ids, sample.logprobs)
