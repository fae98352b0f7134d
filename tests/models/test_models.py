import json
import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config

from nexrl.config.schema import ModelConfig
from nexrl.errors import CheckpointError, ConfigError, DataError
from nexrl.models import export_hf, load_policy, load_tokenizer

CPU = torch.device("cpu")
LETTERS = "abcdefgh"


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def folder(request, tmp_path):
    """A config and a tokenizer, no weights."""
    made = tmp_path / "model"
    made.mkdir()
    sizes = {"vocab_size": 10, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "head_dim": 4}
    config = Qwen3Config(
        **sizes, num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=request.param, eos_token_id=1
    )
    (made / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["Qwen3ForCausalLM"]}))
    vocabulary = {"<pad>": 0, "<eos>": 1} | {letter: index + 2 for index, letter in enumerate(LETTERS)}
    tokenizer = {
        "version": "1.0",
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<pad>"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": False},
        "decoder": {"type": "Fuse"},
        "added_tokens": [],
    }
    (made / "tokenizer.json").write_text(json.dumps(tokenizer))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>"}
    (made / "tokenizer_config.json").write_text(json.dumps(names))
    return made


def random_model(folder, *, seed=3, dtype="float32"):
    return load_policy(ModelConfig(path=str(folder), init="random", dtype=dtype), seed=seed, device=CPU)


def state(model):
    return dict(model.named_parameters())


def equal(model, other):
    return all(torch.equal(tensor, state(other)[name]) for name, tensor in state(model).items())


def test_random_weights_depend_on_the_seed_alone(folder):
    torch.manual_seed(1)
    first = random_model(folder)
    before = torch.get_rng_state()
    second = random_model(folder)
    assert torch.equal(before, torch.get_rng_state())
    assert equal(first, second)
    assert not equal(first, random_model(folder, seed=4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parameters_have_the_configured_dtype(folder, dtype):
    assert {str(tensor.dtype) for tensor in random_model(folder, dtype=dtype).parameters()} == {f"torch.{dtype}"}


def test_export_loads_in_transformers_with_equal_logits(folder, tmp_path):
    model = random_model(folder)
    export_hf(state(model), folder, tmp_path / "hf")
    ids = torch.tensor([[2, 3, 4]])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
    ours = load_policy(ModelConfig(path=str(tmp_path / "hf")), seed=0, device=CPU)
    assert equal(ours, model)
    assert load_tokenizer(tmp_path / "hf").encode("abc", add_special_tokens=False) == [2, 3, 4]
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["dtype"] == "float32"


def test_tied_weights_are_written_once(folder, tmp_path):
    model = random_model(folder)
    export_hf(state(model), folder, tmp_path / "hf")
    written = load_file(tmp_path / "hf" / "model.safetensors")
    assert ("lm_head.weight" in written) is not model.config.tie_word_embeddings
    assert sum(tensor.numel() for tensor in written.values()) == sum(tensor.numel() for tensor in model.parameters())


def test_export_replaces_an_earlier_one_and_leaves_nothing_beside_it(folder, tmp_path):
    for seed in (3, 4):
        export_hf(state(random_model(folder, seed=seed)), folder, tmp_path / "out" / "hf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hf"]
    kept = load_policy(ModelConfig(path=str(tmp_path / "out" / "hf")), seed=0, device=CPU)
    assert equal(kept, random_model(folder, seed=4))


def test_export_that_cannot_be_written_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"export to .*file/hf"):
        export_hf(state(random_model(folder)), folder, tmp_path / "file" / "hf")


def test_tokenizer_round_trip(folder):
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_token_id == 1
    assert tokenizer.decode(tokenizer.encode("hga", add_special_tokens=False)) == "hga"


def test_missing_parts_are_named(folder, tmp_path):
    pretrained = ModelConfig(path=str(folder))
    with pytest.raises(DataError, match=r"has no weights .*init: random"):
        load_policy(pretrained, seed=0, device=CPU)
    with pytest.raises(ConfigError, match=r"actor\.model\.path: found '.*nowhere'"):
        load_policy(ModelConfig(path=str(tmp_path / "nowhere")), seed=0, device=CPU)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"model: has no tokenizer"):
        load_tokenizer(folder)
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"model: has no config\.json"):
        load_policy(pretrained, seed=0, device=CPU)


@pytest.mark.parametrize("text", ["{", '{"model_type": "no-such-model"}', "[]"])
def test_broken_configs_are_named(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(DataError, match=r"model: cannot read config\.json"):
        random_model(folder)


def test_weights_that_do_not_fit_are_named(folder, tmp_path):
    model = random_model(folder)
    partial = {name: tensor for name, tensor in state(model).items() if "q_proj" not in name}
    export_hf(partial, folder, tmp_path / "partial")
    with pytest.raises(DataError, match=r"partial: its weights lack .*q_proj"):
        load_policy(ModelConfig(path=str(tmp_path / "partial")), seed=0, device=CPU)
    shutil.copytree(tmp_path / "partial", tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken: cannot be loaded"):
        load_policy(ModelConfig(path=str(tmp_path / "broken")), seed=0, device=CPU)
