from concurrent.futures import Future
from threading import Event

import pytest
from weight_parts import Source, Target, make_receiver, make_sender, random_tensors, zeros_like

from nexrl.comm import CurveClient, CurveServer, RpcClient, RpcServer, RunKeys
from nexrl.errors import TrainingError, WeightSyncError
from nexrl.types import OpenGroup, SendWeights
from nexrl.weights import ABORT_GROUP, OPEN_GROUP, SEND_WEIGHTS, WeightSyncController, ZmqWeightPublisher, need_block
from nexrl.weights.calls import in_background


class Engine:
    """An EngineControl around a real receiver, without HTTP."""

    def __init__(self, name, tensors, events):
        self.name = name
        self.target = Target(zeros_like(tensors))
        self.receiver = make_receiver(self.target, timeout=10.0)
        self.events = events
        self.fail = {}

    def _note(self, verb):
        self.events.append((verb, self.name))
        if verb in self.fail:
            self.fail.pop(verb)()

    def pause(self):
        self._note("pause")

    def init_transfer(self, **group):
        self._note(f"join {group['epoch']}")
        self.receiver.join(**group)

    def update_weights(self, *, version):
        self._note(f"update {version}")
        self.receiver.receive(version=version)

    def resume(self):
        self._note("resume")


class Publisher:
    """A WeightPublisher around a real sender, without a socket."""

    def __init__(self, source):
        self.sender = make_sender(source, timeout=10.0)
        self.aborted = 0

    def open_group(self, *, world_size, epoch):
        return self.sender.open_group(world_size=world_size, epoch=epoch)

    def send(self, *, version):
        return in_background("send", lambda: self.sender.send(version=version))

    def abort(self):
        self.aborted += 1
        self.sender.abort()


class Setup:
    def __init__(self, *, engines=2, timeout=30.0):
        self.tensors = random_tensors(20)
        self.events = []
        self.engines = [Engine(f"inference-{rank}", self.tensors, self.events) for rank in range(engines)]
        self.publisher = Publisher(Source(self.tensors))
        self.controller = WeightSyncController(self.engines, self.publisher, timeout=timeout)

    def verbs(self):
        """Verbs in order, each as often as engines did it at once."""
        return [verb for verb, _ in self.events]

    def versions(self):
        return [engine.target.version for engine in self.engines]


def refuse():
    raise WeightSyncError("engine refused")


def test_all_engines_pause_then_update_then_resume():
    setup = Setup()
    report = setup.controller.publish(1)
    assert setup.verbs() == ["join 1"] * 2 + ["pause"] * 2 + ["update 1"] * 2 + ["resume"] * 2
    assert setup.versions() == [1, 1]
    assert (report.version, report.epoch, report.engines) == (1, 1, 2)
    assert report.bytes == sum(tensor.nbytes for tensor in setup.tensors.values())
    assert min(report.group_seconds, report.pause_seconds, report.transfer_seconds, report.resume_seconds) > 0
    assert setup.controller.state == "running"
    assert (setup.controller.train_model_version, setup.controller.rollout_model_version) == (1, 1)


def test_the_group_is_made_once_and_again_when_members_change():
    setup = Setup()
    setup.controller.publish(1)
    setup.controller.publish(2)
    setup.controller.publish(3)
    assert setup.verbs().count("join 1") == 2
    setup.engines.append(Engine("inference-2", setup.tensors, setup.events))
    setup.controller.rejoin(setup.engines)
    assert setup.controller.publish(3).epoch == 2  # the same version again: the newcomer has none
    assert setup.verbs().count("join 2") == 3
    assert setup.versions() == [3, 3, 3]


def test_a_batch_makes_new_weights_due():
    setup = Setup(engines=1)
    assert setup.controller.state == "running"
    setup.controller.batch_taken()
    assert setup.controller.state == "need_sync"
    setup.controller.publish(1)
    assert setup.controller.state == "running"


@pytest.mark.parametrize(
    ("verb", "resumed"), [("join 1", False), ("pause", False), ("update 1", False), ("resume", True)]
)
def test_an_engine_that_fails_is_named_and_the_next_update_makes_it_good(verb, resumed):
    setup = Setup()
    setup.engines[1].fail[verb] = refuse
    with pytest.raises(WeightSyncError, match="inference-1: engine refused"):
        setup.controller.publish(1)
    assert ("resume" in setup.verbs()) is resumed
    assert setup.controller.state == "need_sync"
    assert setup.controller.rollout_model_version == 0
    setup.events.clear()
    assert setup.controller.publish(1).epoch == 2
    assert setup.versions() == [1, 1]
    assert setup.verbs()[-2:] == ["resume"] * 2
    assert setup.controller.state == "running"


def test_an_engine_that_hangs_is_given_up_at_the_deadline():
    setup = Setup(timeout=2.0)
    release = Event()
    setup.engines[0].fail["update 1"] = lambda: release.wait(60)
    with pytest.raises(WeightSyncError, match=r"inference-0: no answer within"):
        setup.controller.publish(1)
    assert setup.publisher.aborted == 1
    release.set()


def test_a_trainer_that_fails_is_named():
    setup = Setup()

    def failed(*, version):
        future = Future()
        future.set_exception(TrainingError(f"rank 1 has no version {version}"))
        return future

    setup.publisher.send = failed
    with pytest.raises(WeightSyncError, match="trainer: TrainingError: rank 1 has no version 1"):
        setup.controller.publish(1)
    assert "resume" not in setup.verbs()


def test_an_older_version_is_refused():
    setup = Setup(engines=1)
    setup.controller.publish(2)
    with pytest.raises(WeightSyncError, match="version 1 is older than 2"):
        setup.controller.publish(1)
    assert setup.controller.state == "running"


def test_without_engines_an_update_is_only_counted():
    setup = Setup(engines=0)
    report = setup.controller.publish(1)
    assert (report.bytes, report.engines) == (0, 0)
    assert setup.controller.rollout_model_version == 1


def test_two_engines_of_one_name_are_refused():
    setup = Setup(engines=1)
    with pytest.raises(ValueError, match="names of their own"):
        WeightSyncController(setup.engines * 2, setup.publisher, timeout=1.0)


@pytest.mark.parametrize("threshold", [0, 1, 2, 5])
def test_syncs_come_after_every_threshold_plus_one_steps(threshold):
    rollout = 0
    synced_after, lags = [], []
    for train in range(4 * (threshold + 1)):
        lags.append(train - rollout)
        if need_block(train_version=train, rollout_version=rollout, threshold=threshold):
            rollout = train + 1
            synced_after.append(train + 1)
    assert synced_after == [(threshold + 1) * times for times in (1, 2, 3, 4)]
    assert lags == list(range(threshold + 1)) * 4


def test_fully_async_never_blocks():
    assert not need_block(train_version=1000, rollout_version=0, threshold=None)


def test_publishing_over_the_command_socket_reaches_every_trainer_rank():
    tensors = random_tensors(21)
    sources = [Source(tensors), Source(tensors)]
    senders = [make_sender(source, rank=rank) for rank, source in enumerate(sources)]
    keys = RunKeys.generate()
    server = RpcServer(bind="tcp://127.0.0.1:0", security=CurveServer(keys), name="controller")
    server.expose("hello", None, lambda *_: None)
    clients = [
        RpcClient(server.address, security=CurveClient(keys), name=f"trainer-{rank}") for rank in range(len(senders))
    ]
    for client, sender in zip(clients, senders, strict=True):
        client.expose(
            OPEN_GROUP,
            OpenGroup,
            lambda _, request, sender=sender: sender.open_group(world_size=request.world_size, epoch=request.epoch),
        )
        client.expose(SEND_WEIGHTS, SendWeights, lambda _, request, sender=sender: sender.send(version=request.version))
        client.expose(ABORT_GROUP, None, lambda _, request, sender=sender: sender.abort())
        client.call("hello", None, None, timeout=20.0)
    publisher = ZmqWeightPublisher(server, ["trainer-0", "trainer-1"], timeout=20.0)
    engine = Engine("inference-0", tensors, [])
    controller = WeightSyncController([engine], publisher, timeout=30.0)
    try:
        assert controller.publish(1).bytes == sum(tensor.nbytes for tensor in tensors.values())
        assert engine.target.version == 1
        assert [source.walks for source in sources] == [2, 2]
        engine.fail["update 2"] = refuse
        with pytest.raises(WeightSyncError, match="inference-0: engine refused"):
            controller.publish(2)
        assert controller.publish(2).epoch == 2
        clients[1].close()
        with pytest.raises(WeightSyncError, match="trainer: CommError: trainer-1"):
            controller.publish(3)
    finally:
        for client in clients:
            client.close()
        server.close()


def test_an_address_that_nobody_serves_is_an_error():
    receiver = make_receiver(Target(random_tensors(22)), timeout=1.0)
    receiver.join(master_address="127.0.0.1", master_port=1, rank=1, world_size=2, epoch=1)
    with pytest.raises(WeightSyncError, match=r"127\.0\.0\.1:1"):
        receiver.receive(version=1)
