"""What a recipe can get wrong: one message with the key, what to write, and the place."""

import pytest
from recipe_parts import RECIPE, changed, write_recipe

from nexrl.config import load_recipe
from nexrl.errors import ConfigError

ACTOR = "service.train_service.main_actor"

# (piece of RECIPE, what replaces it, key, what the message must say, line)
IN_FILE = [
    ("  batch_size: 8", "  batch_sise: 8", "data.batch_sise", "did you mean batch_size?", 4),
    ("trainer:", "trainr:", "trainr", "did you mean trainer?", 11),
    ("experiment_name: small", "experiment_name: small\nlr: 1", "lr", f"{ACTOR[:-10]}*.actor.optim.lr", 2),
    ("experiment_name: small", "experiment_name: small\nzzz: 1", "zzz", "this section has project_name", 2),
    ("        optim:", "        optimm:", f"{ACTOR}.actor.optimm", "did you mean optim?", 21),
    ("batch_size: 8", "batch_size: '8'", "data.batch_size", "found '8' (text), needs a whole number", 4),
    ("batch_size: 8", "batch_size: 8.0", "data.batch_size", "found 8.0, needs a whole number", 4),
    ("batch_size: 8", "batch_size: true", "data.batch_size", "found true, needs a whole number", 4),
    ("batch_size: 8", "batch_size:", "data.batch_size", "found nothing, needs a whole number", 4),
    ("batch_size: 8", "batch_size: [8]", "data.batch_size", "found a list of 1, needs a whole number", 4),
    ("batch_size: 8", "batch_size: 0", "data.batch_size", "found 0, needs at least 1", 4),
    ("batch_size: 8", "batch_size: 8\n  batch_size: 9", "data.batch_size", "written twice, first in line 4", 5),
    ("lr: 2e-6", "lr: fast", f"{ACTOR}.actor.optim.lr", "found 'fast' (text), needs a number", 22),
    ("lr: 2e-6", "lr: false", f"{ACTOR}.actor.optim.lr", "found false, needs a number", 22),
    ("lr: 2e-6", "lr: .nan", f"{ACTOR}.actor.optim.lr", "needs a finite number", 22),
    ("lr: 2e-6", "lr: -1", f"{ACTOR}.actor.optim.lr", "needs above 0", 22),
    ("lr: 2e-6", "betas: [0.9]", f"{ACTOR}.actor.optim.betas", "found a list of 1, needs a list of 2", 22),
    ("lr: 2e-6", "betas: [0.9, x]", f"{ACTOR}.actor.optim.betas[1]", "needs a number", 22),
    ("[train.jsonl]", "train.jsonl", "data.data_files", "found 'train.jsonl' (text), needs a list", 3),
    ("[train.jsonl]", "[]", "data.data_files", "needs at least one file", 3),
    ("[train.jsonl]", "[train.jsonl, 3]", "data.data_files[1]", "found 3, needs text", 3),
    ("[train.jsonl]", "\n  - train.jsonl\n  - gone.jsonl", "data.data_files[1]", "gone.jsonl", 5),
    ("[train.jsonl]", "[train.txt]", "data.data_files[0]", "ends in .parquet, .jsonl, .csv", 3),
    ("experiment_name: small", "experiment_name: 7", "experiment_name", "needs text: put it in quotes", 1),
    ("experiment_name: small", "experiment_name: ../up", "experiment_name", "a folder's name", 1),
    ("experiment_name: small", 'experiment_name: "a\\0b"', "experiment_name", "printable", 1),
    ("experiment_name: small", 'experiment_name: "a\\nb"', "experiment_name", "printable", 1),
    ("experiment_name: small", f"experiment_name: {'é' * 101}", "experiment_name", "at most 200 bytes", 1),
    ("experiment_name: small", "experiment_name: ???", "experiment_name", "issing", 1),
    ("experiment_name: small", "project_name: p", "experiment_name", "missing, needs text", None),
    ("  temperature: 1.0", "  temperature: 1.0\n  type: simpel", "rollout_worker.type", "did you mean simple?", 10),
    ("  temperature: 1.0", "  temperature: 0.0", "rollout_worker.temperature", "compares the samples of a prompt", 9),
    ("  temperature: 1.0", "  stop: ['a', '']", "rollout_worker.stop", "not empty", 9),
    ("  temperature: 1.0", "  max_turns: 3", "rollout_worker.max_turns", "type: agent", 9),
    ("  temperature: 1.0", "  agent_args: {a: 1}", "rollout_worker.agent_args", "type: agent", 9),
    ("  temperature: 1.0", "  response_key: answer", "rollout_worker.response_key", "type: supervised", 9),
    ("  rollout_repeat_n: 4", "  rollout_repeat_n: 1", "data.rollout_repeat_n", "needs at least 2 with", 5),
    ("trainer:", "trajectory_pool: {key_list: []}\ntrainer:", "trajectory_pool.key_list", "needs [group_id]", 11),
    ("lr: 2e-6", "betas: [0.9, 1]", f"{ACTOR}.actor.optim.betas", "below 1", 22),
    ("lr: 2e-6", "eps: 0", f"{ACTOR}.actor.optim.eps", "needs above 0", 22),
    ("lr: 2e-6", "weight_decay: -0.1", f"{ACTOR}.actor.optim.weight_decay", "needs 0 or more", 22),
    ("lr: 2e-6", "lr_warmup_steps: -1", f"{ACTOR}.actor.optim.lr_warmup_steps", "needs 0 or more", 22),
    ("optim:", "max_nonfinite_steps: -1\n        optim:", f"{ACTOR}.actor.max_nonfinite_steps", "or more", 21),
    ("trainer:", "weight: {bucket_mb: 0.0001}\ntrainer:", "weight.bucket_mb", "at least 0.001 MiB", 11),
    ("trainer:", "algorithm: {kl_loss_coef: 0.1}\ntrainer:", "algorithm.kl_loss_coef", "use_kl_loss: true", 11),
    ("trainer:", "algorithm: {kl_ctrl: {type: adaptive}}\ntrainer:", "algorithm.kl_ctrl.type", "use_kl_loss: true", 11),
    ("trainer:", "launch: {groups: {rollout: {tasks: 513}}}\ntrainer:", "launch.groups.rollout.tasks", "1 to 512", 11),
    (
        "trainer:",
        "launch_mode: local\nlaunch: {groups: {inference: {threads: 2}}}\ntrainer:",
        "launch.groups.inference.threads",
        "0 with launch_mode: local",
        12,
    ),
    ("trainer:", "validate: {data: {batch_size: 4}}\ntrainer:", "validate.data.batch_size", "leave it out", 11),
    ("trainer:", "validate: {data: {rollout_repeat_n: 4}}\ntrainer:", "validate.data.rollout_repeat_n", "repeat_n", 11),
    ("trainer:", "validate: {data: {data_files: []}}\ntrainer:", "validate.data.data_files", "at least one file", 11),
    (
        "trainer:",
        "validate: {sampling: {a: {top_k: -1}}}\ntrainer:",
        "validate.sampling.a.top_k",
        "0 (off) or more",
        11,
    ),
    ("  temperature: 1.0", "  temperature: -1", "rollout_worker.temperature", "needs 0 or more", 9),
    ("  temperature: 1.0", "  type: nexau", "rollout_worker.type", "write agent", 9),
    ("exact_match", "exact_mach", "rollout_worker.evaluator", "found 'exact_mach', needs one of exact_match", 10),
    ("exact_match", "gone.py:Mine", "rollout_worker.evaluator", "no such file", 10),
    ("exact_match", "train.jsonl", "rollout_worker.evaluator", "path/to/file.py:Name", 10),
    ("evaluator: exact_match", "custom_class: mine.py", "rollout_worker.custom_class", "path/to/file.py:Name", 10),
    ("evaluator: exact_match", "evaluator_args: [1]", "rollout_worker.evaluator_args", "needs a mapping", 10),
    ("evaluator: exact_match", "evaluator_args: {1: 2}", "rollout_worker.evaluator_args", "the name 1, needs text", 10),
    (
        "evaluator: exact_match",
        "evaluator_args: {api_key: sk-123}",
        "rollout_worker.evaluator_args.api_key",
        "write ${oc.env:NAME}",
        10,
    ),
    ("evaluator: exact_match", "num_workers: 4", "rollout_worker.num_workers", "launch.groups.rollout.tasks", 10),
    ("${data.max_response_length}", "17", "service.inference_service.max_tokens", "data.max_response_length = 16", 15),
    ("${data.max_response_length}", "${data.gone}", "service.inference_service.max_tokens", "'data.gone'", 15),
    ("${data.max_response_length}", "${oc.env:NEXRL_NOT_SET}", "service.inference_service.max_tokens", "NOT_SET", 15),
    ("${data.max_response_length}", "${", "service.inference_service.max_tokens", "needs an interpolation", 15),
    ("max_model_len: 64", "max_model_len: 31", "service.inference_service.max_model_len", "at least", 16),
    ("max_model_len: 64", "backend: vllm", "service.inference_service.backend", "write embedded", 16),
    ("max_model_len: 64", "model_tag: a", "service.inference_service.model_tag", "write identifier", 16),
    ("      actor:", "      role: critic\n      actor:", f"{ACTOR}.role", "needs actor", 19),
    ("      actor:", "      backend: direct-zmq\n      actor:", f"{ACTOR}.backend", "zmq", 19),
    ("      actor:", "      resource: {gpus: 1}\n      actor:", f"{ACTOR}.resource", "launch.groups", 19),
    ("{path: model}", "{path: gone}", f"{ACTOR}.actor.model.path", "no such folder", 20),
    ("{path: model}", "{path: .}", f"{ACTOR}.actor.model.path", "no config.json", 20),
    ("{path: model}", "{init: random}", f"{ACTOR}.actor.model.path", "a model folder", 20),
    ("{path: model}", "model", f"{ACTOR}.actor.model", "needs a mapping of keys", 20),
    ("    main_actor:", "    3:", "service.train_service", "put it in quotes", 17),
    ("trainer:", "launch_mode: ray\ntrainer:", "launch_mode", "write processes", 11),
    ("trainer:", "launch_mode: slurm\ntrainer:", "launch_mode", "write processes", 11),
    ("trainer:", "weight: {sync_mode: fully-async}\ntrainer:", "weight.sync_mode", "write sync", 11),
    ("trainer:", "weight: {sync_method: disk}\ntrainer:", "weight.sync_method", "write broadcast", 11),
    ("trainer:", "validate:\ntrainer:", "validate", "found nothing, needs a mapping", 11),
    ("trainer:", "initial_stage: {recipe: gone.yaml}\ntrainer:", f"{ACTOR}.actor.model.path", "initial_stage", 21),
    ("trainer:", "resume: {mode: from_path}\ntrainer:", "resume.resume_path", "a folder with mode: from_path", 11),
    (
        "trainer:",
        "resume: {mode: from_path, resume_path: gone}\ntrainer:",
        "resume.resume_path",
        "no such checkpoint folder",
        11,
    ),
    ("trainer:", "launch: {groups: {trainer: {tasks: 99}}}\ntrainer:", "launch.groups.trainer.tasks", "at most 32", 11),
    ("trainer:", "logger: {backend: [console, mlflow]}\ntrainer:", "logger.backend[1]", "write console", 11),
    ("  total_train_steps: 20", "  type: remote_api_grpo", "trainer.type", "remote API", 12),
    ("  total_train_steps: 20", "  checkpoint_path: x", "trainer.checkpoint_path", "run folder", 12),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "key", "says", "line"), IN_FILE, ids=[f"{row[2]}-{n}" for n, row in enumerate(IN_FILE)]
)
def test_message_names_key_and_line(tmp_path, monkeypatch, old, new, key, says, line):
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, changed(old, new))
    with pytest.raises(ConfigError) as caught:
        load_recipe("small.yaml")
    message = str(caught.value)
    place = "(small.yaml)" if line is None else f"small.yaml:{line})"
    assert message.startswith(f"{key}: ")
    assert says in message
    assert place in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("override", "key", "says"),
    [
        ("data.batch_size=0", "data.batch_size", "needs at least 1"),
        ("data.batch_siz=4", "data.batch_siz", "did you mean batch_size?"),
        ("+data.batch_size=4", "+data", "did you mean data?"),
        ("trainer=4", "trainer", "needs a mapping of keys"),
        ("data.batch_size=[", "data.batch_size", "command line"),
        ("launch_mode=ray", "launch_mode", "write processes"),
        ("data.data_files=[gone.csv]", "data.data_files[0]", "gone.csv"),
        ("launch.stop_timeout=0", "launch.stop_timeout", "seconds above 0"),
        ("validate.sampling={greedy: {top_p: 2}}", "validate.sampling.greedy.top_p", "top_p <= 1"),
        ("validate.sampling={}", "validate.sampling", "at least one named way"),
        ("trainer={save_freq: -1}", "trainer.save_freq", "0 (off) or more"),
    ],
)
def test_override_is_named_as_the_place(tmp_path, override, key, says):
    path = write_recipe(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, [override])
    message = str(caught.value)
    assert message.startswith(f"{key}: ")
    assert says in message
    assert f"command line: {override}" in message


@pytest.mark.parametrize("text", ["trainer.total_train_steps", "=3", "--steps=3", ".a=3"])
def test_override_without_key_or_value(tmp_path, text):
    with pytest.raises(ConfigError, match="needs key=value"):
        load_recipe(write_recipe(tmp_path), [text])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1, 2", "not YAML: .*:1"),
        ("- a\n- b\n", "found a list, needs a mapping of keys .*small.yaml:1"),
        ("", "found nothing, needs a mapping of keys"),
        ("just words", "found a single value, needs a mapping of keys"),
        ("a: &x [*x]\n", "contains itself .*small.yaml:1"),
        ("defaults: [gone, _self_]\n" + RECIPE, "defaults: cannot be composed: .*gone.*small.yaml"),
    ],
)
def test_file_that_is_no_recipe(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        load_recipe(write_recipe(tmp_path, text))


def test_missing_or_misnamed_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no such recipe: .*gone\.yaml"):
        load_recipe(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match=r"a recipe's name ends in \.yaml"):
        load_recipe(write_recipe(tmp_path, name="small.yml"))


def test_model_folder_without_weights(tmp_path):
    path = write_recipe(tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"model\.path: .*holds no weights.*small\.yaml:20"):
        load_recipe(path)
    random = load_recipe(path, ["service.train_service.main_actor.actor.model.init=random"])
    assert random.recipe.service.actor_service.actor.model.init == "random"


@pytest.mark.parametrize("limit", ["service.inference_service.max_model_len", "rollout_worker.max_sequence_length"])
def test_held_out_prompts_must_fit_too(tmp_path, limit):
    held_out = "validate.data={data_files: [train.jsonl], max_prompt_length: 30, max_response_length: 20}"
    path = write_recipe(tmp_path)
    assert load_recipe(path, [held_out, f"{limit}=50"]).recipe.validate.data.max_prompt_length == 30
    with pytest.raises(ConfigError, match=rf"{limit}: found 49, .* validate\.data\.max_response_length = 50"):
        load_recipe(path, [held_out, f"{limit}=49"])


def test_incomplete_checkpoint(tmp_path):
    (tmp_path / "step_000100").mkdir()
    resume = f"resume={{mode: from_path, resume_path: {tmp_path}/step_000100}}"
    with pytest.raises(ConfigError, match=r"resume\.resume_path: incomplete checkpoint"):
        load_recipe(write_recipe(tmp_path), [resume])
