"""A starting model for whole-run tests."""

import shutil

import pytest
import torch
from e2e_runs import ROOT
from transformers import AutoConfig, AutoModelForCausalLM

FILES = ROOT / "recipes" / "reverse" / "model"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """A random Qwen3 of 30 thousand parameters with the letters' tokenizer."""
    folder = tmp_path_factory.mktemp("model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(FILES / name, folder)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = AutoConfig.from_pretrained(FILES, **sizes, num_key_value_heads=1, head_dim=16)
    config.layer_types = config.layer_types[:2]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
