"""The supervisor with real processes: who is blamed, which code comes out, and that nothing is left."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest
from launch_parts import (
    FORKS,
    POLITE,
    QUICK,
    SLEEP,
    STUBBORN,
    TELL,
    ends,
    ends_when,
    is_gone,
    pid_in,
    plan_of,
    supervise,
    wait_gone,
)

from launch.supervisor import Patience, Supervisor
from nexrl.errors import RoleError

pytestmark = pytest.mark.processes


def test_leader_end_ends_the_run(tmp_path):
    code, said = supervise(tmp_path, {"controller": ends_when("rollout", 0), "rollout": SLEEP, "trainer": ends(0)})
    assert code == 0
    assert is_gone(pid_in(tmp_path / "rollout"))
    assert "still there 0.5 s after controller-0: rollout-0" in said


def test_code_is_the_leaders(tmp_path):
    code, said = supervise(tmp_path, {"controller": ends(6, says="nothing moved"), "rollout": POLITE})
    assert code == 6
    assert "controller-0 ended with exit code 6 (StallError or CommError)" in said
    assert "| nothing moved" in said
    assert str(tmp_path / "controller-0.log") in said


def test_failed_role_is_named_with_its_log(tmp_path):
    code, said = supervise(tmp_path, {"controller": POLITE, "trainer": ends_when("controller", 7, says="boom")})
    assert code == 7
    assert "error: trainer-0 ended with exit code 7 (TrainingError)" in said
    assert f"log: {tmp_path}/trainer-0.log" in said
    assert "| boom" in said
    assert is_gone(pid_in(tmp_path / "controller"))


def test_only_the_last_lines_of_a_log_are_shown(tmp_path):
    lines = "\n".join(f"line {number}" for number in range(100))
    _, said = supervise(tmp_path, {"controller": POLITE, "rollout": ends(1, says=lines)})
    assert "| line 80\n" in said
    assert "| line 79\n" not in said


def test_log_excerpt_is_about_the_failure(tmp_path):
    lines = [
        "2026-01-01 10:00:00,000 W nexrl.a: odd",
        "2026-01-01 10:00:00,000 I nexrl.a: routine",
        "INFO:     uvicorn",
        " 50%|##   | 1/2\r100%|####| 2/2",
        "Traceback (most recent call last):",
        "  deep",
        "boom",
    ]
    _, said = supervise(tmp_path, {"controller": POLITE, "rollout": ends(1, says="\n".join(lines))})
    excerpt = [line.removeprefix("  | ") for line in said.splitlines() if line.startswith("  | ")]
    assert excerpt == ["2026-01-01 10:00:00,000 W nexrl.a: odd", "Traceback (most recent call last):", "  deep", "boom"]


def test_routine_is_shown_where_there_is_nothing_worse(tmp_path):
    _, said = supervise(tmp_path, {"controller": POLITE, "rollout": ends(1, says="2026-01-01 10:00:00,000 I a: last")})
    assert "  | 2026-01-01 10:00:00,000 I a: last" in said


def test_one_cause_is_one_error(tmp_path):
    programs = {"controller": ends_when("rollout", 7, says="mine"), "trainer": ends(7, says="boom"), "rollout": POLITE}
    _, said = supervise(tmp_path, programs, patience=Patience(failure=20.0, grace=20.0))
    assert said.count("error: ") == 1
    assert sum(line.startswith("also ") for line in said.splitlines()) == 1
    assert ("| boom" in said) != ("| mine" in said)


def test_what_roles_write_is_the_owners_alone(tmp_path):
    supervise(tmp_path, {"controller": ends(0)})
    assert (tmp_path / "controller").stat().st_mode & 0o777 == 0o600


def test_leader_that_a_signal_ends_before_it_can_answer(tmp_path):
    def interrupt():
        if not sent and "ready" in (tmp_path / "controller-0.log").read_text():
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    sent = []
    code, said = supervise(tmp_path, {"controller": SLEEP, "rollout": POLITE}, tick=interrupt)
    assert code == 143
    assert "error" not in said
    assert "was killed" not in said


def test_leader_may_end_by_itself_after_a_failure(tmp_path):
    programs = {"controller": ends_when("trainer", 5), "trainer": ends(7)}
    code, said = supervise(tmp_path, programs, patience=Patience(failure=20.0, grace=20.0))
    assert code == 5
    assert "trainer-0 ended with exit code 7" in said


def test_role_killed_by_a_signal_is_a_role_error(tmp_path):
    killed = TELL + "\nos.kill(os.getpid(), signal.SIGKILL)"
    code, said = supervise(tmp_path, {"controller": POLITE, "inference": killed})
    assert code == RoleError.exit_code
    assert "inference-0 was killed by SIGKILL" in said


def test_killed_leader_is_a_role_error(tmp_path):
    killed = TELL + "\nos.kill(os.getpid(), signal.SIGSEGV)"
    code, said = supervise(tmp_path, {"controller": killed, "rollout": POLITE})
    assert code == RoleError.exit_code
    assert "controller-0 was killed by SIGSEGV" in said


def test_stubborn_processes_are_killed(tmp_path):
    programs = {"controller": STUBBORN, "rollout": STUBBORN, "trainer": ends(7, after=0.5)}
    code, said = supervise(tmp_path, programs, stop_timeout=0.5)
    assert code == 7
    assert "killing what did not end on SIGTERM: controller-0, rollout-0" in said
    assert wait_gone([pid_in(tmp_path / name) for name in ("controller", "rollout")], seconds=0.1) == []


def test_children_of_a_role_end_with_it(tmp_path):
    code, _ = supervise(tmp_path, {"controller": ends_when("rollout.child", 0), "rollout": FORKS})
    assert code == 0
    assert wait_gone([pid_in(tmp_path / "rollout.child"), pid_in(tmp_path / "rollout")]) == []


def test_children_of_a_role_that_was_killed_end(tmp_path):
    def kill_the_parent():
        if (tmp_path / "rollout.child").exists() and not is_gone(pid_in(tmp_path / "rollout")):
            os.kill(pid_in(tmp_path / "rollout"), signal.SIGKILL)

    code, said = supervise(tmp_path, {"controller": POLITE, "rollout": FORKS}, tick=kill_the_parent)
    assert code == RoleError.exit_code
    assert "rollout-0 was killed by SIGKILL" in said
    assert wait_gone([pid_in(tmp_path / "rollout.child")]) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_goes_to_the_leader_alone(tmp_path, number, code):
    def interrupt():
        if not sent and "ready" in (tmp_path / "controller-0.log").read_text():
            sent.append(number)
            os.kill(os.getpid(), number)

    sent = []
    found, said = supervise(tmp_path, {"controller": POLITE, "rollout": SLEEP}, tick=interrupt)
    assert found == code
    assert f"{number.name}: controller-0 has 1 s to save and end" in said
    assert "error" not in said
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_leader_that_ignores_the_signal_is_killed(tmp_path):
    def interrupt():
        if not sent and "ready" in (tmp_path / "controller-0.log").read_text():
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)

    sent = []
    code, _ = supervise(tmp_path, {"controller": STUBBORN}, tick=interrupt, stop_timeout=0.2)
    assert code == 143
    assert is_gone(pid_in(tmp_path / "controller"))


def test_second_interrupt_kills_at_once(tmp_path):
    def interrupt():
        if "ready" in (tmp_path / "controller-0.log").read_text():
            os.kill(os.getpid(), signal.SIGINT)

    code, said = supervise(tmp_path, {"controller": STUBBORN, "rollout": SLEEP}, tick=interrupt, stop_timeout=1000.0)
    assert code == 130
    assert "SIGINT again: killing controller-0, rollout-0" in said
    assert is_gone(pid_in(tmp_path / "rollout"))


def test_program_that_cannot_be_started(tmp_path):
    plan = plan_of(tmp_path, {"controller": SLEEP, "rollout": SLEEP})
    missing = type(plan.processes[1])(role="rollout", rank=0, command=("/no/such/program",), environment={})
    broken = type(plan)(run_dir=tmp_path, attempt=1, stop_timeout=1.0, processes=(plan.leader, missing))
    with pytest.raises(RoleError, match=r"cannot start rollout-0: .*/no/such/program"):
        Supervisor(broken, log_dir=tmp_path, say=print, patience=QUICK).run(lambda: None)


def test_roles_have_session_lifeline_and_environment(tmp_path):
    code = TELL + "assert os.getsid(0) == os.getpid()\nassert os.read(int(os.environ['NEXRL_LIFELINE_FD']), 1) == b''"
    launcher = start_launcher(tmp_path, {"controller": code})
    pid = pid_in(tmp_path / "controller")
    launcher.kill()
    launcher.wait()
    assert wait_gone([pid]) == []
    assert "Error" not in (tmp_path / "controller-0.log").read_text()


@pytest.mark.parametrize("leader", [SLEEP, STUBBORN], ids=["polite", "ignoring SIGTERM"])
def test_killed_launcher_leaves_nothing(tmp_path, leader):
    launcher = start_launcher(tmp_path, {"controller": leader, "rollout": FORKS, "trainer": STUBBORN})
    pids = [pid_in(tmp_path / name) for name in ("controller", "rollout", "rollout.child", "trainer")]
    children = psutil_children(launcher.pid)
    launcher.kill()
    launcher.wait()
    assert wait_gone([*pids, *children]) == []
    assert len(children) >= 4


def start_launcher(folder: Path, programs: dict[str, str]) -> subprocess.Popen:
    program = textwrap.dedent("""
        import sys, json, pathlib
        sys.path[:0] = json.loads(sys.argv[3])
        from launch_parts import plan_of, QUICK
        from launch.supervisor import Supervisor
        folder = pathlib.Path(sys.argv[1])
        plan = plan_of(folder, json.loads(sys.argv[2]))
        sys.exit(Supervisor(plan, log_dir=folder, say=print, patience=QUICK).run(lambda: None))
    """)
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    arguments = [str(folder), json.dumps(programs), json.dumps(paths)]
    return subprocess.Popen([sys.executable, "-c", program, *arguments])


def psutil_children(pid: int) -> list[int]:
    return [child.pid for child in psutil.Process(pid).children(recursive=True)]
