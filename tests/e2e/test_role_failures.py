"""Roles that are killed or hang in the middle of training."""

import os
import random
import signal
import time

import pytest
from e2e_runs import SLOW, errors_said, left_behind, start, trajectories_tool

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def assert_readable(launch):
    """A killed run can be looked into."""
    assert [step["step"] for step in launch.steps] == list(range(1, len(launch.steps) + 1))
    audit = launch.audit
    assert audit.trained > 0
    assert not audit.double_trained
    assert not audit.strays
    for command in ("info", "check"):
        done = trajectories_tool(command, launch.folder)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("victim", ["controller-0", "recorder-0", "rollout-0", "inference-0", "trainer-0"])
def test_a_killed_role_is_named_and_ends_the_run(victim, model, tmp_path):
    launch = start(tmp_path / "run", model, *SLOW)
    launch.wait_until(lambda: launch.steps and launch.audit.trained)
    time.sleep(random.uniform(0.0, 0.3))
    os.kill(launch.pid(victim), signal.SIGKILL)
    assert launch.wait(60) == 5, launch.text
    [message] = errors_said(launch.text)
    assert message.startswith(f"error: {victim} was killed by SIGKILL")
    assert str(launch.folder / "logs" / "1" / f"{victim}.log") in message
    assert "Traceback" not in launch.text
    assert left_behind(launch.folder) == []
    assert_readable(launch)


@pytest.mark.parametrize("victim", ["controller-0", "trainer-0"])
def test_a_hanging_role_is_found_by_its_heartbeat(victim, model, tmp_path):
    launch = start(
        tmp_path / "run",
        model,
        *SLOW,
        "runtime_monitor.health_check.timeout=3",
        "runtime_monitor.health_check.check_interval=0.5",
        "launch.stop_timeout=5",
    )
    launch.wait_until(lambda: launch.steps and launch.audit.trained)
    os.kill(launch.pid(victim), signal.SIGSTOP)
    assert launch.wait(60) == 5, launch.text
    assert len(errors_said(launch.text)) == 1
    assert victim in launch.text
    found = {"controller-0": "the controller does not answer"}.get(victim, "runtime_monitor.health_check.timeout")
    assert found in launch.text
    assert left_behind(launch.folder) == []
    assert_readable(launch)
