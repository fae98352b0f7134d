"""Collectives: torch's default group for the ranks of one role, and private groups that cross roles (weights).

Gloo on CPU, NCCL on CUDA. A private group leaves torch's default group alone: it has a store of its own, and every
operation has a deadline, after which the group is given up for good. These ports cannot be authenticated; they listen
on one address only, while a group lives.
"""

import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import nullcontext, suppress
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore  # torch.distributed has them, untyped

from nexrl.cluster.identity import Identity
from nexrl.errors import RoleError, WeightSyncError

T = TypeVar("T")

_GRACE_SECONDS = 1.0
"""Past the deadline: torch may end the operation by itself, and says more about it."""


def init_default_group(
    identity: Identity, master_address: str, master_port: int, timeout: float, *, store: TCPStore | None = None
) -> None:
    """Make torch's default group of all ranks of this role: Gloo, and NCCL for CUDA tensors where there is CUDA.

    Rank 0 serves the store where they meet: `store`, whose port it has announced, or else one at `master_port`.
    On one machine Gloo needs GLOO_SOCKET_IFNAME (see `interface_of`). `timeout` seconds is the deadline of each of
    the group's collectives, and of this: RoleError where not all ranks have come.
    """
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(identity.local_rank % torch.cuda.device_count())
    try:
        if store is None and identity.rank == 0:
            store = _serve_store(master_address, master_port, timeout=timeout)
        dist.init_process_group(
            backend="cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store or _reach_store(master_address, master_port, timeout=timeout),
            rank=identity.rank,
            world_size=identity.world_size,
            timeout=timedelta(seconds=timeout),
        )
    except (dist.DistError, OSError) as error:
        raise RoleError(
            f"{identity.name}: the {identity.world_size} {identity.role} ranks did not meet at "
            f"{master_address}:{master_port} within {timeout:g} s: {_said(error)}"
        ) from error


def free_store(address: str, *, timeout: float) -> TCPStore:
    """A store where a group meets, served by this process on `address` alone, at a free port (`.port`).

    Rank 0 makes it and hands it to its group; the others get address and port. It serves any number of epochs, and
    waits `timeout` seconds at most for what others are to put there.
    """
    return _serve_store(address, 0, timeout=timeout)


def _serve_store(address: str, port: int, *, timeout: float) -> TCPStore:
    # torch would listen on every address of the host: it gets a socket that is bound to one
    with socket.create_server((address, port), backlog=1024) as listener:
        return TCPStore(
            address,
            listener.getsockname()[1],
            is_master=True,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout),
            master_listen_fd=listener.detach(),
        )


def _reach_store(address: str, port: int, *, timeout: float) -> TCPStore:
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=timeout))


class PrivateGroup:
    """A process group beside torch's default one.

    One thread uses it at a time; `close` may come from any thread, and ends what another waits for. A failure or a
    missed deadline breaks the group for good: its members make a new one, under the next epoch.
    """

    def __init__(
        self,
        store: Store,
        *,
        rank: int,
        world_size: int,
        epoch: int,
        timeout: float,
        device: torch.device,
        host_address: str = "127.0.0.1",
    ) -> None:
        """Meet the other members; Gloo for a CPU `device`, on the interface of `host_address`, NCCL for a CUDA one.

        `timeout` seconds is the deadline of this and of each later operation; missing it raises WeightSyncError.
        """
        self._name = f"weight group {epoch} (rank {rank} of {world_size})"
        self._timeout = timeout
        self._device = device
        self._lock = threading.Lock()
        self._running: Future[Any] | None = None
        self._broken = ""
        self._store = PrefixStore(f"epoch-{epoch}", store)
        make = partial(_make_nccl, device=device) if device.type == "cuda" else partial(_make_gloo, host=host_address)
        self._group: Any = None  # torch's Backend, whose stubs lack most methods
        self._group = self._run("meet", lambda: make(self._store, rank, world_size, timedelta(seconds=timeout)))

    @classmethod
    def join(
        cls, address: str, port: int, *, rank: int, world_size: int, epoch: int, timeout: float, device: torch.device
    ) -> Self:
        """Join as a member other than rank 0: the store is served at `address:port`."""
        try:
            store = _reach_store(address, port, timeout=timeout)
        except dist.DistError as error:
            raise WeightSyncError(f"weight group {epoch}: no store at {address}:{port} within {timeout:g} s") from error
        return cls(store, rank=rank, world_size=world_size, epoch=epoch, timeout=timeout, device=device)

    def broadcast(self, tensor: torch.Tensor, root: int = 0) -> None:
        """Fill `tensor` (contiguous, on the group's device) with the root's; returns when it is there.

        On CUDA that means: on the caller's current stream. Raises WeightSyncError: a member is missing or died,
        deadline, closed.
        """
        options = dist.BroadcastOptions()
        options.rootRank, options.rootTensor = root, 0
        group = self._group

        def operation() -> None:
            # The thread's own reference: torch's destructor waits for running operations with the GIL held, so that
            # the last reference must not go (in `close`) before this operation has ended.
            group.broadcast([tensor], options).wait()

        self._run("broadcast", operation)

    def close(self) -> None:
        """Leave the group; a running operation raises WeightSyncError at once. Safe to repeat."""
        self._break("was closed")
        group, self._group = self._group, None
        if group is not None and self._device.type == "cuda":
            group.abort()  # Gloo has no abort: a running operation ends by its own deadline, on its abandoned thread

    def _run(self, verb: str, operation: Callable[[], T]) -> T:
        """The result of `operation`, which runs on a thread that is given up at the deadline."""
        outcome: Future[T] = Future()
        with self._lock:
            if self._broken:
                raise WeightSyncError(f"{self._name}: {self._broken}")
            self._running = outcome
        stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None

        def work() -> None:
            try:
                with torch.cuda.stream(stream) if stream is not None else nullcontext():
                    result = operation()
            except Exception as error:  # noqa: BLE001 (raised again on the thread that waits)
                _settle(outcome.set_exception, error)
            else:
                _settle(outcome.set_result, result)

        threading.Thread(target=work, name=f"{self._name} {verb}", daemon=True).start()
        try:
            return outcome.result(self._timeout + _GRACE_SECONDS)
        except WeightSyncError:
            raise
        except TimeoutError as error:
            self._break(f"{verb} took longer than {self._timeout:g} s")
            raise WeightSyncError(f"{self._name}: {self._broken}") from error
        except RuntimeError as error:  # what torch raises, its DistErrors included
            self._break(f"{verb} failed within {self._timeout:g} s: {_said(error)}")
            raise WeightSyncError(f"{self._name}: {self._broken}") from error

    def _break(self, reason: str) -> None:
        with self._lock:
            self._broken = self._broken or reason
            running = self._running
        if running is not None:
            _settle(running.set_exception, WeightSyncError(f"{self._name}: {self._broken}"))


def _settle(settle: Callable[[Any], None], value: Any) -> None:
    """Whichever end of an operation comes first counts."""
    with suppress(InvalidStateError):
        settle(value)


def _said(error: Exception) -> str:
    """What torch says went wrong, without where in its sources, its guesses, and the C++ stack."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return re.sub(r"^\[\S*\] ", "", line).partition(". This is typically")[0]


def _make_gloo(store: Store, rank: int, world_size: int, timeout: timedelta, *, host: str) -> Any:
    gloo: Any = dist.ProcessGroupGloo  # whose stubs lack the options that can name an interface
    options = gloo._Options()
    options._timeout = timeout
    options._devices = [gloo.create_device(hostname=host)]
    options._threads = 1
    return gloo(store, rank, world_size, options)


def _make_nccl(store: Store, rank: int, world_size: int, timeout: timedelta, *, device: torch.device) -> Any:
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timeout
    group = dist.ProcessGroupNCCL(store, rank, world_size, options)
    group.eager_connect_single_device(device)  # meet now: NCCL would wait for the first collective
    return group
