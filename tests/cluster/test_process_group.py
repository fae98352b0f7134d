"""Groups of real processes on loopback."""

import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from nexrl.cluster import Identity, Role
from nexrl.cluster.process_group import PrivateGroup, free_store, init_default_group
from nexrl.errors import RoleError, WeightSyncError

pytestmark = pytest.mark.processes

CPU = torch.device("cpu")
LONG = 60.0
PREAMBLE = """
import os, sys, time, torch
import torch.distributed as dist
from pathlib import Path
from nexrl.cluster import Identity, Role
from nexrl.cluster.process_group import PrivateGroup, free_store, init_default_group
from nexrl.errors import WeightSyncError
cpu = torch.device("cpu")
port, rank, world_size = map(int, sys.argv[1:])
def join(epoch=1, timeout=60):
    return PrivateGroup.join(
        "127.0.0.1", port, rank=rank, world_size=world_size, epoch=epoch, timeout=timeout, device=cpu
    )
def identity():
    return Identity(role=Role.TRAINER, group="trainer", rank=rank, world_size=world_size, local_rank=rank, attempt=1,
                    threads=1, run_dir=Path("/nowhere"))
"""


@contextmanager
def members(code, port, ranks, world_size):
    """The other members, each a process that runs `code`; none is left behind."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code, str(port), str(rank), str(world_size)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ranks
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def lead(store, world_size, *, epoch=1, timeout=LONG):
    return PrivateGroup(store, rank=0, world_size=world_size, epoch=epoch, timeout=timeout, device=CPU)


def test_three_processes_broadcast_from_either_end():
    code = """
group = join()
floats, halves = torch.zeros(1000), torch.zeros(3, 3, dtype=torch.bfloat16)
group.broadcast(floats)
group.broadcast(halves)
own = torch.full((2,), rank)
group.broadcast(own, root=2)
print(floats.sum().item(), halves.float().sum().item(), own.tolist())
group.close()
"""
    store = free_store("127.0.0.1", timeout=LONG)
    with members(code, store.port, (1, 2), 3) as processes:
        group = lead(store, 3)
        group.broadcast(torch.ones(1000))
        group.broadcast(torch.full((3, 3), 0.5, dtype=torch.bfloat16))
        own = torch.zeros(2, dtype=torch.int64)
        group.broadcast(own, root=2)
        assert own.tolist() == [2, 2]
        assert [process.communicate(timeout=LONG)[0] for process in processes] == ["1000.0 4.5 [2, 2]\n"] * 2
        group.close()


def test_epochs_meet_one_after_the_other_at_one_store():
    code = """
for epoch in (1, 2):
    group, tensor = join(epoch), torch.zeros(1)
    group.broadcast(tensor)
    print(tensor.item())
    group.close()
"""
    store = free_store("127.0.0.1", timeout=LONG)
    with members(code, store.port, (1,), 2) as (process,):
        for epoch in (1, 2):
            group = lead(store, 2, epoch=epoch)
            group.broadcast(torch.full((1,), float(epoch)))
            if epoch == 2:
                assert process.communicate(timeout=LONG)[0] == "1.0\n2.0\n"
            group.close()


def test_a_missing_member_fails_the_meeting_by_the_deadline():
    store = free_store("127.0.0.1", timeout=LONG)
    with pytest.raises(WeightSyncError, match=r"^weight group 5 \(rank 0 of 2\): meet .*0.3 s"):
        lead(store, 2, epoch=5, timeout=0.3)


def test_a_missing_sender_is_named_by_its_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(WeightSyncError, match=f"weight group 1: no store at 127.0.0.1:{port} within 0.5 s"):
        PrivateGroup.join("127.0.0.1", port, rank=1, world_size=2, epoch=1, timeout=0.5, device=CPU)


def test_a_member_that_dies_breaks_the_group_for_good():
    store = free_store("127.0.0.1", timeout=LONG)
    with members("group = join(); group.broadcast(torch.zeros(1)); os._exit(1)", store.port, (1,), 2) as (process,):
        group = lead(store, 2)
        group.broadcast(torch.zeros(1))
        process.wait(LONG)
        with pytest.raises(WeightSyncError, match=r"weight group 1 \(rank 0 of 2\): broadcast failed"):
            group.broadcast(torch.zeros(1), root=1)
        with pytest.raises(WeightSyncError, match=r"weight group 1 \(rank 0 of 2\): broadcast failed"):
            group.broadcast(torch.zeros(1))


def test_a_member_that_hangs_ends_the_broadcast_by_the_deadline():
    store, joined = free_store("127.0.0.1", timeout=LONG), []

    def join():
        where = {"rank": 1, "world_size": 2, "epoch": 1}
        joined.append(PrivateGroup.join("127.0.0.1", store.port, **where, timeout=LONG, device=CPU))

    hanging = threading.Thread(target=join)
    hanging.start()
    group = lead(store, 2, timeout=2.0)
    hanging.join(LONG)
    with pytest.raises(WeightSyncError, match=r"broadcast (failed within|took longer than) 2 s"):
        group.broadcast(torch.zeros(1), root=1)
    joined[0].close()


def test_closing_ends_a_broadcast_that_waits():
    store = free_store("127.0.0.1", timeout=LONG)
    with members("group = join(); time.sleep(600)", store.port, (1,), 2):
        group, raised = lead(store, 2, timeout=600.0), []

        def receive():
            with pytest.raises(WeightSyncError, match="was closed") as error:
                group.broadcast(torch.zeros(1), root=1)
            raised.append(error)

        waiting = threading.Thread(target=receive)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        group.close()
        waiting.join(LONG)
        assert len(raised) == 1
        with pytest.raises(WeightSyncError, match="was closed"):
            group.broadcast(torch.zeros(1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_means_nccl():
    """One rank: NCCL wants a device for each, and a test machine may have a single one."""
    device = torch.device("cuda", 0)
    store = free_store("127.0.0.1", timeout=LONG)
    group = PrivateGroup(store, rank=0, world_size=1, epoch=1, timeout=LONG, device=device)
    tensor = torch.ones(1000, device=device)
    group.broadcast(tensor)
    assert tensor.sum().item() == 1000
    group.close()


def test_the_default_group_and_a_private_one_live_side_by_side(monkeypatch):
    code = """
store = free_store("127.0.0.1", timeout=60) if rank == 0 else None
init_default_group(identity(), "127.0.0.1", port, 60)
total = torch.full((1,), rank + 1.0)
dist.all_reduce(total)
where = [store.port if store else None]
dist.broadcast_object_list(where)
port = where[0]
if rank == 0:
    group = PrivateGroup(store, rank=0, world_size=2, epoch=1, timeout=60, device=cpu)
else:
    group = join()
tensor = torch.full((1,), 10.0 * (1 - rank))
group.broadcast(tensor)
dist.all_reduce(total)
print(total.item(), tensor.item(), dist.get_world_size())
dist.barrier()
group.close()
dist.destroy_process_group()
"""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with members(code, port, (0, 1), 2) as processes:
        assert [process.communicate(timeout=LONG)[0] for process in processes] == ["6.0 10.0 2\n"] * 2


def test_ranks_that_do_not_come_are_a_role_error(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    identity = Identity(
        role=Role.TRAINER, group="trainer", rank=0, world_size=2, local_rank=0, attempt=1, threads=1, run_dir=Path()
    )
    store = free_store("127.0.0.1", timeout=0.5)
    with pytest.raises(RoleError, match=rf"trainer-0: the 2 trainer ranks did not meet at 127.0.0.1:{store.port}"):
        init_default_group(identity, "127.0.0.1", store.port, 0.5, store=store)
    assert not torch.distributed.is_initialized()


def test_a_store_listens_on_its_address_alone():
    store = free_store("127.0.0.1", timeout=LONG)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", store.port), timeout=LONG)
