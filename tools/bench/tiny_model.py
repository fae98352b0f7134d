"""The model that engines are compared on: a Qwen3 with random weights, small enough that what surrounds it shows.

python -m tools.bench.tiny_model FOLDER
"""

import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

VOCABULARY = 512
SPREAD = 3.0
"""Factor on every weight matrix: as drawn, they make all tokens about equally likely."""


def make_tiny_model(folder: Path, *, seed: int = 0) -> None:
    """Write a Hugging Face folder: 4 layers, hidden 128, 4 heads of 32, 2 key-value heads, untied, 0.72 M parameters
    in float32, with a byte-level BPE tokenizer of 512 tokens. Equal seeds give equal weights."""
    tokenizer = _tokenizer()
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=2048,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    ).float()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.mul_(SPREAD)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sums = [f"{one} + {other} = {one + other}\n" for one in range(60) for other in range(60)]
    words = ["the answer is", "user assistant system", "think step by step"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|pad|>", "<|eos|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*sums, *words * 50], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|eos|>")


if __name__ == "__main__":
    make_tiny_model(Path(sys.argv[1]))
