"""A small recipe that passes every check, and files for it."""

import textwrap
from pathlib import Path

RECIPE = """\
experiment_name: small
data:
  data_files: [train.jsonl]
  batch_size: 8
  rollout_repeat_n: 4
  max_prompt_length: 16
  max_response_length: 16
rollout_worker:
  temperature: 1.0
  evaluator: exact_match
trainer:
  total_train_steps: 20
service:
  inference_service:
    max_tokens: ${data.max_response_length}
    max_model_len: 64
  train_service:
    main_actor:
      actor:
        model: {path: model}
        optim:
          lr: 2e-6
"""


def write_recipe(folder: Path, text: str = RECIPE, name: str = "small.yaml") -> Path:
    """The recipe with data file and model folder beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text('{"prompt": "ab", "ground_truth": "ba"}\n')
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "model.safetensors").write_bytes(b"weights")
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def changed(old: str, new: str) -> str:
    """RECIPE with one piece replaced."""
    assert old in RECIPE
    return RECIPE.replace(old, new)
