"""Where packages of one layer meet: each Protocol is implemented by one package and used by another.

| Protocol         | implemented by                      | used by            |
|------------------|-------------------------------------|--------------------|
| EngineClient     | nexrl.inference                     | nexrl.rollout      |
| EngineControl    | nexrl.inference                     | nexrl.weights      |
| WeightTarget     | nexrl.inference (the loaded model)  | nexrl.weights      |
| WeightReceiver   | nexrl.weights                       | nexrl.inference    |
| WeightSource     | nexrl.train_service (the backend)   | nexrl.weights      |
| TrajectorySink   | nexrl.comm + nexrl.store            | nexrl.rollout      |
| TrajectorySource | nexrl.comm + nexrl.store            | nexrl.train_service |
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from nexrl.types.batch import BatchRow
from nexrl.types.sampling import Completion, SamplingParams
from nexrl.types.trajectory import Trajectory

if TYPE_CHECKING:
    import torch


class EngineClient(Protocol):
    """Token ids in, token ids out."""

    def generate(
        self, prompt_ids: Sequence[int], *, sampling: SamplingParams, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion per seed, in the order of the seeds; raises InferenceError when retries are used up."""
        ...


class EngineControl(Protocol):
    """One engine replica as the weight plane sees it. Every call raises WeightSyncError on failure or deadline."""

    @property
    def name(self) -> str:
        """`inference-<rank>`, for messages."""
        ...

    def pause(self) -> None:
        """Let running requests finish and hold new ones back; returns when none runs."""
        ...

    def init_transfer(self, *, master_address: str, master_port: int, rank: int, world_size: int, epoch: int) -> None:
        """Join the weight group `epoch` as `rank`; a former group is left."""
        ...

    def update_weights(self, *, version: int) -> None:
        """Receive one full set of weights from the group and serve it as `version`; returns when it is in place."""
        ...

    def resume(self) -> None:
        """Serve again."""
        ...


class WeightTarget(Protocol):
    """A model that takes new weights in place (engine side)."""

    def parameters(self) -> Mapping[str, "torch.Tensor"]:
        """Destination tensors by Hugging Face name, tied ones once."""
        ...

    def commit(self, version: int) -> None:
        """All tensors have arrived and their checksum holds: serve them as `version`, drop caches of older ones."""
        ...


class WeightReceiver(Protocol):
    """The engine's end of the weight group; the engine's control routes call it while no request runs."""

    def join(self, *, master_address: str, master_port: int, rank: int, world_size: int, epoch: int) -> None:
        """Join the group `epoch`; returns at once, the rendezvous itself goes on in the background until `receive`."""
        ...

    def receive(self, *, version: int) -> None:
        """Take one full set of weights into the WeightTarget and commit it; raises WeightSyncError."""
        ...


class WeightSource(Protocol):
    """A model that gives its weights away, whole tensor by whole tensor (trainer side)."""

    def tensors(self) -> "Iterator[tuple[str, torch.Tensor]]":
        """Full tensors by Hugging Face name, tied ones once. Collective: every rank must exhaust it."""
        ...


class TrajectorySink(Protocol):
    """Where a rollout worker delivers what it made."""

    def append(self, trajectories: Sequence[Trajectory]) -> None:
        """Hand over; returns when the recorder holds them (not yet: when they are durable)."""
        ...


class TrajectorySource(Protocol):
    """Where a trainer rank gets its rows."""

    def fetch(self, rows: Iterable[BatchRow]) -> dict[str, Trajectory]:
        """Trajectories by id; raises CommError naming the recorder and the ids that it does not hold."""
        ...
