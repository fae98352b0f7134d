from pathlib import Path

import pytest
from launch_recipe import small_recipe

from launch.plan import Machine, make_plan
from nexrl.cluster import Identity, Role

MACHINE = Machine(cores=8, python="/venv/bin/python", address="127.0.0.1", interface="lo")
RUN = Path("/runs/small/20260101-120000")


def plan_for(recipe, **changes):
    return make_plan(recipe, run_dir=RUN, attempt=1, machine=MACHINE, **changes)


def test_plan_is_the_golden_file(tmp_path):
    overrides = ["launch.groups.trainer.tasks=2", "launch.groups.rollout={tasks: 1, threads: 3}"]
    text = plan_for(small_recipe(tmp_path, *overrides)).to_json().decode()
    assert text == Path(__file__).with_name("golden_plan.json").read_text()


def test_roles_ranks_and_threads(tmp_path):
    recipe = small_recipe(tmp_path, "launch.groups.trainer.tasks=3", "launch.groups.inference.threads=5")
    plan = plan_for(recipe)
    threads = [(process.name, process.environment["OMP_NUM_THREADS"]) for process in plan.processes]
    assert threads == [
        ("controller-0", "1"),
        ("recorder-0", "1"),
        ("rollout-0", "8"),
        ("inference-0", "5"),
        ("trainer-0", "2"),
        ("trainer-1", "2"),
        ("trainer-2", "2"),
    ]
    assert plan.leader.role == "controller"


def test_environment_says_the_identity(tmp_path):
    plan = plan_for(small_recipe(tmp_path, "launch.groups.trainer.tasks=2"))
    last = Identity.from_env(plan.processes[-1].environment)
    assert (last.role, last.rank, last.world_size, last.run_dir) == (Role.TRAINER, 1, 2, RUN)
    assert plan.processes[-1].command[1:] == ("-m", "nexrl.roles", "trainer", "--run-dir", str(RUN))


def test_no_engine_for_supervised_learning(tmp_path):
    recipe = small_recipe(tmp_path, "rollout_worker.type=supervised", "trainer.type=self_hosted_cross_entropy")
    assert [process.role for process in plan_for(recipe).processes] == ["controller", "recorder", "rollout", "trainer"]


def test_no_trainer_for_a_mock_train_service(tmp_path):
    recipe = small_recipe(tmp_path, "service.train_service.main_actor.backend=mock")
    assert "trainer" not in [process.role for process in plan_for(recipe).processes]


@pytest.mark.parametrize(("threads", "expected"), [(0, "8"), (4, "4")])
def test_local_is_one_process(tmp_path, threads, expected):
    plan = plan_for(small_recipe(tmp_path, "launch_mode=local", f"launch.groups.trainer.threads={threads}"))
    assert [process.name for process in plan.processes] == ["local-0"]
    assert plan.leader.environment["OMP_NUM_THREADS"] == expected


def test_this_machine(tmp_path):
    machine = Machine.here(small_recipe(tmp_path))
    assert (machine.address, machine.interface) == ("127.0.0.1", "lo")
    assert machine.cores >= 1
    assert Machine.here(small_recipe(tmp_path, "comm.interface=lo")).address == "127.0.0.1"
