"""Every sink takes the same records; each writes what its format can say."""

import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nexrl.config.schema import Recipe
from nexrl.errors import RunFolderError
from nexrl.metrics import (
    ConsoleSink,
    JsonLines,
    JsonlSink,
    MetricRecord,
    TensorBoardSink,
    WandbSink,
    create_sinks,
    read_json_lines,
)

ROOT = Path(__file__).parents[2]

RECIPE = msgspec.convert(
    {
        "experiment_name": "words",
        "data": {"data_files": ["words.jsonl"], "rollout_repeat_n": 2},
        "service": {
            "inference_service": {"max_model_len": 4096},
            "train_service": {"main_actor": {"actor": {"model": {"path": "model"}}}},
        },
        "rollout_worker": {"evaluator_args": {"api_key": "sk-very-secret"}},
        "logger": {"backend": ["console", "tensorboard"]},
    },
    Recipe,
)

STEP = MetricRecord(
    step=3,
    time=1700000000.5,
    values={
        "rollout/reward_mean": 0.4375,
        "staleness/max": 0.0,
        "throughput/tokens_per_s": 1671.4,
        "progress/eta_s": 80.0,
        "actor/grad_norm": math.nan,
        "actor/lr": math.inf,
    },
)
VALIDATION = MetricRecord(step=3, time=1700000001.0, kind="validation", values={"val/greedy_reward": 0.75})


@pytest.fixture(params=["jsonl", "console", "tensorboard"])
def sink(request, tmp_path):
    match request.param:
        case "jsonl":
            return JsonlSink(tmp_path / "metrics.jsonl")
        case "console":
            return ConsoleSink(300)
        case _:
            return TensorBoardSink(tmp_path)


def test_every_sink_takes_nonfinite_figures_and_validations_and_closes(sink):
    sink.write(STEP)
    sink.write(VALIDATION)
    sink.close()


def test_jsonl_has_one_readable_line_per_step_while_it_is_open(tmp_path):
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    sink.write(STEP)
    sink.write(VALIDATION)
    text = (tmp_path / "metrics.jsonl").read_text()
    sink.close()
    assert json.loads(text) == {
        "step": 3,
        "t": 1700000000.5,
        "rollout/reward_mean": 0.4375,
        "staleness/max": 0.0,
        "throughput/tokens_per_s": 1671.4,
        "progress/eta_s": 80.0,
        "actor/grad_norm": None,
        "actor/lr": None,
    }


def test_console_line(caplog):
    caplog.set_level(logging.INFO)
    ConsoleSink(300).write(STEP)
    ConsoleSink(300).write(MetricRecord(step=4, time=0.0))
    ConsoleSink(300).write(VALIDATION)
    assert [record.getMessage() for record in caplog.records] == [
        "step 3/300  reward 0.438  staleness 0  1,671 tok/s  eta 1m 20s",
        "step 4/300",
        "validation after step 3  val/greedy_reward 0.750",
    ]


def test_tensorboard_reads_back_the_finite_figures(tmp_path):
    sink = TensorBoardSink(tmp_path)
    sink.write(STEP)
    sink.write(VALIDATION)
    sink.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert "actor/grad_norm" not in events.Tags()["tensors"]
    for name, value in (("rollout/reward_mean", 0.4375), ("val/greedy_reward", 0.75)):
        (event,) = events.Tensors(name)
        assert event.step == 3
        assert event.tensor_proto.float_val[0] == value


def test_metrics_load_no_torch(tmp_path):
    code = f"import sys; from nexrl.metrics import *; TensorBoardSink({str(tmp_path)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_wandb_without_a_key_keeps_the_run_offline_and_masks_secrets(tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    run_dir = tmp_path / "run-7"
    run_dir.mkdir()
    sink = WandbSink(RECIPE, run_dir)
    sink.write(STEP)
    sink.close()
    (recorded,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
    content = recorded.read_bytes()
    assert b"rollout/reward_mean" in content
    assert b"words.jsonl" in content
    assert b"sk-very-secret" not in content


def test_create_sinks_follows_logger_backend(tmp_path):
    sinks = create_sinks(RECIPE, tmp_path)
    for sink in sinks:
        sink.write(STEP)
        sink.close()
    assert [type(sink) for sink in sinks] == [JsonlSink, ConsoleSink, TensorBoardSink]
    assert len(list(read_json_lines(tmp_path / "metrics.jsonl"))) == 1


def test_a_line_torn_by_a_kill_is_cut_off_on_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": 2, "rollo')
    assert list(read_json_lines(path)) == [{"step": 1}]
    lines = JsonLines(path)
    lines.append({"step": 2})
    lines.close()
    assert list(read_json_lines(path)) == [{"step": 1}, {"step": 2}]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"a": 1}\nnonsense\n')
    with pytest.raises(RunFolderError, match=r"events\.jsonl, line 2"):
        list(read_json_lines(path))


def test_a_missing_file_has_no_lines(tmp_path):
    assert list(read_json_lines(tmp_path / "metrics.jsonl")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_with_the_file(tmp_path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    sink = JsonlSink(tmp_path / "metrics.jsonl")
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl: No space left"):
        sink.write(STEP)
    sink.close()


@pytest.mark.parametrize("name", ["reward", "Rollout/reward", "rollout/", "/reward", "rollout/a b", ""])
def test_a_metric_without_group_and_name_is_refused(name):
    with pytest.raises(ValueError, match="group/name"):
        MetricRecord(step=1, time=0.0, values={name: 1.0})


@pytest.mark.parametrize("name", ["rollout/reward_mean", "timing/training/update_actor", "val/openai/gsm8k_reward"])
def test_the_seeds_names_are_metric_names(name):
    assert MetricRecord(step=1, time=0.0, values={name: 1.0}).values == {name: 1.0}


def test_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match=r"cannot write .*metrics\.jsonl"):
        JsonLines(tmp_path / "file" / "metrics.jsonl")
