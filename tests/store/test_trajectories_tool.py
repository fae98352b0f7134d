"""The command line `python -m tools.trajectories`, and the rules that `check` applies."""

import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from store_samples import WRITER, trajectory

from nexrl.store import TrajectoryWriter, trajectory_path
from nexrl.store.check import findings
from nexrl.types import Turn, VersionSpan

ROOT = Path(__file__).parents[2]


def tool(*arguments):
    command = [sys.executable, "-m", "tools.trajectories", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def write(folder, items, *, node="n0", attempt=0):
    path = trajectory_path(folder, node=node, attempt=attempt)
    with TrajectoryWriter(path, **(WRITER | {"node": node, "attempt": attempt})) as writer:
        writer.append(items)
    return path


def with_header(item, **fields):
    return msgspec.structs.replace(item, header=msgspec.structs.replace(item.header, **fields))


@pytest.fixture
def run(tmp_path):
    rewards = (0.0, 0.25, 1.0, 0.5)
    write(tmp_path, [trajectory(i, reward=reward) for i, reward in enumerate(rewards)])
    write(tmp_path, [trajectory(9, reward=0.75, is_val=True, finish_reason="length", version=5)], attempt=1)
    return tmp_path


def test_info_tells_files_rewards_reasons_and_versions(run):
    done = tool("info", run)
    assert (done.returncode, done.stderr) == (0, "")
    for words in ("n0.0.h5", "n0.1.h5", "closed", "0.4375", "0.7500", "length", "20.0 %", "No training step"):
        assert words in done.stdout


def test_info_on_a_run_that_has_nothing_yet(tmp_path):
    done = tool("info", tmp_path)
    assert done.returncode == 0
    assert "No trajectory was committed yet" in done.stdout


def test_show_picks_worst_best_and_by_id(run):
    worst, best = tool("show", run, "--worst"), tool("show", run, "--best")
    assert "0:0/0.0.0" in worst.stdout
    assert "reward: 0 (exact 1, format 0.5)" in worst.stdout
    assert "0:0/2.0.0" in best.stdout
    assert "weight versions: 4:12 v3" in best.stdout
    by_id = tool("show", run, "0:2/1.0.0")
    assert "2 esrever 9" in by_id.stdout
    assert tool("show", run, "--random", "2").stdout.count("reward:") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "RUN"], 2, "say which: one of an ID, --worst, --best, --random N"),
        (["show", "RUN", "--worst", "--best"], 2, "say which"),
        (["show", "RUN", "nobody"], 4, "no trajectory 'nobody' among 5"),
        (["info", "RUN/nowhere"], 4, "no such run folder or trajectory file"),
        (["check", "RUN/note.txt"], 1, "not an HDF5 file"),
        (["info", "RUN/note.txt"], 4, "cannot be opened as HDF5"),
        (["wash", "RUN"], 2, "No such command 'wash'"),
    ],
)
def test_bad_input_gives_one_message_and_its_exit_code(run, arguments, code, words):
    (run / "note.txt").write_text("hello " * 20)
    done = tool(*(argument.replace("RUN", str(run)) for argument in arguments))
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_check_is_silent_on_a_sound_run_and_fails_on_findings(run):
    sound = tool("check", run)
    assert (sound.returncode, "5 trajectories, no findings" in sound.stdout) == (0, True)
    write(run, [trajectory(0), with_header(trajectory(7), num_trained=3)], node="n1")
    found = tool("check", run)
    assert found.returncode == 1
    assert "0:0/0.0.0: recorded 2 times" in found.stdout
    assert "0:1/3.0.0: num_trained is 3, the loss mask marks 8 tokens" in found.stdout


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spans": ()}, "8 trained tokens lie in no weight-version span"),
        ({"spans": (VersionSpan(4, 8, 3), VersionSpan(7, 12, 3))}, "span 7:12 overlaps the one before it"),
        ({"spans": (VersionSpan(4, 13, 3),)}, "span 4:13 overlaps the one before it or leaves the trajectory"),
        ({"spans": (VersionSpan(4, 12, 4),)}, "spans have versions 4 to 4, the header says 3 to 3"),
        ({"turns": (Turn(0, 99, "prompt"),)}, "turn 0:99 (prompt) overlaps"),
        ({"loss_mask": np.full(12, 2, np.uint8)}, "loss mask holds 2"),
        ({"logprobs": np.full(12, -1, np.float32)}, "log-probs differ from 0 outside the loss mask"),
        ({"logprobs": np.full(12, np.nan, np.float32)}, "log-probs are not all finite and at most 0"),
        ({"tokens": np.full(12, -1, np.int32)}, "negative token id"),
    ],
)
def test_each_inconsistency_is_found(change, words):
    assert findings(trajectory(0)) == []
    assert any(words in finding for finding in findings(msgspec.structs.replace(trajectory(0), **change)))


def test_supervised_rows_have_no_spans_and_are_sound():
    item = trajectory(0, version=-1, spans=(), logprobs=np.zeros(12, np.float32), finish_reason="supervised")
    assert findings(item) == []


def test_a_reward_that_is_no_number_is_found():
    assert "reward is nan" in findings(with_header(trajectory(0), reward=float("nan")))
