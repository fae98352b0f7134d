"""The reverse recipes: data that regenerates, a model folder that loads, settings that fit them."""

import importlib.util
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nexrl.config import load_recipe

FOLDER = Path(__file__).parents[2] / "recipes" / "reverse"
DATA_FILES = ("heldout.parquet", "sft.parquet", "train.parquet")


@pytest.fixture(scope="module")
def make_data():
    spec = importlib.util.spec_from_file_location("make_data", FOLDER / "make_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def remade(make_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("remade")
    make_data.write_all(folder)
    return folder


def rows(name):
    return pq.read_table(FOLDER / name).to_pylist()


@pytest.mark.parametrize("name", DATA_FILES)
def test_data_regenerates(remade, name):
    assert pq.read_table(remade / name).equals(pq.read_table(FOLDER / name))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
def test_model_folder_regenerates(remade, name):
    assert (remade / "model" / name).read_text() == (FOLDER / "model" / name).read_text()


@pytest.mark.parametrize("name", ["train.parquet", "heldout.parquet"])
def test_answers_are_the_words_reversed(name):
    for row in rows(name):
        assert 4 <= len(row["ground_truth"]) <= 8
        assert row == {
            "prompt": row["ground_truth"][::-1] + ">",
            "ground_truth": row["ground_truth"],
            "data_source": "reverse",
        }


def test_demonstrations_are_wrong_in_every_fifth_letter():
    shown = rows("sft.parquet")
    letters = [
        (given, right) for row in shown for given, right in zip(row["response"], row["prompt"][-2::-1], strict=True)
    ]
    wrong = sum(given != right for given, right in letters) / len(letters)
    assert wrong == pytest.approx(0.2 * 25 / 26, abs=0.005)  # a random letter is the right one once in 26


def test_heldout_words_are_in_no_training_file():
    heldout = {row["prompt"] for row in rows("heldout.parquet")}
    assert heldout.isdisjoint(row["prompt"] for name in ("train.parquet", "sft.parquet") for row in rows(name))


def test_first_heldout_words():
    """Figures of other programs on this task compare only while these words stay."""
    assert [row["prompt"] for row in rows("heldout.parquet")[:3]] == ["mgtfhhe>", "ixmq>", "ctpgnxts>"]


def test_recipe_folder_stays_small():
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) < 1_000_000


def test_tokenizer_has_one_token_per_character_and_ends_with_eos():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "model")
    ids = tokenizer("abz>")["input_ids"]
    assert ids == [4, 5, 29, 3]
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "abz>"
    assert (len(tokenizer), tokenizer.pad_token_id, tokenizer.eos_token_id) == (43, 0, 1)


def test_model_has_its_size():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(FOLDER / "model"))
    assert sum(parameter.numel() for parameter in model.parameters()) == 793_344


def test_sft_recipe_sees_every_row_once():
    recipe = load_recipe(FOLDER / "sft.yaml").recipe
    assert not recipe.rollout_worker.need_llm_inference
    assert recipe.data.batch_size * recipe.trainer.total_train_steps == len(rows("sft.parquet"))


def test_grpo_recipe_fits_its_data_and_its_engine():
    recipe = load_recipe(FOLDER / "grpo.yaml").recipe
    assert Path(recipe.initial_stage.recipe) == FOLDER / "sft.yaml"
    assert recipe.data.batch_size * recipe.trainer.total_train_steps <= len(rows("train.parquet"))
    assert recipe.data.batch_size * recipe.group_size == recipe.service.inference_service.max_num_seqs
    longest = max(len(row["prompt"]) for row in rows("train.parquet") + rows("heldout.parquet"))
    assert longest <= recipe.data.max_prompt_length
    assert {how.temperature for how in recipe.validate.sampling.values()} == {0.0, 1.0}
