"""What a launcher starts: a pure function of recipe, run folder, attempt and machine."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from nexrl.cluster import Identity, RankGroup, Role, Topology, find_interface
from nexrl.config import Recipe

_EVERY_PROCESS = {
    "GOMP_SPINCOUNT": "0",  # spinning threads of many processes on few cores cost ten times and more
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a plan must know of the machine that it is for."""

    cores: int
    python: str
    """The interpreter of the roles."""
    address: str = "127.0.0.1"
    """Sockets bind to it."""
    interface: str = "lo"
    """The network interface that has the address."""

    @classmethod
    def here(cls, recipe: Recipe) -> Self:
        """This machine; raises ConfigError where `comm.interface` is no address or interface of it."""
        address, interface = find_interface(recipe.comm.interface or "127.0.0.1")
        cores = len(os.sched_getaffinity(0))
        return cls(cores=cores, python=sys.executable, address=address, interface=interface)


@dataclass(frozen=True, kw_only=True)
class PlannedProcess:
    """One process to start. Plan → supervisor."""

    role: str
    rank: int
    command: tuple[str, ...]
    environment: dict[str, str]
    """On top of the launcher's own."""

    @property
    def name(self) -> str:
        """`<role>-<rank>`: in messages, and of its log file."""
        return f"{self.role}-{self.rank}"


@dataclass(frozen=True, kw_only=True)
class LaunchPlan:
    """All processes of one attempt, in the order of their start."""

    run_dir: Path
    attempt: int
    stop_timeout: float
    """Seconds for a clean end."""
    processes: tuple[PlannedProcess, ...]

    @property
    def leader(self) -> PlannedProcess:
        """The process whose end is the end of the run: the controller, or the only one."""
        return self.processes[0]

    def to_json(self) -> bytes:
        """`launch/plan.json`: all that is started, and no secret."""
        return msgspec.json.format(msgspec.json.encode(self, enc_hook=str), indent=2) + b"\n"


def make_plan(recipe: Recipe, *, run_dir: Path, attempt: int, machine: Machine) -> LaunchPlan:
    """The processes of a run on one machine, each with its role, rank and threads said in its environment."""
    stop_timeout = recipe.launch.stop_timeout
    processes = [
        _process(group, rank, run_dir=run_dir, attempt=attempt, machine=machine, stop_timeout=stop_timeout)
        for group in make_topology(recipe, cores=machine.cores).groups
        for rank in range(group.tasks)
    ]
    return LaunchPlan(run_dir=run_dir, attempt=attempt, stop_timeout=stop_timeout, processes=tuple(processes))


def make_topology(recipe: Recipe, *, cores: int) -> Topology:
    """The rank groups that a recipe needs, the leader's first.

    `local`: one process plays all roles. Otherwise: no inference where the rollout worker asks no engine, no trainer
    where the train service is a mock.
    """
    groups = recipe.launch.groups
    if recipe.launch_mode == "local":
        threads = groups.trainer.threads or cores
        return Topology((RankGroup(name="local", role=Role.LOCAL, tasks=1, threads=threads),))
    wanted = [(Role.ROLLOUT, groups.rollout)]
    if recipe.rollout_worker.need_llm_inference:
        wanted.append((Role.INFERENCE, groups.inference))
    if recipe.service.actor_service.backend != "mock":
        wanted.append((Role.TRAINER, groups.trainer))
    return Topology(
        (
            RankGroup(name="controller", role=Role.CONTROLLER, tasks=1, threads=1),
            RankGroup(name="recorder", role=Role.RECORDER, tasks=1, threads=1),
            *(
                RankGroup(
                    name=str(role), role=role, tasks=group.tasks, threads=group.threads or max(1, cores // group.tasks)
                )
                for role, group in wanted
            ),
        )
    )


def _process(
    group: RankGroup, rank: int, *, run_dir: Path, attempt: int, machine: Machine, stop_timeout: float
) -> PlannedProcess:
    identity = Identity(
        role=group.role,
        group=group.name,
        rank=rank,
        world_size=group.tasks,
        local_rank=rank,
        attempt=attempt,
        threads=group.threads,
        run_dir=run_dir,
        host_address=machine.address,
    )
    said = {
        "OMP_NUM_THREADS": str(group.threads),
        "GLOO_SOCKET_IFNAME": machine.interface,
        "NEXRL_STOP_TIMEOUT": f"{stop_timeout:g}",
    }
    return PlannedProcess(
        role=str(group.role),
        rank=rank,
        command=(machine.python, "-m", "nexrl.roles", str(group.role), "--run-dir", str(run_dir)),
        environment=dict(sorted((_EVERY_PROCESS | said | identity.environment()).items())),
    )
