import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import ExitStack

import pytest
import torch
from training_parts import MemorySource, make_recipe, make_trajectories, make_worker, plan_for, rows_of

from nexrl.activity import ActivityTracker, ErrorReporter
from nexrl.comm import CurveClient, CurveServer, RpcClient, RpcServer, RunKeys
from nexrl.config.schema import OptimConfig
from nexrl.errors import CommError, ConfigError, TrainingError
from nexrl.mock import MockTrainServiceClient
from nexrl.train_service import (
    TrainService,
    TrainServiceClient,
    TrainWorker,
    ZmqTrainServiceClient,
    create_train_service_client,
)
from nexrl.train_service.records import UpdateReply
from nexrl.types import Batch, Shard

TRAJECTORIES = make_trajectories((5, 9, 7, 12, 3, 8))
ROWS = rows_of(TRAJECTORIES)
TIMEOUT = 30.0


def batch(step=1, rows=ROWS, world_size=1):
    return Batch(step=step, shards=plan_for(rows, step=step, world_size=world_size), group_ids=("g",))


class Wire:
    """A controller's socket, and those of trainer ranks."""

    def __init__(self, stack):
        self.keys = RunKeys.generate()
        self.server = RpcServer(bind="tcp://127.0.0.1:0", security=CurveServer(self.keys), name="controller")
        self.connected = threading.Semaphore(0)
        self.server.expose("here", None, lambda caller, request: self.connected.release())
        self.stack = stack
        stack.callback(self.server.close)

    def rank(self, name):
        client = RpcClient(self.server.address, security=CurveClient(self.keys), name=name)
        self.stack.callback(client.close)
        return client

    def here(self, client):
        """The server knows the client from its first request on."""
        client.call("here", None, None, timeout=TIMEOUT)


@pytest.fixture
def wire():
    with ExitStack() as stack:
        yield Wire(stack)


class Served:
    """A worker's service on a thread; `ended` gives what `run` raised."""

    def __init__(self, wire, worker, name="trainer-0"):
        self.rpc = wire.rank(name)
        self.service = TrainService(worker, self.rpc, tracker=ActivityTracker(ErrorReporter()))
        self.stopped = threading.Event()
        self._error = Future()
        self.thread = threading.Thread(target=self._run)
        wire.here(self.rpc)

    def start(self):
        self.thread.start()
        return self

    def ended(self):
        self.thread.join(TIMEOUT)
        return self._error.result(0)

    def _run(self):
        try:
            self.service.run(self.stopped)
        except TrainingError as error:
            self._error.set_result(error)
        else:
            self._error.set_result(None)


@pytest.fixture
def recipe(model_folder):
    return make_recipe(model_folder, optim=OptimConfig(lr=1e-2))


@pytest.fixture
def served(wire, recipe):
    worker = TrainWorker(recipe, source=MemorySource(TRAJECTORIES), device=torch.device("cpu"))
    running = Served(wire, worker).start()
    yield running
    running.stopped.set()
    running.ended()


@pytest.fixture
def client(wire, served):
    return create_train_service_client("zmq", server=wire.server, ranks=["trainer-0"], timeout=TIMEOUT)


def test_the_whole_life_over_the_wire_equals_the_worker_called_directly(client, served, recipe, tmp_path):
    direct = make_worker(recipe, TRAJECTORIES)
    assert client.initialize_worker()[0].parameters == 0
    client.init_model()
    assert client.worker_info()[0].parameters == direct.worker_info().parameters
    expected = direct.compute_log_prob(batch().shards[0]).logprob_sums
    assert client.compute_log_prob(batch()).logprob_sums == expected
    found = client.update_actor(batch())
    assert found["metrics"] == direct.update_actor(batch().shards[0]).metrics
    assert found["meta_info"]["global_step"] == 1
    client.save_checkpoint(str(tmp_path / "saved"), global_step=1).result(TIMEOUT)
    again = client.update_actor(batch(step=2))
    assert client.load_checkpoint(str(tmp_path / "saved")).global_step == 1
    assert client.update_actor(batch(step=2)) == again
    client.export_hf(str(tmp_path / "hf"))
    assert (tmp_path / "hf" / "model.safetensors").is_file()
    assert client.health_check() == {"status": "healthy", "workers_connected": 1, "total_workers": 1}
    client.destroy()
    assert served.ended() is None


def test_an_error_of_a_command_names_rank_and_command_and_the_service_goes_on(client):
    with pytest.raises(TrainingError, match=r"trainer-0: update_actor: .*init_model comes first"):
        client.update_actor(batch())
    client.init_model()
    strangers = rows_of(make_trajectories((4,) * 9))[6:]
    with pytest.raises(CommError, match=r"trainer-0: update_actor: recorder-0 does not hold"):
        client.update_actor(batch(rows=strangers))
    assert client.update_actor(batch())["metrics"]["actor/skipped_updates"] == 0


def test_an_unexpected_error_ends_the_service(wire, client, served):
    served.service.add("break", None, lambda _: 1 // 0)
    with pytest.raises(TrainingError, match="break: ZeroDivisionError"):
        wire.server.call("trainer-0", "break", None, None, timeout=TIMEOUT).result(TIMEOUT)
    assert isinstance(served.ended(), TrainingError)
    with pytest.raises(TrainingError, match="has ended its service"):
        client.init_model()


def test_added_commands_run_on_the_service_thread_and_may_answer_later(wire, served):
    threads, later = [], Future()

    def command(request):
        threads.append(threading.current_thread())
        return later

    served.service.add("publish", int, command)
    served.service.add("next", None, lambda _: threads.append(threading.current_thread()))
    reply = wire.server.call("trainer-0", "publish", 3, int, timeout=TIMEOUT)
    wire.server.call("trainer-0", "next", None, None, timeout=TIMEOUT).result(TIMEOUT)
    assert not reply.done()
    later.set_result(4)
    assert reply.result(TIMEOUT) == 4
    assert threads == [served.thread] * 2


def test_commands_that_come_after_the_end_was_asked_for_fail(wire, served):
    started, go_on = threading.Event(), threading.Event()

    def command(_):
        started.set()
        go_on.wait(TIMEOUT)

    served.service.add("slow", None, command)
    served.service.add("late", None, lambda _: None)
    slow = wire.server.call("trainer-0", "slow", None, None, timeout=TIMEOUT)
    assert started.wait(TIMEOUT)
    served.service.stop()
    late = wire.server.call("trainer-0", "late", None, None, timeout=TIMEOUT)
    go_on.set()
    slow.result(TIMEOUT)
    with pytest.raises(TrainingError, match="late: this trainer rank has ended its service"):
        late.result(TIMEOUT)
    assert served.ended() is None


def test_every_rank_gets_its_own_shard(wire):
    seen, ranks = {}, ["trainer-0", "trainer-1"]

    def update(name):
        def handler(caller, shard):
            seen[name] = shard
            return UpdateReply(metrics={"actor/lr": 0.5}, meta_info={})

        return handler

    for name in ranks:
        rank = wire.rank(name)
        rank.expose("update_actor", Shard, update(name))
        wire.here(rank)
    client = ZmqTrainServiceClient(wire.server, ranks, TIMEOUT)
    whole = batch(world_size=2)
    assert client.update_actor(whole)["metrics"] == {"actor/lr": 0.5}
    assert tuple(seen[name] for name in ranks) == whole.shards
    with pytest.raises(TrainingError, match="found 1 shards for 2 ranks"):
        client.update_actor(batch())


def test_one_failing_rank_ends_the_wait_for_the_others(wire):
    never = Future()
    for name, answer in (("trainer-0", never), ("trainer-1", None)):
        rank = wire.rank(name)
        if answer is not None:
            rank.expose("init_model", None, lambda caller, request, answer=answer: answer)
        wire.here(rank)
    client = ZmqTrainServiceClient(wire.server, ["trainer-0", "trainer-1"], TIMEOUT)
    with pytest.raises(CommError, match=r"trainer-1: init_model: .*no method"):
        client.init_model()
    absent = ZmqTrainServiceClient(wire.server, ["trainer-7"], TIMEOUT)
    assert absent.health_check() == {"status": "unhealthy", "workers_connected": 0, "total_workers": 1}
    with pytest.raises(CommError, match="trainer-7"):
        absent.init_model()


def test_ranks_that_disagree_about_the_world_are_refused(wire, recipe):
    """Two processes that each believe to be alone."""
    running = [
        Served(wire, TrainWorker(recipe, source=MemorySource([]), device=torch.device("cpu")), name).start()
        for name in ("trainer-0", "trainer-1")
    ]
    client = ZmqTrainServiceClient(wire.server, ["trainer-0", "trainer-1"], TIMEOUT)
    with pytest.raises(TrainingError, match=r"found \(rank, world size\) \[\(0, 1\), \(0, 1\)\], needed"):
        client.initialize_worker()
    for one in running:
        one.stopped.set()
        assert one.ended() is None


def test_mock_client_answers_as_documented():
    client = create_train_service_client("mock")
    assert isinstance(client, TrainServiceClient)
    assert isinstance(client, MockTrainServiceClient)
    assert MockTrainServiceClient(url="mock://localhost").update_actor(batch()) == {
        "metrics": {"loss": 0.5},
        "meta_info": {},
    }
    client.save_checkpoint("/nowhere").result(0)
    assert client.health_check()["status"] == "healthy"


def test_unknown_backends_are_named():
    with pytest.raises(ConfigError, match=r"service\.train_service \(nexrl0\): found backend 'http'"):
        create_train_service_client("http", "http://localhost:5000", "nexrl0")
    with pytest.raises(ConfigError, match="needs this job's command server"):
        create_train_service_client("self-hosted")


def test_the_clients_half_comes_without_torch():
    modules = "nexrl.train_service, nexrl.mock, nexrl.models, nexrl.algorithms.advantages"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
