"""Who trains on what: a batch cut into optimizer steps, ranks and forwards. Pure, without torch."""

import heapq
from collections.abc import Sequence

from nexrl.types import BatchRow, MicroBatch, MiniBatch, Shard


def plan_shards(
    mini_batches: Sequence[Sequence[BatchRow]],
    *,
    world_size: int,
    epochs: int,
    max_tokens: int,
    step: int,
    temperature: float,
) -> tuple[Shard, ...]:
    """One shard per data-parallel rank, index = rank.

    `mini_batches` holds the rows of one optimizer step each; every epoch passes over all of them in order. Within a
    step the rows are dealt to the ranks so that tokens are balanced, then packed into micro-batches of at most
    `max_tokens` (a longer row has one of its own), as many on every rank: empty ones fill up. Equal input gives an
    equal plan.
    """
    plans = [_plan_mini_batch(rows, world_size, max_tokens) for rows in mini_batches]
    return tuple(
        Shard(step=step, mini_batches=tuple(plan[rank] for plan in plans), temperature=temperature, epochs=epochs)
        for rank in range(world_size)
    )


def _plan_mini_batch(rows: Sequence[BatchRow], world_size: int, max_tokens: int) -> list[MiniBatch]:
    """One optimizer step: its part for every rank."""
    packed = [_pack(part, max_tokens) for part in _deal(rows, world_size)]
    count = max(1, max(len(micro_batches) for micro_batches in packed))
    tokens = sum(row.num_trained for row in rows)
    sequences = sum(row.num_trained > 0 for row in rows)
    return [
        MiniBatch(
            micro_batches=tuple(micro_batches) + (MicroBatch(rows=()),) * (count - len(micro_batches)),
            global_tokens=tokens,
            global_sequences=sequences,
        )
        for micro_batches in packed
    ]


def _deal(rows: Sequence[BatchRow], world_size: int) -> list[list[BatchRow]]:
    """Longest first, each to the rank with the fewest tokens; within a rank in the order of the batch."""
    loads = [(0, rank) for rank in range(world_size)]
    chosen: list[list[int]] = [[] for _ in range(world_size)]
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].num_tokens, i)):
        load, rank = heapq.heappop(loads)
        chosen[rank].append(index)
        heapq.heappush(loads, (load + rows[index].num_tokens, rank))
    return [[rows[index] for index in sorted(indices)] for indices in chosen]


def _pack(rows: Sequence[BatchRow], max_tokens: int) -> list[MicroBatch]:
    """First fit, longest first; within a micro-batch in the order of the batch."""
    bins: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(rows)), key=lambda i: (-rows[i].num_tokens, i)):
        size = rows[index].num_tokens
        fit = next((i for i, (used, _) in enumerate(bins) if used + size <= max_tokens), None)
        if fit is None:
            bins.append((size, [index]))
        else:
            used, indices = bins[fit]
            bins[fit] = (used + size, [*indices, index])
    return [MicroBatch(rows=tuple(rows[i] for i in sorted(indices))) for _, indices in bins]
