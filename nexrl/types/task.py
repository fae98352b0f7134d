"""What the pool hands to a rollout worker."""

from typing import Any

import msgspec

from nexrl.types.sampling import Message, SamplingParams


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt to roll out `len(run_ids)` times. Controller (pool) → rollout worker, on lease.

    `order` is the prompt's place in the stream of issued prompts: batches are sorted by it, and every random
    number of the prompt is keyed by (`seed`, run id, turn), never by time or place.
    """

    task_id: str
    """The data row: the same row in another epoch has the same task id."""
    group_id: str
    """Unique per issue of the row: it holds the epoch."""
    order: int
    run_ids: tuple[int, ...]
    """The samples wanted by this lease; a retry names only those still missing."""
    attempt: int
    """0 for the first issue, +1 for every reissue."""
    is_val: bool
    prompt: str | list[Message]
    ground_truth: Any
    """As the data row has it: text, number or list; None where the row has none."""
    data_source: str
    seed: int
    sampling: SamplingParams
    model_tag: str = "default"
    fields: dict[str, Any] = {}
    """The remaining columns of the data row, for rollout workers and evaluators."""
