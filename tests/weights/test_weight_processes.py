"""The same over real processes, and what is left when one of them is killed."""

import gc
import multiprocessing
import re
from pathlib import Path

import pytest
import torch
from weight_parts import Source, Target, make_receiver, make_sender, random_tensors, zeros_like

from nexrl.errors import WeightSyncError
from nexrl.weights.calls import in_background

pytestmark = [pytest.mark.processes]
MIB = 2**20
LARGE_BUCKET = 8 * MIB


def large_tensors():
    """128 MiB in tensors of 32."""
    return {f"layer{index}": torch.full((8 * MIB,), float(index)) for index in range(4)}


def reset_peak():
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak counts from here
    return peak_bytes()


def peak_bytes():
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


def engine_process(pipe, timeout):
    """Serves updates until told `end`: (`join`, group), (`receive`, version), (`large`, None)."""
    torch.set_num_threads(1)
    tensors = random_tensors(30)
    target = Target(zeros_like(tensors))
    receiver = make_receiver(target, timeout=timeout)
    while True:
        verb, argument = pipe.recv()
        if verb == "large":
            target = Target(zeros_like(large_tensors()))
            receiver = make_receiver(target, timeout=timeout)
        elif verb == "join":
            receiver.join(**argument)
        elif verb == "hold":  # stops in the middle of its next update, and says so

            def parameters(pipe=pipe, found=target.by_name):
                pipe.send("holding")
                pipe.recv()
                return found

            target.parameters = parameters
        elif verb == "receive":
            before = reset_peak()
            try:
                receiver.receive(version=argument)
            except WeightSyncError as error:
                pipe.send(("failed", str(error), target.invalid))
                continue
            extra = peak_bytes() - before
            pipe.send((target.version, sums(target.by_name), extra))
        else:
            return


def sender_process(pipe):
    """A trainer that stops before its tensor `embed`, in the second walk."""
    torch.set_num_threads(1)

    class Holding(Source):
        def tensors(self):
            for name, tensor in self.by_name.items():
                if name == "embed" and self.walks:
                    pipe.send("holding")
                    pipe.recv()
                yield name, tensor
            self.walks += 1

    sender = make_sender(Holding(random_tensors(30)))
    address = sender.open_group(world_size=2, epoch=1)
    pipe.send((address.address, address.port))
    sender.send(version=1)


class Process:
    def __init__(self, target, *args):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def told(self):
        assert self.pipe.poll(120), "the process says nothing"
        return self.pipe.recv()

    def kill(self):
        self._process.kill()
        self._process.join()


@pytest.fixture
def processes():
    started = []

    def start(target, *args):
        started.append(Process(target, *args))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def join(sender, engines, *, epoch):
    address = sender.open_group(world_size=len(engines) + 1, epoch=epoch)
    for rank, engine in enumerate(engines, start=1):
        group = {
            "master_address": address.address,
            "master_port": address.port,
            "rank": rank,
            "world_size": len(engines) + 1,
            "epoch": epoch,
        }
        engine.pipe.send(("join", group))


def sums(tensors):
    return {name: tensor.double().sum().item() for name, tensor in tensors.items()}


def test_two_engine_processes_take_updates_and_one_survives_the_other(processes):
    engines = [processes(engine_process, 10.0) for _ in range(2)]
    tensors = random_tensors(31)
    sender = make_sender(Source(tensors), timeout=10.0)
    join(sender, engines, epoch=1)
    for version in (1, 2):
        for tensor in tensors.values():
            tensor.mul_(-2.0)
        for engine in engines:
            engine.pipe.send(("receive", version))
        sender.send(version=version)
        for engine in engines:
            assert engine.told()[:2] == (version, sums(tensors))

    lost, left = engines
    lost.pipe.send(("hold", None))
    for engine in engines:
        engine.pipe.send(("receive", 3))
    sending = in_background("send", lambda: sender.send(version=3))
    assert lost.told() == "holding"
    lost.kill()
    assert isinstance(sending.exception(60), WeightSyncError)
    state, message, _ = left.told()
    assert (state, "weight group 1" in message) == ("failed", True)

    join(sender, [left], epoch=2)
    left.pipe.send(("receive", 3))
    sender.send(version=3)
    assert left.told()[:2] == (3, sums(tensors))


def test_a_sender_killed_half_way_leaves_an_engine_that_does_not_serve(processes):
    trainer = processes(sender_process)
    target = Target(zeros_like(random_tensors(30)))
    receiver = make_receiver(target, timeout=10.0)
    address, port = trainer.told()
    receiver.join(master_address=address, master_port=port, rank=1, world_size=2, epoch=1)
    receiving = in_background("receive", lambda: receiver.receive(version=1))
    assert trainer.told() == "holding"
    trainer.kill()
    assert isinstance(receiving.exception(60), WeightSyncError)
    assert target.version == 0
    assert "version 1 broke off" in target.invalid


def test_extra_memory_stays_within_two_tensors(processes):
    engine = processes(engine_process, 60.0)
    engine.pipe.send(("large", None))
    tensors = large_tensors()
    sender = make_sender(Source(tensors), bucket_bytes=LARGE_BUCKET, timeout=60.0)
    join(sender, [engine], epoch=1)
    engine.pipe.send(("receive", 1))
    before = reset_peak()
    sent = sender.send(version=1)
    sender_extra = peak_bytes() - before
    version, _, receiver_extra = engine.told()
    assert (version, sent) == (1, 128 * MIB)
    print(f"extra MiB: sender {sender_extra / MIB:.1f}, receiver {receiver_extra / MIB:.1f}")
    assert max(sender_extra, receiver_extra) <= 2 * max(LARGE_BUCKET, tensors["layer0"].nbytes)
