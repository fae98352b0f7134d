"""The book of prompts in the pool: their states, slots, groups and ledger. Not thread-safe: the pool locks."""

from collections import Counter
from collections.abc import Iterable, Sequence

from nexrl.config.schema import TrajectoryPoolConfig
from nexrl.pool.create import create_store
from nexrl.pool.ledger import Ledger
from nexrl.pool.prompt import Prompt, PromptState
from nexrl.pool.readiness import CRITERIA
from nexrl.pool.slots import Slots
from nexrl.types import Task, TrajectoryGroup, TrajectoryHeader

RUN_ENDED = "run ended"
"""Why prompts are dropped that an ending run leaves; all other reasons are the prompt's own."""


class PromptBook:
    """Every change of a prompt's state happens here, and is written to the ledger here."""

    def __init__(self, config: TrajectoryPoolConfig, *, batch_size: int, slots: int, ledger: Ledger) -> None:
        self._config = config
        self._size = batch_size
        self.ledger = ledger
        self._criterion = CRITERIA[config.check_batch_ready_function]
        self._store = create_store(config.key_list)
        self._prompts: dict[str, Prompt] = {}
        self._members: dict[str, set[str]] = {}
        """Group id → prompts, for groups of a batch whose id is no prompt's."""
        self._dropped_in_a_row = 0
        self.slots = Slots(slots)
        self.waiting: list[Prompt] = []
        """In no batch yet, in the order of their admission; with gaps where the criterion leaves them."""
        self.counts: Counter[str] = Counter()
        self.drained = False
        """No prompt follows."""
        self.lost_since_batch = 0
        """Prompts that gave nothing since the last batch with anything in it."""
        self.last_drop = ""
        """Prompt, reason and detail of the newest drop."""
        self.let_go: list[str] = []
        """Trajectory ids of samples that were in when their prompt was dropped."""

    def admit(self, task: Task) -> None:
        """A new prompt; raises ValueError where no slot is free or the group id is here already."""
        if self.slots.free < 1:
            raise ValueError(f"{task.group_id}: all {self.slots.total} slots are in use; wait_for_slot says when")
        if task.group_id in self._prompts:
            raise ValueError(f"{task.group_id} is in the pool already: a group id must be unique")
        self.ledger.issued(task.group_id, task.order)
        prompt = Prompt(task, slot=self.slots.charge())
        self._prompts[task.group_id] = prompt
        self.waiting.append(prompt)
        self.counts["issued"] += 1
        self.drained = False

    def awaits(self, group_id: str, run_id: int, attempt: int) -> bool:
        """Whether this attempt at this sample still counts."""
        prompt = self._prompts.get(group_id)
        return prompt is not None and prompt.state is PromptState.OPEN and prompt.attempts.get(run_id) == attempt

    def count_unawaited(self, group_id: str, run_id: int) -> None:
        """A sample came that nobody awaits: in already, or too late."""
        prompt = self._prompts.get(group_id)
        self.counts["duplicate" if prompt is not None and run_id in prompt.headers else "late"] += 1

    def start(self, task: Task, now: float) -> None:
        """A worker has the task: `group_timeout` counts from the first time."""
        prompt = self._prompts.get(task.group_id)
        if prompt is not None and prompt.started is None:
            prompt.started = now

    def accept(self, group_id: str, run_id: int, headers: tuple[TrajectoryHeader, ...]) -> None:
        """An awaited sample is in."""
        prompt = self._prompts[group_id]
        prompt.accept(run_id, headers)
        self._end_if_complete(prompt, "attempts used up")

    def retry(self, group_id: str, run_ids: Sequence[int], *, attempt: int, reason: str) -> Task | None:
        """Awaited samples gave nothing: the task that tries them again, if they have attempts left."""
        prompt = self._prompts[group_id]
        prompt.last_failure = reason
        task = prompt.retry(run_ids, attempt=attempt, max_attempts=self._config.max_attempts)
        if task is not None:
            self.counts["reissued"] += len(run_ids)
        self._end_if_complete(prompt, "attempts used up")
        return task

    def expire(self, now: float) -> bool:
        """Give up the missing samples of prompts whose time is over; whether there were any."""
        late = [prompt for prompt in self._running() if now >= self._deadline(prompt)]
        for prompt in late:
            prompt.attempts.clear()
            self._end_if_complete(prompt, "group timeout")
        return bool(late)

    def next_expiry(self) -> float | None:
        """When `expire` has something to do next."""
        return min((self._deadline(prompt) for prompt in self._running()), default=None)

    def next_batch(self) -> list[Prompt] | None:
        """Prompts of the next batch where it is ready.

        A batch without prompts says that as many as make a batch were dropped, one after the other: a caller that
        waited for their replacements could wait for ever.
        """
        batch = self._criterion.choose(self.waiting, self._size, self.drained)
        if batch is None and self._criterion.replaces_dropped and self._dropped_in_a_row >= self._size:
            return []
        return batch

    def take(self, batch: Sequence[Prompt]) -> list[TrajectoryGroup]:
        """The groups of a batch; its slots stay charged until `release`."""
        taken = [prompt for prompt in batch if prompt.state is PromptState.FINISHED]
        gaps = [prompt for prompt in batch if prompt.state is PromptState.DROPPED]
        self.slots.bind([prompt.slot for prompt in taken], [prompt.slot for prompt in gaps])
        for prompt in taken:
            prompt.state = PromptState.TAKEN
        self.waiting = [prompt for prompt in self.waiting if prompt not in batch]
        self.lost_since_batch = 0 if taken else self.lost_since_batch + max(len(gaps), self._dropped_in_a_row)
        self._dropped_in_a_row = 0
        groups = self._store.take({prompt.group_id for prompt in taken})
        self._members |= {
            group.group_id: {header.group_id for header in group.headers}
            for group in groups
            if group.group_id not in self._prompts
        }
        return groups

    def mark_trained(self, group_ids: Iterable[str]) -> tuple[str, ...]:
        """The step of these groups is done: their prompts, by order. Raises ValueError for a group that no batch holds,
        or that is trained already."""
        names = list(group_ids)
        unknown = [name for name in names if name not in self._prompts and name not in self._members]
        if unknown:
            raise ValueError(f"no batch holds {unknown}")
        prompts = sorted(self._named(names), key=lambda prompt: prompt.task.order)
        for prompt in prompts:
            if prompt.state is not PromptState.TAKEN or prompt.trained:
                raise ValueError(f"{prompt.group_id} is {'trained already' if prompt.trained else 'in no batch'}")
            prompt.trained = True
            self.counts["trained"] += 1
        return tuple(prompt.group_id for prompt in prompts)

    def release(self, group_ids: Iterable[str]) -> None:
        """The weights that these groups were trained into are published: their slots are free."""
        for prompt in self._named(group_ids):
            if prompt.state is PromptState.TAKEN:
                self.slots.release(prompt.slot)
                self._forget(prompt)

    def drop(self, group_ids: Iterable[str], reason: str) -> None:
        """Terminal, for prompts that are not trained."""
        for prompt in self._named(group_ids):
            if not prompt.trained:
                self._drop(prompt, reason)

    def drop_all(self, *, taken: bool) -> None:
        """The run ends: drop what is not trained; those of a batch that a trainer has only with `taken`."""
        here = [prompt for prompt in self._prompts.values() if taken or prompt.state is not PromptState.TAKEN]
        self.drop([prompt.group_id for prompt in here], RUN_ENDED)

    def outstanding(self) -> list[Task]:
        """Prompts that are neither trained nor dropped, by order."""
        tasks = [prompt.task for prompt in self._prompts.values() if not prompt.trained]
        return sorted(tasks, key=lambda task: task.order)

    def _running(self) -> list[Prompt]:
        return [prompt for prompt in self.waiting if prompt.state is PromptState.OPEN and prompt.started is not None]

    def _deadline(self, prompt: Prompt) -> float:
        assert prompt.started is not None
        return prompt.started + self._config.group_timeout

    def _end_if_complete(self, prompt: Prompt, reason: str) -> None:
        """Nothing is under way for the prompt any more: it has finished, or is dropped for `reason`."""
        if prompt.attempts:
            return
        partial = len(prompt.headers) < prompt.num_samples
        accepts = self._config.incomplete_groups == "accept_partial"
        if partial and not (accepts and prompt.has_enough(self._config.min_group_fraction)):
            self._drop(prompt, reason)
            return
        self._store.put(prompt.all_headers())
        self.ledger.finished(prompt.group_id, len(prompt.headers))
        prompt.state = PromptState.FINISHED
        self.counts["finished"] += 1
        self.counts["partial"] += partial
        self._dropped_in_a_row = 0

    def _drop(self, prompt: Prompt, reason: str) -> None:
        self.let_go += [header.trajectory_id for header in prompt.all_headers()]
        self.ledger.dropped(prompt.group_id, reason, detail=prompt.last_failure)
        self.counts["dropped"] += 1
        self.counts["written_off"] += reason == RUN_ENDED
        self.last_drop = ": ".join(filter(None, (prompt.group_id, reason, prompt.last_failure)))
        if prompt.state is PromptState.TAKEN:
            self.slots.abandon(prompt.slot)
        else:
            self._dropped_in_a_row += 1
            if self._criterion.replaces_dropped:
                self.slots.release(prompt.slot)
                self.waiting.remove(prompt)
        if prompt.state is PromptState.FINISHED:
            self._store.take({prompt.group_id})
        prompt.state = PromptState.DROPPED
        self._forget(prompt)

    def _named(self, group_ids: Iterable[str]) -> list[Prompt]:
        """The prompts of these groups, each once; unknown ids are passed over."""
        names = {name: None for group_id in group_ids for name in sorted(self._members.get(group_id, {group_id}))}
        return [self._prompts[name] for name in names if name in self._prompts]

    def _forget(self, prompt: Prompt) -> None:
        del self._prompts[prompt.group_id]
        if self._members:
            here = self._prompts
            self._members = {group: names for group, names in self._members.items() if any(n in here for n in names)}
