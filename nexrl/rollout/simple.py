"""One completion per sample."""

import time
from collections.abc import Mapping, Sequence

from nexrl.rollout.base import BaseRolloutWorker
from nexrl.rollout.sequence import merge_turns
from nexrl.types import Task, Trajectory, derive_seed


class SimpleRolloutWorker(BaseRolloutWorker):
    """Asks the engine once for all samples of a prompt, and evaluates each."""

    def rollout(self, task: Task) -> Mapping[int, Sequence[Trajectory]]:
        """One trajectory per run id; sample `run_id` is drawn from the seed (task seed, group, run id, turn 0)."""
        started = time.time()
        completions = self.client.generate(
            self.encode(self.prompt_text(task.prompt)),
            sampling=task.sampling,
            seeds=[derive_seed(task.seed, task.group_id, run_id, 0) for run_id in task.run_ids],
        )
        return {
            run_id: self.finish(
                task,
                run_id,
                merge_turns([completion]),
                answer=completion.text,
                finish_reason=completion.finish_reason,
                started=started,
            )
            for run_id, completion in zip(task.run_ids, completions, strict=True)
        }
