"""Controller, recorder and rollout worker as threads of one process; the trainer trains nothing."""

import json
import shutil
import threading
from pathlib import Path

import pytest

from nexrl.cluster import Identity, Role
from nexrl.config.schema import (
    ActorConfig,
    DataConfig,
    LaunchConfig,
    ModelConfig,
    Recipe,
    RolloutWorkerConfig,
    ServiceConfig,
    TrainerConfig,
    TrainServiceConfig,
)
from nexrl.errors import DataError, RoleError
from nexrl.pool import LedgerReader
from nexrl.roles import controller, local
from nexrl.store import StepsReader

MODEL = Path(__file__).parents[2] / "recipes" / "reverse" / "model"
LONG = 30.0


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "test" / "run"
    for name in ("launch", "trajectories"):
        (folder / name).mkdir(parents=True)
    with (tmp_path / "train.jsonl").open("w") as file:
        for number in range(8):
            file.write(json.dumps({"prompt": "abcdefgh"[number:] + "a", "response": "ab"}) + "\n")
    shutil.copytree(MODEL, tmp_path / "model")
    return folder


def recipe(run_dir, **keys):
    folder = run_dir.parents[1]
    model = ModelConfig(path=str(folder / "model"), init="random")
    return Recipe(
        experiment_name="test",
        launch_mode="local",
        data=DataConfig(
            data_files=(str(folder / "train.jsonl"),), batch_size=2, max_prompt_length=16, max_response_length=4
        ),
        rollout_worker=RolloutWorkerConfig(type="supervised"),
        trainer=TrainerConfig(type="self_hosted_cross_entropy", total_train_steps=3),
        service=ServiceConfig(
            train_service={"main_actor": TrainServiceConfig(backend="mock", actor=ActorConfig(model=model))}
        ),
        launch=LaunchConfig(start_timeout=LONG),
        **keys,
    )


def identity(run_dir):
    return Identity(
        role=Role.CONTROLLER,
        group="rollout",
        rank=0,
        world_size=1,
        local_rank=0,
        attempt=1,
        threads=1,
        run_dir=run_dir,
    )


@pytest.mark.slow
def test_a_whole_run(run_dir):
    assert local.build(recipe(run_dir), identity(run_dir), run_dir).run() == 0
    assert json.loads((run_dir / "summary.json").read_text())["steps"] == 3
    audit = LedgerReader(run_dir / "ledger").audit()
    assert audit.is_settled
    assert audit.trained == 6
    with StepsReader(run_dir) as steps:
        assert steps.columns()["step"].tolist() == [1, 1, 2, 2, 3, 3]


def test_bad_data_ends_it_at_once_though_others_still_wait_for_the_controller(run_dir):
    (run_dir.parents[1] / "train.jsonl").write_text('{"prompt": 7}\n')
    run = local.build(recipe(run_dir), identity(run_dir), run_dir)
    with pytest.raises(DataError, match=r"train\.jsonl, row 1"):
        run.run()
    assert {"recorder", "rollout"} <= {thread.name for thread in threading.enumerate()}  # nobody waited for them


def ended(run_dir, act):
    """What becomes of a controller that waits for roles, none of which comes, when `act` is done to it."""
    role = controller.build(recipe(run_dir), identity(run_dir), run_dir)
    outcome = []

    def run():
        try:
            outcome.append(role.run())
        except RoleError as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not (run_dir / "controller.json").exists():
        thread.join(0.01)
    act(role)
    thread.join(LONG)
    [end] = outcome
    return end


def test_a_stop_while_roles_are_waited_for_ends_with_its_code(run_dir):
    def act(role):
        role.stop(130)
        role.stop(143)

    assert ended(run_dir, act) == 130


def test_a_failure_while_roles_are_waited_for_is_the_one_that_is_raised(run_dir):
    def act(role):
        role.fail(RoleError("recorder-0 died"))
        role.fail(RoleError("and so did the rest"))

    assert str(ended(run_dir, act)) == "recorder-0 died"
