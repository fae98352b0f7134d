import pytest
from transformers import AutoTokenizer

from nexrl.inference.embedded.text import StopWatch, TextStream


@pytest.fixture(scope="module")
def tokenizer(model_folders):
    return AutoTokenizer.from_pretrained(model_folders["qwen3"])


@pytest.mark.parametrize(
    "text", ["plain words", "ünïcödé €uro 日本語 🎉🎉 end", "🎉", "tail \N{REPLACEMENT CHARACTER} x"]
)
def test_pieces_hold_whole_characters_and_add_up(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    stream = TextStream(tokenizer, skip_special_tokens=True)
    pieces = [stream.push(token) for token in ids]
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces) or "\N{REPLACEMENT CHARACTER}" in text
    assert "".join(pieces) + stream.rest() == text


def test_bytes_that_are_no_text_still_add_up(tokenizer):
    ids = [*range(3, 259), 2, 70, 71, 200]
    stream = TextStream(tokenizer, skip_special_tokens=True)
    text = "".join(stream.push(token) for token in ids) + stream.rest()
    assert text == tokenizer.decode(ids, skip_special_tokens=True)


def test_the_earliest_stop_string_cuts(tokenizer):
    ids = tokenizer.encode("one two three", add_special_tokens=False)
    watch = StopWatch(TextStream(tokenizer, skip_special_tokens=True), ["three", "o t"], include_stop=False)
    hit = next(n for n, token in enumerate(ids) if watch.push(token, may_stop=True))
    assert hit == next(n for n in range(len(ids)) if "two t" in tokenizer.decode(ids[: n + 1]))
    assert watch.text == "one tw"
