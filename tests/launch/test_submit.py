import subprocess
import sys

import pytest
from launch_recipe import write_files

from launch import submit
from nexrl.errors import ConfigError


def command(monkeypatch, *arguments):
    """Exit code of the command line, run in this process."""
    monkeypatch.setattr(sys, "argv", ["submit", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        submit.main()
    return ended.value.code


def test_dry_run_shows_the_plan_and_starts_nothing(tmp_path, monkeypatch, capsys):
    path = write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, path, "launch.groups.trainer.tasks=2", "--dry-run") == 0
    output = capsys.readouterr().out
    assert "trainer-1" in output
    assert "python -m nexrl.roles controller" in output
    assert not (tmp_path / "runs").exists()


def test_dry_run_names_the_stage(tmp_path, monkeypatch, capsys):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "main.yaml", "--dry-run", "--launch-mode", "local") == 0
    output = capsys.readouterr().out
    assert "stage small: runs first" in output
    assert "local-0" in output
    assert "controller-0" not in output


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["small.yaml", "data.batch_size=0"], 2, "error: data.batch_size: found 0, needs at least 1"),
        (["small.yaml", "launch_mode=ray"], 2, "error: launch_mode: found 'ray'"),
        (["gone.yaml"], 2, "error: no such recipe: gone.yaml"),
        (["small.yaml", "--run-dir", "."], 4, "error: "),
        (["small.yaml", "comm.interface=203.0.113.9"], 2, "203.0.113.9"),
    ],
)
def test_errors_are_one_message_and_a_code(tmp_path, monkeypatch, capsys, arguments, code, says):
    write_files(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NEXRL_DEBUG", raising=False)
    assert command(monkeypatch, *arguments) == code
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_interrupt_while_the_launcher_is_imported(tmp_path):
    program = (
        "import os, signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'launch.stages':\n"
        "            os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from launch import submit\n"
        "submit.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("NEXRL_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["submit", str(tmp_path / "gone.yaml")])
    with pytest.raises(ConfigError):
        submit.main()


def test_help_teaches():
    result = subprocess.run(
        [sys.executable, "-m", "launch.submit", "--help"], check=True, capture_output=True, text=True
    )
    assert "python -m launch.submit recipes/reverse/grpo.yaml --dry-run" in result.stdout
    assert "Exit codes: 0 finished, 2 recipe" in " ".join(result.stdout.split())
