import subprocess
import sys
from pathlib import Path

import pytest

from nexrl.cluster import Identity, RankGroup, Role, Topology, find_interface, interface_of
from nexrl.errors import ConfigError

ENVIRON = {
    "NEXRL_ROLE": "trainer",
    "NEXRL_GROUP": "trainer",
    "NEXRL_RANK": "1",
    "NEXRL_WORLD_SIZE": "2",
    "NEXRL_LOCAL_RANK": "1",
    "NEXRL_ATTEMPT": "3",
    "NEXRL_THREADS": "4",
    "NEXRL_RUN_DIR": "/runs/reverse/1",
    "NEXRL_HOST_ADDRESS": "10.0.0.5",
}


def test_an_identity_is_what_the_launcher_said():
    identity = Identity.from_env(ENVIRON | {"SLURM_PROCID": "17", "RANK": "9"})
    assert identity == Identity(
        role=Role.TRAINER,
        group="trainer",
        rank=1,
        world_size=2,
        local_rank=1,
        attempt=3,
        threads=4,
        run_dir=Path("/runs/reverse/1"),
        host_address="10.0.0.5",
    )
    assert identity.name == "trainer-1"


def test_launcher_and_role_agree():
    assert Identity.from_env(ENVIRON).environment() == ENVIRON


def test_the_host_address_is_loopback_unless_said():
    environ = {key: value for key, value in ENVIRON.items() if key != "NEXRL_HOST_ADDRESS"}
    assert Identity.from_env(environ).host_address == "127.0.0.1"


@pytest.mark.parametrize("variable", sorted(set(ENVIRON) - {"NEXRL_HOST_ADDRESS"}))
def test_a_missing_variable_is_named(variable):
    environ = {key: value for key, value in ENVIRON.items() if key != variable}
    with pytest.raises(ConfigError, match=f"^{variable}: found ''") as raised:
        Identity.from_env(environ)
    assert raised.value.key == variable


@pytest.mark.parametrize(
    ("variable", "value", "needed"),
    [
        ("NEXRL_ROLE", "boss", "one of controller, recorder, rollout, inference, trainer, local"),
        ("NEXRL_RANK", "one", "a whole number"),
        ("NEXRL_RANK", "-1", "a whole number"),
        ("NEXRL_RANK", "²", "a whole number"),
        ("NEXRL_RANK", "2", "0 to 1"),
        ("NEXRL_WORLD_SIZE", "0", "at least 1"),
        ("NEXRL_ATTEMPT", "0", "at least 1"),
        ("NEXRL_THREADS", "0", "at least 1"),
        ("NEXRL_THREADS", "2.0", "a whole number"),
        ("NEXRL_HOST_ADDRESS", "", "an address"),
    ],
)
def test_a_malformed_variable_is_named(variable, value, needed):
    with pytest.raises(ConfigError, match=rf"^{variable}: found .*, needed {needed}"):
        Identity.from_env(ENVIRON | {variable: value})


def test_a_topology_counts_processes_by_role():
    topology = Topology(
        (
            RankGroup(name="rollout", role=Role.ROLLOUT, tasks=3, threads=1),
            RankGroup(name="far", role=Role.ROLLOUT, tasks=2, threads=1),
            RankGroup(name="trainer", role=Role.TRAINER, tasks=2, threads=4),
        )
    )
    assert topology.count(Role.ROLLOUT) == 5
    assert topology.count(Role.INFERENCE) == 0
    assert [group.name for group in topology.of(Role.ROLLOUT)] == ["rollout", "far"]


def test_impossible_groups_are_refused():
    with pytest.raises(ConfigError, match="group trainer: tasks is 0, needed at least 1"):
        RankGroup(name="trainer", role=Role.TRAINER, tasks=0, threads=1)
    group = RankGroup(name="trainer", role=Role.TRAINER, tasks=1, threads=1)
    with pytest.raises(ConfigError, match="every name once"):
        Topology((group, group))


def test_loopback_has_a_name_and_a_foreign_address_has_none():
    assert interface_of("127.0.0.1") == "lo"
    assert find_interface("lo") == ("127.0.0.1", "lo")
    assert find_interface("127.0.0.2") == ("127.0.0.2", "lo")
    for wrong in ("203.0.113.9", "eth99", "::1"):
        with pytest.raises(ConfigError, match=rf"comm\.interface: no interface .* '{wrong}'; .*lo has 127\.0\.0\.1"):
            interface_of(wrong)


def test_the_package_imports_without_torch():
    code = "import nexrl.cluster, nexrl.comm, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
