"""`python -m nexrl.roles`: exit codes, and the pipe by which a role notices that its launcher is gone."""

import os
import subprocess
import sys

import pytest

from nexrl.cluster import Identity, Role
from nexrl.roles.lifeline import LIFELINE_VARIABLE
from nexrl.roles.main import main


@pytest.fixture
def environment(monkeypatch, tmp_path):
    identity = Identity(
        role=Role.CONTROLLER,
        group="rollout",
        rank=0,
        world_size=1,
        local_rank=0,
        attempt=1,
        threads=1,
        run_dir=tmp_path,
    )
    for name, value in identity.environment().items():
        monkeypatch.setenv(name, value)


def test_a_role_that_was_not_started_by_a_launcher_says_so(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("NEXRL_ROLE", raising=False)
    assert main(["controller", "--run-dir", str(tmp_path)]) == 2
    assert "ConfigError: NEXRL_ROLE: found '', needed a value: roles are started by a launcher" in caplog.text


@pytest.mark.usefixtures("environment")
def test_a_run_folder_without_a_recipe_is_named(tmp_path, caplog):
    assert main(["controller", "--run-dir", str(tmp_path)]) == 2
    [record] = [one for one in caplog.records if one.levelname == "ERROR"]
    assert f"no such recipe: {tmp_path / 'recipe.yaml'}" in record.getMessage()
    assert record.exc_info is None


def test_an_unknown_role_is_a_usage_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["teacher", "--run-dir", str(tmp_path)])
    assert end.value.code == 2
    assert "invalid choice: 'teacher'" in capsys.readouterr().err


LIVES = """
import sys, threading
from nexrl.roles import lifeline
lifeline.GRACE = 0.2
lost = threading.Event()
lifeline.watch_lifeline(lambda: (print("lost", flush=True), lost.set()))
print("ready", flush=True)
lost.wait(30)
if sys.argv[1] == "clean":
    sys.exit(0)
threading.Event().wait(30)
"""


@pytest.mark.parametrize(("ends", "code"), [("clean", 0), ("never", 1)])
def test_a_role_without_its_launcher_ends_cleanly_or_hard(ends, code):
    theirs, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", LIVES, ends],
        env=os.environ | {LIFELINE_VARIABLE: str(theirs)},
        pass_fds=[theirs],
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(theirs)
    with process:
        assert process.stdout.readline() == "ready\n"
        assert process.poll() is None
        os.close(ours)
        assert process.stdout.readline() == "lost\n"
        assert process.wait(30) == code
