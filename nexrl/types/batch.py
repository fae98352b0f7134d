"""What a trainer sends to the train service: who trains on what, with which advantage. Token arrays stay with the
recorders until a trainer rank fetches the rows of its own shard."""

import msgspec


class BatchRow(msgspec.Struct, frozen=True, array_like=True):
    """One sequence to train on."""

    trajectory_id: str
    recorder: str
    num_tokens: int
    num_trained: int
    advantage: float
    """Broadcast over the sequence's trained tokens."""


class MicroBatch(msgspec.Struct, frozen=True, array_like=True):
    """Sequences packed into one forward. Empty = a rank that only takes part in the collectives."""

    rows: tuple[BatchRow, ...]


class MiniBatch(msgspec.Struct, frozen=True, array_like=True):
    """One optimizer step's part of one rank. The totals count all ranks, so the loss is normalised globally."""

    micro_batches: tuple[MicroBatch, ...]
    """As many on every rank."""
    global_tokens: int
    """Trained tokens of this mini-batch over all ranks."""
    global_sequences: int
    """Sequences with at least one trained token, over all ranks."""


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a batch that one data-parallel rank trains on. Controller → trainer rank."""

    step: int
    mini_batches: tuple[MiniBatch, ...]
    """One pass over the rows."""
    temperature: float
    """The sampler's: logits are divided by it before log-probs are taken."""
    epochs: int = 1
    """Passes over the mini-batches."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """One training step. Trainer → TrainServiceClient, which sends each rank its shard."""

    step: int
    shards: tuple[Shard, ...]
    """Index = data-parallel rank."""
    group_ids: tuple[str, ...]
    """Groups that count as trained when the step is done (filtered ones included), ordered by prompt."""
    metrics: dict[str, float] = {}
    """What the algorithm has to say of the batch (`critic/…`, `rollout/…`)."""

    @property
    def rows(self) -> tuple[BatchRow, ...]:
        """Every row of every shard, mini-batch after mini-batch."""
        return tuple(
            row
            for shard in self.shards
            for mini in shard.mini_batches
            for micro in mini.micro_batches
            for row in micro.rows
        )
