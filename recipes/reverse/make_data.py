"""Makes everything that the reverse recipes read: three data files, and the model folder without weights.

    python recipes/reverse/make_data.py            writes beside this file, where the results are kept in git

The task: after `abcd>` say `dcba` and stop. Words have 4 to 8 lower-case letters, each drawn evenly.

| file            | rows   | columns                                | what for                               |
|-----------------|--------|----------------------------------------|----------------------------------------|
| sft.parquet     | 38,400 | prompt, response, data_source          | noisy demonstrations: 600 steps × 64   |
| train.parquet   | 2,432  | prompt, ground_truth, data_source      | prompts for GRPO: 300 steps × 8, and a few more |
| heldout.parquet | 512    | prompt, ground_truth, data_source      | validation; in neither of the others   |

In a demonstration each letter of the answer is replaced by a random one with probability 0.2. A model that learns them
knows the task yet samples it badly: greedily right, right about once in four times at temperature 1. That leaves GRPO
a signal to start from and a known ceiling. All draws are seeded, so the files come out the same on every machine.
"""

import argparse
import json
import random
import string
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

SOURCE = "reverse"
SHORTEST, LONGEST = 4, 8
SFT_ROWS, TRAIN_ROWS, HELDOUT_ROWS = 38_400, 2_432, 512
SFT_SEED, TRAIN_SEED, HELDOUT_SEED = 1, 7, 99
NOISE = 0.2

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
VOCABULARY = (PAD, EOS, UNKNOWN, ">", *string.ascii_lowercase, *string.digits, "+", "=", " ")

MODEL_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "dtype": "float32",
    "vocab_size": len(VOCABULARY),
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
    "bos_token_id": None,
    "eos_token_id": VOCABULARY.index(EOS),
    "pad_token_id": VOCABULARY.index(PAD),
}

TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "pad_token": PAD,
    "eos_token": EOS,
    "unk_token": UNKNOWN,
    "padding_side": "left",
    "model_max_length": 128,
    "clean_up_tokenization_spaces": False,
}


def words(rng: random.Random) -> Iterator[str]:
    """Words without end."""
    while True:
        length = rng.randint(SHORTEST, LONGEST)
        yield "".join(rng.choice(string.ascii_lowercase) for _ in range(length))


def heldout_words() -> list[str]:
    """The words of validation."""
    return draw(HELDOUT_ROWS, rng=random.Random(HELDOUT_SEED), without=frozenset())


def draw(count: int, *, rng: random.Random, without: frozenset[str]) -> list[str]:
    """`count` words that are not in `without`; one may come twice."""
    stream = (word for word in words(rng) if word not in without)
    return [next(stream) for _ in range(count)]


def noisy_reverse(word: str, rng: random.Random) -> str:
    """The word from its end to its start, each letter replaced by a random one with probability NOISE."""
    return "".join(rng.choice(string.ascii_lowercase) if rng.random() < NOISE else letter for letter in reversed(word))


def prompts_table(chosen: list[str]) -> pa.Table:
    """Prompts with their right answers."""
    return pa.table(
        {
            "prompt": [f"{word}>" for word in chosen],
            "ground_truth": [word[::-1] for word in chosen],
            "data_source": [SOURCE] * len(chosen),
        }
    )


def demonstrations_table(chosen: list[str], rng: random.Random) -> pa.Table:
    """Prompts with noisy answers."""
    return pa.table(
        {
            "prompt": [f"{word}>" for word in chosen],
            "response": [noisy_reverse(word, rng) for word in chosen],
            "data_source": [SOURCE] * len(chosen),
        }
    )


def tables() -> dict[str, pa.Table]:
    """Every data file by name."""
    heldout = heldout_words()
    reserved = frozenset(heldout)
    sft_rng = random.Random(SFT_SEED)
    shown = draw(SFT_ROWS, rng=sft_rng, without=reserved)
    asked = draw(TRAIN_ROWS, rng=random.Random(TRAIN_SEED), without=reserved)
    return {
        "sft.parquet": demonstrations_table(shown, sft_rng),
        "train.parquet": prompts_table(asked),
        "heldout.parquet": prompts_table(heldout),
    }


def tokenizer() -> Tokenizer:
    """One token per character, ids in the order of VOCABULARY."""
    ids = {token: number for number, token in enumerate(VOCABULARY)}
    made = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens([PAD, EOS, UNKNOWN])
    return made


def write_all(folder: Path) -> None:
    """Write the data files to `folder` and the model's files to `folder/model`."""
    model = folder / "model"
    model.mkdir(parents=True, exist_ok=True)
    for name, table in tables().items():
        pq.write_table(table, folder / name, compression="zstd", compression_level=19, use_dictionary=["data_source"])
    for name, content in (("config.json", MODEL_CONFIG), ("tokenizer_config.json", TOKENIZER_CONFIG)):
        (model / name).write_text(json.dumps(content, indent=2) + "\n")
    tokenizer().save(str(model / "tokenizer.json"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--out", type=Path, default=here, help="folder to write to (default: the recipe's own)")
    folder = parser.parse_args().out
    write_all(folder)
    for path in sorted(path for path in folder.rglob("*") if path.suffix in {".parquet", ".json"}):
        print(f"{path.stat().st_size:>9,} B  {path}")


if __name__ == "__main__":
    main()
