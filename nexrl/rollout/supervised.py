"""Demonstrations as trajectories: the data row holds the response."""

import time
from collections.abc import Mapping, Sequence

from nexrl.errors import DataError
from nexrl.rollout import sequence as seq
from nexrl.rollout.base import BaseRolloutWorker
from nexrl.types import Completion, Task, Trajectory


class SupervisedRolloutWorker(BaseRolloutWorker):
    """Asks no engine: prompt with loss mask 0, the row's response and the end-of-sequence token with loss mask 1."""

    def rollout(self, task: Task) -> Mapping[int, Sequence[Trajectory]]:
        """One trajectory per run id, reward 1.0, finish reason `supervised`."""
        started = time.time()
        response = task.fields.get(self.config.response_key)
        if not isinstance(response, str) or not response:
            raise DataError(
                f"row {task.task_id}: column {self.config.response_key!r} holds {response!r}, needs a text "
                "(rollout_worker.response_key names the column)"
            )
        ids = self.encode(response)
        if self.context.tokenizer.eos_token_id is not None:
            ids.append(self.context.tokenizer.eos_token_id)
        completion = Completion(
            prompt_ids=tuple(self.encode(self.prompt_text(task.prompt))),
            token_ids=tuple(ids),
            logprobs=(0.0,) * len(ids),
            spans=(),
            text=response,
            finish_reason="supervised",
        )
        return {run_id: [self._demonstration(task, run_id, completion, started)] for run_id in task.run_ids}

    def _demonstration(self, task: Task, run_id: int, completion: Completion, started: float) -> Trajectory:
        sequences = seq.merge_turns([completion])
        length = len(sequences[0].tokens)
        if length > self.config.max_sequence_length:
            raise DataError(
                f"row {task.task_id}: prompt and response have {length} tokens, "
                f"rollout_worker.max_sequence_length is {self.config.max_sequence_length}"
            )
        return self.stamp(
            task,
            run_id,
            0,
            sequences[0],
            answer=completion.text,
            finish_reason="supervised",
            started=started,
            score={},
            reward=1.0,
        )
