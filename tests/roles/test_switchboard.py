"""The controller's command socket with real clients: who is there, who is missing, who has gone quiet."""

import json
import stat
import threading
from queue import Queue

import pytest

from nexrl.cluster import Identity, Role
from nexrl.comm import CurveClient, Registration, RpcClient, find_controller
from nexrl.config.schema import (
    ActorConfig,
    DataConfig,
    HealthCheckConfig,
    LaunchConfig,
    ModelConfig,
    Recipe,
    RolloutWorkerConfig,
    RuntimeMonitorConfig,
    ServiceConfig,
    TrainerConfig,
    TrainServiceConfig,
)
from nexrl.errors import CommError, ConfigError, RoleError
from nexrl.metrics import EventLog, read_json_lines
from nexrl.roles.switchboard import RecorderCommands, Switchboard, expected_roles
from nexrl.types import Beat, DiscoverRequest, ErrorReport, TrajectoryIds

LONG = 30.0


def recipe(*, start_timeout=LONG, interval=10.0, timeout=60.0):
    """A supervised run with a mock trainer: recorder and rollout worker are all that register."""
    return Recipe(
        experiment_name="test",
        data=DataConfig(type="mock", max_prompt_length=8, max_response_length=4),
        rollout_worker=RolloutWorkerConfig(type="supervised"),
        trainer=TrainerConfig(type="self_hosted_cross_entropy"),
        service=ServiceConfig(
            train_service={
                "main_actor": TrainServiceConfig(backend="mock", actor=ActorConfig(model=ModelConfig(path="model")))
            }
        ),
        launch=LaunchConfig(start_timeout=start_timeout),
        runtime_monitor=RuntimeMonitorConfig(health_check=HealthCheckConfig(check_interval=interval, timeout=timeout)),
    )


class Board:
    def __init__(self, run_dir, config):
        self.run_dir = run_dir
        self.failures = Queue()
        self.events = EventLog(run_dir / "events.jsonl")
        identity = Identity(
            role=Role.CONTROLLER,
            group="rollout",
            rank=0,
            world_size=1,
            local_rank=0,
            attempt=1,
            threads=1,
            run_dir=run_dir,
        )
        self.board = Switchboard(config, identity, run_dir, events=self.events, on_failure=self.failures.put)
        self.board.open()
        self._clients = []

    def client(self, name):
        address = find_controller(self.run_dir, LONG, attempt=1).address
        self._clients.append(RpcClient(address, security=CurveClient(self.board.keys), name=name))
        return self._clients[-1]

    def register(self, role, rank=0):
        client = self.client(f"{role}-{rank}")
        client.call("register", entry(role, rank), None, timeout=LONG)
        return client

    def close(self):
        for client in self._clients:
            client.close()
        self.board.close()
        self.events.close()


def entry(role, rank=0):
    log = f"logs/1/{role}-{rank}.log"
    return Registration(role=role, rank=rank, group=role, host="here", pid=7, endpoints={}, log=log)


@pytest.fixture
def make(tmp_path):
    made = []
    (tmp_path / "launch").mkdir()

    def make_board(**keys):
        made.append(Board(tmp_path, recipe(**keys)))
        return made[-1]

    yield make_board
    for board in made:
        board.close()


def test_all_register_and_find_each_other(make, tmp_path):
    board = make()
    rollout = board.register("rollout")
    asked = rollout.call_async("discover", DiscoverRequest("recorder"), list[Registration], timeout=LONG)
    board.register("recorder")
    board.board.wait_for_all()
    assert [one.name for one in asked.result(LONG)] == ["recorder-0"]
    assert rollout.call("discover", DiscoverRequest("inference"), list[Registration], timeout=LONG) == []
    told = [(event["role"], event["pid"]) for event in read_json_lines(tmp_path / "events.jsonl")]
    assert told == [("rollout", 7), ("recorder", 7)]


def test_the_keys_are_for_the_owner_only(make, tmp_path):
    make()
    assert stat.S_IMODE((tmp_path / "launch" / "secrets.json").stat().st_mode) == 0o600
    announced = json.loads((tmp_path / "controller.json").read_text())
    secret = (tmp_path / "launch" / "secrets.json").read_text()
    assert announced["public_key"] in secret
    assert set(announced) == {"address", "public_key", "attempt", "host", "pid"}


def test_who_is_missing_is_named(make):
    board = make(start_timeout=0.2)
    board.register("recorder")
    with pytest.raises(RoleError, match=r"rollout-0: not registered within 0\.2 s"):
        board.board.wait_for_all()


def test_a_start_that_is_given_up_waits_for_nobody(make):
    board = make()
    board.board.give_up()
    with pytest.raises(RoleError, match="ended before every role had registered"):
        board.board.wait_for_all()


def test_a_role_that_goes_quiet_is_named_with_its_log(make):
    board = make(interval=0.05, timeout=0.6)
    recorder = board.register("recorder")
    board.register("rollout")
    ended = threading.Event()

    def beat():
        while not ended.wait(0.05):
            recorder.call("beat", Beat(""), None, timeout=LONG)

    beating = threading.Thread(target=beat)
    beating.start()
    board.board.wait_for_all()
    error = board.failures.get(timeout=LONG)
    ended.set()
    beating.join(LONG)
    assert isinstance(error, RoleError)
    assert "no heartbeat for 0.6 s (runtime_monitor.health_check.timeout): rollout-0 (pid 7 on here, log" in str(error)
    assert "recorder-0" not in str(error)


def test_a_stranger_does_not_beat(make):
    with pytest.raises(RoleError, match="rollout-9: not registered"):
        make().client("rollout-9").call("beat", Beat(""), None, timeout=LONG)


def test_what_roles_said_last_is_there_for_a_stall(make):
    board = make()
    for role, doing in (("rollout", ["episode a", "episode b"]), ("recorder", ["writing", ""])):
        client = board.register(role)
        for each in doing:
            client.call("beat", Beat(each), None, timeout=LONG)
    assert board.board.describe() == "  rollout-0: episode b"


@pytest.mark.parametrize(("severity", "ends"), [("critical", True), ("error", False)])
def test_a_reported_error_ends_the_run_where_the_policy_says_so(make, tmp_path, severity, ends):
    board = make()
    report = ErrorReport(
        module="trainer-0",
        work="training",
        severity=severity,
        error="ConfigError",
        message="no such model",
        traceback="",
    )
    board.register("rollout").call("report_error", report, None, timeout=LONG)
    assert board.failures.empty() != ends
    if ends:
        error = board.failures.get(timeout=LONG)
        assert isinstance(error, ConfigError)
        assert "trainer-0, training: no such model" in str(error)
    last = list(read_json_lines(tmp_path / "events.jsonl"))[-1]
    assert (last["role"], last["severity"], last["message"]) == ("trainer-0", severity, "no such model")


def test_recorders_are_told_together_and_their_errors_come_back(make):
    board = make()
    recorder = board.register("recorder")
    released = []
    recorder.expose("release", TrajectoryIds, lambda caller, request: released.extend(request.ids))
    commands = RecorderCommands(board.board, timeout=LONG)
    commands.release(["a", "b"])
    assert released == ["a", "b"]
    with pytest.raises(CommError, match="flush"):
        commands.flush()


def test_shutdown_reaches_everybody_who_is_there(make):
    board = make()
    told = [threading.Event(), threading.Event()]
    for role, event in zip(("recorder", "rollout"), told, strict=True):
        client = board.register(role)
        client.expose("shutdown", None, lambda caller, request, event=event: event.set())
    board.board.shutdown()
    assert all(event.wait(LONG) for event in told)


def test_who_is_expected():
    assert expected_roles(recipe()) == {Role.RECORDER: 1, Role.ROLLOUT: 1}
    trained = {"main_actor": TrainServiceConfig(actor=ActorConfig(model=ModelConfig(path="model")))}
    data = DataConfig(type="mock", rollout_repeat_n=2)
    asks = Recipe(experiment_name="test", data=data, service=ServiceConfig(train_service=trained))
    assert expected_roles(asks) == {Role.RECORDER: 1, Role.ROLLOUT: 1, Role.INFERENCE: 1, Role.TRAINER: 1}
