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
from typing import TYPE_CHECKING, Any, Protocol

from nexrl.types.batch import BatchRow
from nexrl.types.sampling import Completion, Message, SamplingParams
from nexrl.types.trajectory import Trajectory, TrajectoryHeader

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

    def invalidate(self, reason: str) -> None:
        """An update broke off half-way: the tensors are of two versions. Refuse to serve until the next commit."""
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

    def append(self, trajectories: Sequence[Trajectory]) -> list[TrajectoryHeader]:
        """Hand over; returns when the recorder holds them (not yet: when they are durable). The headers come back in
        order, each naming its recorder."""
        ...


class TrajectorySource(Protocol):
    """Where a trainer rank gets its rows."""

    def fetch(self, rows: Iterable[BatchRow]) -> dict[str, Trajectory]:
        """Trajectories by id; raises CommError naming the recorder and the ids that it does not hold."""
        ...


class Tokenizer(Protocol):
    """The part of a transformers tokenizer that rollouts and data loading use."""

    eos_token_id: int | None
    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]:
        """Text to ids."""
        ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str:
        """Ids to text."""
        ...

    def apply_chat_template(
        self,
        conversation: Sequence[Message],
        *,
        tools: Sequence[Any] | None,
        add_generation_prompt: bool,
        tokenize: bool,
    ) -> str:
        """Messages to text (`tokenize=False`)."""
        ...
