import os
import stat
import subprocess
import sys

import pytest
from launch_recipe import small_recipe

from launch.run_folder import claimed_run_folder, needed_bytes
from nexrl.config import read_resolved
from nexrl.errors import RunFolderError


def test_new_folders_have_names_of_their_own(tmp_path):
    recipe = small_recipe(tmp_path)
    with claimed_run_folder(recipe) as first, claimed_run_folder(recipe) as second:
        assert first.path != second.path
        assert first.path.parent == second.path.parent == tmp_path / "runs" / "small"
        assert (first.attempt, first.log_dir.is_dir()) == (1, True)
        assert read_resolved(first.path / "recipe.yaml") == recipe
        assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((first.path / "launch").stat().st_mode) == 0o700


def test_named_folder_may_be_new_or_empty(tmp_path):
    recipe = small_recipe(tmp_path)
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with claimed_run_folder(recipe, run_dir=tmp_path / name) as folder:
            assert folder.path == tmp_path / name


def test_occupied_folder_is_refused_without_auto(tmp_path):
    recipe = small_recipe(tmp_path)
    with claimed_run_folder(recipe, run_dir=tmp_path / "run"):
        pass
    with pytest.raises(RunFolderError, match=r"run holds a run; resume\.mode=auto continues it"):  # noqa: SIM117
        with claimed_run_folder(recipe, run_dir=tmp_path / "run"):
            pass


def test_folder_with_other_things_is_refused(tmp_path):
    recipe = small_recipe(tmp_path, "resume.mode=auto")
    with pytest.raises(RunFolderError, match="not empty and holds no run"):  # noqa: SIM117
        with claimed_run_folder(recipe, run_dir=tmp_path):
            pass


def test_auto_continues_with_the_next_attempt(tmp_path):
    recipe = small_recipe(tmp_path, "resume.mode=auto")
    with claimed_run_folder(recipe) as first:
        (first.path / "controller.json").write_text("{}")
        (first.path / "summary.json").write_text('{"exit_code": 130}')
    with claimed_run_folder(recipe) as second:
        assert (second.path, second.attempt) == (first.path, 2)
        assert not (second.path / "controller.json").exists()
        assert not (second.path / "summary.json").exists()
    with claimed_run_folder(recipe, run_dir=first.path) as third:
        assert third.attempt == 3
        (third.path / "summary.json").write_text('{"exit_code": 0}')
    with claimed_run_folder(recipe) as afresh:
        assert afresh.path != first.path


def test_auto_continues_a_finished_run_that_shall_have_more_steps(tmp_path):
    with claimed_run_folder(small_recipe(tmp_path, "trainer.total_train_steps=5")) as first:
        (first.path / "summary.json").write_text('{"exit_code": 0, "steps": 5}')
    with claimed_run_folder(small_recipe(tmp_path, "resume.mode=auto", "trainer.total_train_steps=6")) as more:
        assert more.path == first.path
        (more.path / "summary.json").write_text('{"exit_code": 0, "steps": 6}')
    with claimed_run_folder(small_recipe(tmp_path, "resume.mode=auto", "trainer.total_train_steps=6")) as other:
        assert other.path != first.path


def test_a_folder_says_what_it_continues(tmp_path):
    recipe = small_recipe(tmp_path, "resume.mode=auto")
    with claimed_run_folder(recipe) as first:
        assert first.continues == ""
    with claimed_run_folder(recipe) as second:
        assert second.continues == f"continuing {first.path}, which has no checkpoint: from the start"
        (second.path / "checkpoints" / "step_000030").mkdir(parents=True)
        (second.path / "checkpoints" / "step_000030" / "READY").touch()
    with claimed_run_folder(recipe) as third:
        assert third.continues == f"continuing {first.path} at step 30"


def test_auto_leaves_a_run_alone_that_somebody_holds(tmp_path):
    recipe = small_recipe(tmp_path, "resume.mode=auto")
    with claimed_run_folder(recipe) as held, claimed_run_folder(recipe) as other:
        assert other.path != held.path


def test_folder_in_use_names_the_pid(tmp_path):
    recipe = small_recipe(tmp_path)
    program = "import sys, fcntl; lock = open(sys.argv[1], 'w'); fcntl.flock(lock, fcntl.LOCK_EX); print(4711, file=lock, flush=True); print('held', flush=True); sys.stdin.read()"  # noqa: E501
    with claimed_run_folder(recipe, run_dir=tmp_path / "run"):
        pass
    command = [sys.executable, "-c", program, str(tmp_path / "run" / "launch" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        for mode in ("auto", "disable"):
            with pytest.raises(RunFolderError, match="in use by the launcher with pid 4711"):  # noqa: SIM117
                with claimed_run_folder(small_recipe(tmp_path, f"resume.mode={mode}"), run_dir=tmp_path / "run"):
                    pass
        holder.stdin.close()
    with claimed_run_folder(small_recipe(tmp_path, "resume.mode=auto"), run_dir=tmp_path / "run") as folder:
        assert folder.attempt == 2
        assert (folder.path / "launch" / "lock").read_text() == str(os.getpid())


def test_place_that_is_no_folder(tmp_path):
    recipe = small_recipe(tmp_path)
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match=r"cannot use the run folder: .*file"):  # noqa: SIM117
            with claimed_run_folder(recipe, run_dir=bad):
                pass


def test_disk_that_is_too_small(tmp_path):
    recipe = small_recipe(tmp_path)
    with (tmp_path / "model" / "model.safetensors").open("r+b") as weights:
        weights.truncate(2**42)  # sparse: takes no space
    assert needed_bytes(recipe) == 2**30 + 2**42 * (3 * 3 + 1)
    with pytest.raises(RunFolderError, match=r"not enough free disk: .* this run needs 40961\.00 GiB"):  # noqa: SIM117
        with claimed_run_folder(recipe):
            pass


def test_newest_complete_checkpoint(tmp_path):
    with claimed_run_folder(small_recipe(tmp_path)) as folder:
        assert folder.newest_checkpoint is None
        for step, ready in ((100, True), (200, True), (300, False)):
            checkpoint = folder.path / "checkpoints" / f"step_{step:06}"
            checkpoint.mkdir(parents=True)
            if ready:
                (checkpoint / "READY").touch()
        assert folder.newest_checkpoint.name == "step_000200"
