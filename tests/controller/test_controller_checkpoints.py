"""A checkpoint exists when its READY does, whatever happens while it is written."""

import os
from concurrent.futures import Future
from pathlib import Path

import msgspec
import pytest

from nexrl.controller import Checkpoints, ControllerState, Progress, complete_checkpoints, newest_checkpoint, read_state
from nexrl.data import LoaderState
from nexrl.errors import CheckpointError, StoreError, TrainingError


def state(step):
    loader = LoaderState(epoch=0, cursor=2 * step, issued=2 * step, seed=42, shuffle=False, num_rows=32)
    return ControllerState(
        format=1, progress=Progress(step=step), loader=loader, open_groups=("a@0",), ledger_offset=99, attempt=1
    )


class Model:
    """Writes one file; `finish` says when, and how, the last save ends."""

    def __init__(self):
        self.loaded = []
        self.saves = []

    def save_checkpoint(self, local_path, global_step=0, save_weight_only=False):
        Path(local_path).write_text(f"weights {global_step}")
        self.saves.append(Future())
        return self.saves[-1]

    def load_checkpoint(self, path, load_weight_only=False):
        self.loaded.append(Path(path).read_text())

    def finish(self, error=None):
        if error is None:
            self.saves[-1].set_result(None)
        else:
            self.saves[-1].set_exception(error)


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def make(tmp_path, model):
    def make_checkpoints(*, keep=0, before_publish=lambda: None, saved=None):
        told = [] if saved is None else saved
        return Checkpoints(
            tmp_path,
            model,
            save_freq=1,
            keep=keep,
            before_publish=before_publish,
            on_saved=lambda step, path: told.append((step, path.name)),
        )

    return make_checkpoints


def save(checkpoints, model, step):
    checkpoints.save(state(step))
    model.finish()
    checkpoints.wait()


def test_what_was_saved_is_loaded(make, model, tmp_path):
    save(make(), model, 4)
    path = tmp_path / "step_000004"
    assert sorted(entry.name for entry in path.iterdir()) == ["READY", "model", "state.json"]
    assert make().load(path) == state(4)
    assert model.loaded == ["weights 4"]


def test_nothing_waits_for_a_save_until_it_must(make, model, tmp_path):
    saved = []
    checkpoints = make(saved=saved)
    checkpoints.poll()
    checkpoints.save(state(1))
    checkpoints.poll()
    assert newest_checkpoint(tmp_path) is None
    model.finish()
    checkpoints.poll()
    assert saved == [(1, "step_000001")]
    checkpoints.save(state(2))
    model.finish()
    checkpoints.save(state(3))  # publishes 2 first
    assert saved[-1] == (2, "step_000002")
    assert newest_checkpoint(tmp_path).name == "step_000002"


def test_the_same_step_is_saved_once(make, model, tmp_path):
    checkpoints = make()
    save(checkpoints, model, 1)
    checkpoints.save(state(1))
    assert len(model.saves) == 1
    loaded = make()
    loaded.load(newest_checkpoint(tmp_path))
    loaded.save(state(1))
    assert len(model.saves) == 1


def test_a_rank_that_fails_leaves_no_checkpoint(make, model, tmp_path):
    checkpoints = make()
    checkpoints.save(state(1))
    model.finish(TrainingError("trainer-1: out of memory"))
    with pytest.raises(TrainingError, match="trainer-1"):
        checkpoints.wait()
    assert complete_checkpoints(tmp_path) == []
    save(checkpoints, model, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000002"]  # what was left of 1 is gone


def test_a_disk_that_is_full_is_a_checkpoint_error(make, model):
    checkpoints = make()
    checkpoints.save(state(1))
    model.finish(OSError(28, "No space left on device"))
    with pytest.raises(CheckpointError, match=r"step_000001.*No space left"):
        checkpoints.wait()


def test_a_folder_that_cannot_be_made_is_a_checkpoint_error(make, tmp_path):
    checkpoints = make()
    tmp_path.rmdir()
    tmp_path.write_text("a file where the folder should be")
    with pytest.raises(CheckpointError, match=r"step_000001.*Not a directory"):
        checkpoints.save(state(1))
    tmp_path.unlink()


def test_ready_waits_for_what_the_checkpoint_refers_to(make, model, tmp_path):
    def not_durable():
        assert complete_checkpoints(tmp_path) == []
        raise StoreError("recorder-0: disk full")

    checkpoints = make(before_publish=not_durable)
    checkpoints.save(state(1))
    model.finish()
    with pytest.raises(StoreError):
        checkpoints.wait()
    assert complete_checkpoints(tmp_path) == []


class Killed(BaseException):
    """No handler for errors catches it."""


@pytest.mark.parametrize("killed_at", ["mkdir", "fsync", "rename", "rmdir", "unlink"])
def test_whoever_is_killed_leaves_whole_checkpoints_only(make, model, tmp_path, monkeypatch, killed_at):
    """Die at the n-th call of one system function, for every n, while step 3 takes the place of an older step 3 and
    step 1 is pruned: each checkpoint that counts is whole."""

    for count in range(1, 50):
        checkpoints = make(keep=2)
        folder = tmp_path
        for step in (1, 2):
            save(make(), model, step)
        (folder / "step_000003").mkdir(exist_ok=True)
        for name in ("READY", "model", "state.json"):
            (folder / "step_000003" / name).write_text("of a former attempt")
        with monkeypatch.context() as patch:
            calls = iter(range(1, 1000))
            real = getattr(os, killed_at)

            def dying(*args, real=real, calls=calls, count=count, **options):
                if next(calls) == count:
                    raise Killed
                return real(*args, **options)

            patch.setattr(os, killed_at, dying)
            try:
                save(checkpoints, model, 3)
            except Killed:
                finished = False
            else:
                finished = True
        for path in complete_checkpoints(folder):
            assert sorted(entry.name for entry in path.iterdir()) == ["READY", "model", "state.json"]
        assert newest_checkpoint(folder) is not None
        if finished:
            break
    else:
        pytest.fail("never came through")
    assert [path.name for path in complete_checkpoints(folder)] == ["step_000002", "step_000003"]


def test_old_ones_are_pruned_and_copies_are_left_alone(make, model, tmp_path):
    kept = tmp_path / "step_000001.kept"
    kept.mkdir()
    (kept / "READY").write_text("1\n")
    checkpoints = make(keep=2)
    for step in (1, 2, 999_999, 1_000_000):
        save(checkpoints, model, step)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step_999999", "step_1000000"]
    assert newest_checkpoint(tmp_path).name == "step_1000000"
    assert kept.exists()


def test_all_are_kept_with_keep_zero(make, model, tmp_path):
    checkpoints = make(keep=0)
    for step in (1, 2, 3):
        save(checkpoints, model, step)
    assert len(complete_checkpoints(tmp_path)) == 3


def test_bad_folders_are_named(make, model, tmp_path):
    path = tmp_path / "step_000001"
    with pytest.raises(CheckpointError, match=r"step_000001 is not a folder; needs a checkpoint such as"):
        read_state(path)
    path.mkdir()
    assert newest_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match="step_000001 has no READY"):
        read_state(path)
    (path / "READY").write_text("1\n")
    with pytest.raises(CheckpointError, match=r"state\.json: .*No such file"):
        read_state(path)
    (path / "state.json").write_text('{"format": 1}')
    with pytest.raises(CheckpointError, match=r"state\.json: .*missing required field"):
        read_state(path)
    (path / "state.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(state(1), format=9)))
    with pytest.raises(CheckpointError, match="has format 9, this version reads 1"):
        make().load(path)
    assert model.loaded == []


def test_progress_counts_what_a_step_added():
    progress = Progress().advanced(tokens=10, trajectories=4).advanced(tokens=5, trajectories=2)
    assert progress == Progress(step=2, tokens=15, trajectories=6)
    assert progress.version == 2
