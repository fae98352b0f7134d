import subprocess
import sys

import pytest
from recipe_parts import RECIPE, changed, write_recipe

from nexrl.config import dump_recipe, load_recipe, read_resolved
from nexrl.errors import ConfigError


def test_values_defaults_and_types(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path)).recipe
    optim = recipe.service.actor_service.actor.optim
    assert (recipe.data.batch_size, recipe.data.seed, recipe.trainer.type) == (8, 42, "self_hosted_grpo")
    assert (optim.lr, type(optim.lr)) == (2e-6, float)
    assert optim.betas == (0.9, 0.999)


def test_interpolation_of_keys_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("WHO", "mine")
    path = write_recipe(tmp_path, changed("experiment_name: small", "experiment_name: ${oc.env:WHO}-run"))
    recipe = load_recipe(path, ["data.max_response_length=20"]).recipe
    assert recipe.experiment_name == "mine-run"
    assert recipe.service.inference_service.max_tokens == 20


def test_overrides_replace_and_add(tmp_path):
    text = ["trainer.total_train_steps=3", "launch.groups.trainer.tasks=2", "data.shuffle=true", "logger.backend=[]"]
    loaded = load_recipe(write_recipe(tmp_path), text)
    recipe = loaded.recipe
    assert recipe.trainer.total_train_steps == 3
    assert recipe.launch.groups.trainer.tasks == 2
    assert recipe.data.shuffle is True
    assert recipe.logger.backend == ()
    again = loaded.overridden("trainer.total_train_steps=4", "project_name=")
    assert (again.recipe.trainer.total_train_steps, again.recipe.project_name) == (4, "")
    assert again.recipe.data.shuffle is True


def test_mapping_of_an_override_replaces(tmp_path):
    path = write_recipe(tmp_path, RECIPE + "validate: {sampling: {sampled: {}, greedy: {temperature: 0.0}}}\n")
    assert list(load_recipe(path, ["validate.sampling={other: {top_k: 3}}"]).recipe.validate.sampling) == ["other"]
    assert list(load_recipe(path, ["validate.sampling.other={top_k: 3}"]).recipe.validate.sampling) == [
        "sampled",
        "greedy",
        "other",
    ]


def test_keys_that_a_class_of_ones_own_may_read(tmp_path):
    (tmp_path / "mine.py").write_text("")
    worker = "rollout_worker={custom_class: 'mine.py:Mine', max_turns: 2, response_key: answer, temperature: 0}"
    trainer = "trainer={custom_class: 'mine.py:Mine'}"
    recipe = load_recipe(write_recipe(tmp_path), [worker, trainer, "data.rollout_repeat_n=1"]).recipe
    assert (recipe.rollout_worker.max_turns, recipe.rollout_worker.temperature, recipe.group_size) == (2, 0.0, 1)


def test_paths_are_relative_to_the_recipe(tmp_path, monkeypatch):
    (tmp_path / "rewards.py").write_text("")
    text = changed("evaluator: exact_match", "evaluator: ../rewards.py:Mine")
    path = write_recipe(tmp_path / "recipes", text)
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("recipes/small.yaml").recipe
    assert recipe.data.data_files == (str(path.parent / "train.jsonl"),)
    assert recipe.service.actor_service.actor.model.path == str(path.parent / "model")
    assert recipe.rollout_worker.evaluator == f"{tmp_path}/rewards.py:Mine"


def test_paths_of_every_kind_become_absolute(tmp_path):
    (tmp_path / "mine.py").write_text("")
    path = write_recipe(tmp_path)
    recipe = load_recipe(
        path,
        [
            "data.custom_class=mine.py:Loader",
            "rollout_worker.custom_class=mine.py:Worker",
            "rollout_worker.agent_args.tools=mine.py:tools",
            "trainer.custom_class=mine.py:Trainer",
            "service.inference_service.model_path=model",
            "validate.data={data_files: [train.jsonl], max_prompt_length: 16, max_response_length: 16}",
            "validate.data.custom_class=mine.py:Loader",
        ],
    ).recipe
    mine = f"{tmp_path}/mine.py"
    assert recipe.data.custom_class == f"{mine}:Loader"
    assert recipe.rollout_worker.custom_class == f"{mine}:Worker"
    assert recipe.rollout_worker.agent_args == {"tools": f"{mine}:tools"}
    assert recipe.trainer.custom_class == f"{mine}:Trainer"
    assert recipe.service.inference_service.model_path == f"{tmp_path}/model"
    assert recipe.validate.data.data_files == (f"{tmp_path}/train.jsonl",)
    assert recipe.validate.data.custom_class == f"{mine}:Loader"


def test_defaults_list_composes_bases(tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "long.yaml").write_text(
        "# @package _global_\ntrainer:\n  total_train_steps: 900\n  save_freq: 7\n"
    )
    (tmp_path / "common.yaml").write_text("project_name: common\ntrainer:\n  total_train_steps: 5\n")
    path = write_recipe(tmp_path, "defaults: [common, base/long, _self_]\n" + RECIPE)
    recipe = load_recipe(path).recipe
    assert (recipe.project_name, recipe.trainer.save_freq, recipe.trainer.total_train_steps) == ("common", 7, 20)


def test_error_in_a_base_names_the_base(tmp_path):
    (tmp_path / "common.yaml").write_text("project_name: common\ntrainer:\n  save_freqq: 5\n")
    path = write_recipe(tmp_path, "defaults: [common, _self_]\n" + RECIPE)
    with pytest.raises(ConfigError, match=r"trainer\.save_freqq: .*save_freq\?.*common\.yaml:3"):
        load_recipe(path)


def test_dump_and_read_are_inverse(tmp_path):
    recipe = load_recipe(write_recipe(tmp_path), ["rollout_worker.evaluator_args={a: [1, 2.5], b: null}"]).recipe
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe))
    assert read_resolved(tmp_path / "resolved.yaml") == recipe
    assert load_recipe(tmp_path / "resolved.yaml").recipe == recipe


def test_secrets_stay_references_until_a_role_reads_them(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "hush")
    args = "rollout_worker.evaluator_args={judge: {api_key: '${oc.env:JUDGE_KEY}', max_tokens: 3}}"
    recipe = load_recipe(write_recipe(tmp_path), [args]).recipe
    text = dump_recipe(recipe)
    assert "hush" not in text
    assert "hush" not in repr(recipe)
    (tmp_path / "resolved.yaml").write_text(text)
    filled = read_resolved(tmp_path / "resolved.yaml")
    assert filled.rollout_worker.evaluator_args == {"judge": {"api_key": "hush", "max_tokens": 3}}
    assert "hush" not in dump_recipe(filled)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ConfigError, match=r"api_key: environment variable JUDGE_KEY is not set"):
        read_resolved(tmp_path / "resolved.yaml")


def test_read_resolved_names_missing_and_broken_files(tmp_path):
    with pytest.raises(ConfigError, match=r"no such recipe: .*gone\.yaml"):
        read_resolved(tmp_path / "gone.yaml")
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"not YAML.*broken\.yaml"):
        read_resolved(tmp_path / "broken.yaml")


def test_loading_imports_no_torch(tmp_path):
    program = (
        "import sys, launch.submit, nexrl.config as c; c.load_recipe(sys.argv[1]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program, str(write_recipe(tmp_path))], check=True)
