"""What the pool waits for, in words: for the stall watchdog and for whoever looks at a run that does not move."""

from collections import defaultdict
from collections.abc import Sequence

from nexrl.pool.leases import Lease, Leases
from nexrl.pool.prompt import Prompt, PromptState
from nexrl.pool.prompt_book import PromptBook

_SHOWN = 5


def describe(*, rule: str, book: PromptBook, leases: Leases, now: float) -> str:
    """A few lines: the batch rule, the prompts that are not finished with who works on them, and who idles."""
    states = {state: sum(prompt.state is state for prompt in book.waiting) for state in PromptState}
    lines = [
        f"pool waits for a batch ({rule}): {states[PromptState.FINISHED]} finished, {states[PromptState.OPEN]} open, "
        f"{states[PromptState.DROPPED]} dropped; {book.slots.total - book.slots.free} of {book.slots.total} slots in "
        f"use; {'no more data' if book.drained else 'data goes on'}"
    ]
    held: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases.leased:
        held[lease.task.group_id].append(lease)
    unfinished = [prompt for prompt in book.waiting if prompt.state is PromptState.OPEN]
    lines += [_prompt_line(prompt, held[prompt.group_id], now) for prompt in unfinished[:_SHOWN]]
    if len(unfinished) > _SHOWN:
        lines.append(f"  … and {len(unfinished) - _SHOWN} more")
    idle = ", ".join(leases.waiting_workers) or "none"
    lines.append(f"  tasks queued: {len(leases)}; workers that wait for a task: {idle}")
    return "\n".join(lines)


def _prompt_line(prompt: Prompt, leases: Sequence[Lease], now: float) -> str:
    missing = sorted(prompt.attempts)
    line = f"  {prompt.group_id}: {len(missing)} of {prompt.num_samples} samples missing (runs {missing})"
    by_worker: dict[str, list[Lease]] = defaultdict(list)
    for lease in leases:
        by_worker[lease.worker].append(lease)
    for worker, held in by_worker.items():
        line += f"; {worker} has {len(held)} for {now - held[0].since:.0f} s (attempt {held[0].task.attempt})"
    if len(leases) < len(missing):
        line += f"; {len(missing) - len(leases)} with no worker"
    return line + (f"; last failure: {prompt.last_failure}" if prompt.last_failure else "")
