"""What `make` installs, and when it leaves an environment alone."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "environment.py"


@pytest.fixture
def environment():
    """The script as a module: `make` runs it before anything is installed, so it is no part of a package."""
    spec = importlib.util.spec_from_file_location("environment_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def torch_tries(environment, monkeypatch, folder, *, gpu=False, cpu_build_from="", index_answers=False):
    """What pip is asked for, the way in which it ends being the last."""
    asked = []

    class Pip(environment.Environment):
        def pip(self, *arguments):
            asked.append(" ".join(arguments[3:]))
            wanted = "own sources" if "--extra-index-url" not in arguments else "index"
            return "+cpu" not in asked[-1] or cpu_build_from == wanted

    monkeypatch.setattr(environment, "reachable", lambda url: index_answers)
    monkeypatch.setattr(environment.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    environment.install_torch(Pip(folder))
    return asked


CPU = "torch==2.13.0+cpu"
INDEX = f"{CPU} --extra-index-url https://download.pytorch.org/whl/cpu"


@pytest.mark.parametrize(
    ("world", "asked"),
    [
        ({"gpu": True}, ["torch==2.13.0"]),
        ({"cpu_build_from": "own sources"}, [CPU]),
        ({"cpu_build_from": "index", "index_answers": True}, [CPU, INDEX]),
        ({"index_answers": False}, [CPU, "torch==2.13.0"]),
        ({"index_answers": True}, [CPU, INDEX, "torch==2.13.0"]),
    ],
)
def test_torch_is_the_cpu_build_where_it_can_be_had(environment, monkeypatch, tmp_path, world, asked):
    assert torch_tries(environment, monkeypatch, tmp_path, **world) == asked


def test_an_environment_counts_only_while_its_content_and_its_interpreter_hold(environment, tmp_path):
    made = environment.Environment(tmp_path / "env")
    assert not made.holds("a")
    made.python.parent.mkdir(parents=True)
    made.python.symlink_to(sys.executable)
    made.finish("a")
    assert made.holds("a")
    assert not made.holds("b")
    made.python.unlink()
    assert not made.holds("a")


def test_a_failing_pip_is_told_with_the_end_of_its_log(environment, tmp_path):
    made = environment.Environment(tmp_path)
    made.python = Path(sys.executable)
    with pytest.raises(environment.SetupError, match=r"(?s)install\.log.*no such option: --nonsense"):
        made.must_pip("install", "--nonsense")


def test_the_hash_follows_the_files(environment, tmp_path):
    path = tmp_path / "constraints.txt"
    path.write_text("a==1\n")
    before = environment.content_hash([path])
    assert environment.content_hash([path]) == before
    path.write_text("a==2\n")
    assert environment.content_hash([path]) != before


def test_nobody_answers_is_no_error(environment):
    assert environment.reachable("http://127.0.0.1:9/") is False


def test_an_unknown_kind_is_refused_with_those_that_exist():
    done = subprocess.run([sys.executable, SCRIPT, "conda", "x"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "project" in done.stderr
    assert "vllm-cpu" in done.stderr
