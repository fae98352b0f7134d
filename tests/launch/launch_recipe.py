"""A small recipe with its files, for launcher tests."""

from pathlib import Path

from nexrl.config import LoadedRecipe, Recipe, load_recipe

TEXT = """\
experiment_name: small
data: {data_files: [train.jsonl], batch_size: 8, rollout_repeat_n: 2, max_prompt_length: 8, max_response_length: 8}
service:
  inference_service: {max_tokens: 8, max_model_len: 16}
  train_service: {main_actor: {actor: {model: {path: model}}}}
"""
STAGED = """\
experiment_name: main
initial_stage: {recipe: small.yaml}
data: {data_files: [train.jsonl], batch_size: 8, rollout_repeat_n: 2, max_prompt_length: 8, max_response_length: 8}
service: {inference_service: {max_tokens: 8, max_model_len: 16}}
"""


def write_files(folder: Path) -> Path:
    """`small.yaml`, `main.yaml` that has it as its stage, a data file and a model folder; the path of the first."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    (folder / "train.jsonl").write_text('{"prompt": "ab", "ground_truth": "ba"}\n')
    (folder / "main.yaml").write_text(STAGED)
    (folder / "small.yaml").write_text(TEXT)
    return folder / "small.yaml"


def small_loaded(folder: Path, *overrides: str) -> LoadedRecipe:
    """The small recipe, its run folders below `folder`."""
    path = folder / "small.yaml"
    if not path.exists():
        write_files(folder)
    return load_recipe(path, [f"launch.run_root={folder}/runs", *overrides])


def small_recipe(folder: Path, *overrides: str) -> Recipe:
    """The recipe alone."""
    return small_loaded(folder, *overrides).recipe
