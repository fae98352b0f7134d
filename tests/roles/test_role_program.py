"""`python -m nexrl.roles`: exit codes, and the pipe by which a role notices that its launcher is gone."""

import os
import signal
import subprocess
import sys

import pytest

from nexrl.cluster import Identity, Role
from nexrl.errors import ConfigError
from nexrl.roles.lifeline import LIFELINE_VARIABLE, STOP_TIMEOUT_VARIABLE, watch_lifeline
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
lifeline.MARGIN = 0.1
lost = threading.Event()
lifeline.watch_lifeline(lambda: (print("lost", flush=True), lost.set()), leads=sys.argv[2] == "leads")
print("ready", flush=True)
lost.wait(30)
if sys.argv[1] == "clean":
    sys.exit(0)
threading.Event().wait(30)
"""


@pytest.mark.parametrize("leads", ["leads", "follows"])
@pytest.mark.parametrize(("ends", "code"), [("clean", 0), ("never", 1)])
def test_a_role_without_its_launcher_ends_cleanly_or_hard(ends, code, leads):
    theirs, ours = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", LIVES, ends, leads],
        env=os.environ | {LIFELINE_VARIABLE: str(theirs), STOP_TIMEOUT_VARIABLE: "0.1"},
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


def test_a_stop_timeout_that_is_no_number_is_named(monkeypatch):
    monkeypatch.setenv(LIFELINE_VARIABLE, "0")
    monkeypatch.setenv(STOP_TIMEOUT_VARIABLE, "soon")
    with pytest.raises(ConfigError, match="NEXRL_STOP_TIMEOUT: found 'soon', needs seconds"):
        watch_lifeline(lambda: None, leads=True)


IMPORTS = """
import runpy, sys, threading, types
def main():
    print("importing", flush=True)
    threading.Event().wait(30)
sys.modules["nexrl.roles.main"] = types.SimpleNamespace(main=main)
runpy.run_module("nexrl.roles", run_name="__main__")
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_before_the_role_is_built_ends_it_quietly(number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        assert process.stdout.readline() == "importing\n"
        process.send_signal(number)
        assert process.wait(30) == code
        assert process.stdout.read() == ""


@pytest.mark.usefixtures("environment")
def test_code_that_calls_sys_exit_does_not_end_a_role_well(monkeypatch, tmp_path, caplog):
    def build(*_):
        raise SystemExit(0)

    monkeypatch.setattr("nexrl.roles.main._build", build)
    assert main(["controller", "--run-dir", str(tmp_path)]) == 1
    assert "role controller was ended by sys.exit(0)" in caplog.text
