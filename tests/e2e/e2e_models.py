"""Random models for whole-run tests."""

import shutil
from pathlib import Path

import torch
from e2e_runs import ROOT
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

CALL = '<tool_call>{"name": "look_up"}</tool_call>'
"""One token of the agent's tokenizer: a random policy calls the tool now and then."""
_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'][0] }}>{{ message['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "tie_word_embeddings": True,
}


def write_letters_model(folder: Path) -> Path:
    """30 thousand parameters with the demo's tokenizer: one token per letter."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "recipes" / "reverse" / "model" / name, folder)
    _write_weights(folder, vocab_size=43, eos=1, pad=0)
    return folder


def write_agent_model(folder: Path) -> Path:
    """The same with a chat template and ten tokens: digits, `?`, the tool call and the marks of the template."""
    special = ["<pad>", "<end>", "<u>", "<a>", "<t>"]
    vocabulary = [*special, "?", *"789"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens([AddedToken(CALL, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.chat_template = _TEMPLATE
    fast.save_pretrained(folder)
    _write_weights(folder, vocab_size=len(vocabulary) + 1, eos=1, pad=0)
    return folder


def _write_weights(folder: Path, *, vocab_size: int, eos: int, pad: int) -> None:
    config = Qwen3Config(**_SIZES, vocab_size=vocab_size, eos_token_id=eos, pad_token_id=pad, bos_token_id=None)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
