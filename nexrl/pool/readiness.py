"""When a batch is ready, and which prompts it is made of: pure functions on the prompts that wait.

`waiting` are the prompts that no batch has taken yet, in the order of their admission; `drained` says that no other
will ever follow. Each returns the prompts of the batch, or None where it is not ready. A batch has `size` prompts, and
fewer only when the data has ended or prompts were dropped.

- `batch_size_reached`: any `size` finished prompts, oldest first; a dropped prompt is replaced by another.
- `loaded_batch_finished`: the `size` oldest prompts, when all of them have ended; a dropped one leaves a gap.
- `batch_size_reached_and_loaded_batch_finished`: the `size` oldest prompts, when all of them have finished; a dropped
  one is replaced by another.

The second and third make the same batches whatever the timing. Where a dropped prompt leaves a gap it keeps its slot
until its batch is over: the prompt that took it would be sampled one version too early.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nexrl.pool.prompt import Prompt, PromptState


@dataclass(frozen=True)
class Criterion:
    """One way to make batches."""

    choose: Callable[[Sequence[Prompt], int, bool], list[Prompt] | None]
    """(waiting, size, drained) → batch."""
    replaces_dropped: bool
    """Dropped prompts are not among `waiting`, and free their slot at once."""


def _any_finished(waiting: Sequence[Prompt], size: int, drained: bool) -> list[Prompt] | None:
    finished = [prompt for prompt in waiting if prompt.state is PromptState.FINISHED][:size]
    all_there = drained and len(finished) == len(waiting)
    return finished if len(finished) == size or all_there else None


def _oldest_ended(waiting: Sequence[Prompt], size: int, drained: bool) -> list[Prompt] | None:
    oldest = list(waiting[:size])
    if len(oldest) < size and not drained:
        return None
    return None if any(prompt.state is PromptState.OPEN for prompt in oldest) else oldest


CRITERIA = {
    "batch_size_reached": Criterion(_any_finished, replaces_dropped=True),
    "loaded_batch_finished": Criterion(_oldest_ended, replaces_dropped=False),
    "batch_size_reached_and_loaded_batch_finished": Criterion(_oldest_ended, replaces_dropped=True),
}
"""`trajectory_pool.check_batch_ready_function` → criterion."""
