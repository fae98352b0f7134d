"""What every rollout worker shares: tokens in, rewarded trajectories out."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nexrl.config.schema import RolloutWorkerConfig
from nexrl.errors import DataError
from nexrl.evaluators import BaseEvaluationTarget, EvaluationRunResult, Evaluator, checked
from nexrl.models import encode, prompt_text
from nexrl.rollout import sequence as seq
from nexrl.types import Message, Task, Trajectory, TrajectoryHeader
from nexrl.types.protocols import EngineClient, Tokenizer

TRUNCATED = "truncated"
"""Finish reason of a rollout that `max_sequence_length` cut off."""


@dataclass(frozen=True, kw_only=True)
class RolloutContext:
    """What a rollout worker works with; one record, so that a worker of your own has the same constructor."""

    config: RolloutWorkerConfig
    tokenizer: Tokenizer
    evaluator: Evaluator
    client: EngineClient | None
    """None where no engine is asked (`supervised`)."""
    name: str
    """`rollout-<rank>@<host>`, stamped on every trajectory."""


class BaseRolloutWorker(ABC):
    """Extend this: `rollout` turns one task into trajectories. It is called from many threads at once, one task each,
    and keeps no state between tasks. What it raises fails the task's samples, which are tried again elsewhere."""

    def __init__(self, context: RolloutContext) -> None:
        self.context = context
        self.config = context.config

    @abstractmethod
    def rollout(self, task: Task) -> Mapping[int, Sequence[Trajectory]]:
        """Trajectories by run id, for every run id of the task."""

    @property
    def client(self) -> EngineClient:
        """The engine client; DataError where the recipe starts no engine."""
        if self.context.client is None:
            raise DataError(f"{type(self).__name__} asks an engine, but rollout_worker.type: supervised starts none")
        return self.context.client

    def prompt_text(self, prompt: str | Sequence[Message], *, tools: Sequence[Any] | None = None) -> str:
        """The text to generate from: a text prompt as it is, messages through the tokenizer's chat template."""
        return prompt_text(self.context.tokenizer, prompt, tools=tools)

    def encode(self, text: str) -> list[int]:
        """Token ids; the template has put its own special tokens in already."""
        return encode(self.context.tokenizer, text)

    def evaluate(self, task: Task, target: BaseEvaluationTarget) -> EvaluationRunResult:
        """Reward and figures; raises RewardError naming evaluator and task where they are not finite numbers."""
        return checked(self.context.evaluator, task, target)

    def finish(
        self,
        task: Task,
        run_id: int,
        sequences: Sequence[seq.Sequence],
        *,
        answer: str,
        finish_reason: str,
        started: float,
    ) -> list[Trajectory]:
        """Cut to `max_sequence_length`, evaluate, and stamp one trajectory per sequence. A rollout that is cut here, or
        was cut off before (`finish_reason` TRUNCATED), earns 0."""
        cut = [sequence.cut(self.config.max_sequence_length) for sequence in sequences]
        truncated = any(cut) or finish_reason == TRUNCATED
        result = self.evaluate(task, BaseEvaluationTarget(final_answer=answer, is_truncated=truncated))
        return [
            self.stamp(
                task,
                run_id,
                index,
                sequence,
                answer=answer,
                finish_reason=TRUNCATED if truncated else finish_reason,
                started=started,
                score=result.metrics,
                reward=0.0 if truncated else result.reward,
            )
            for index, sequence in enumerate(sequences)
        ]

    def stamp(  # noqa: PLR0913 - one argument per column that only the caller knows
        self,
        task: Task,
        run_id: int,
        index: int,
        sequence: seq.Sequence,
        *,
        answer: str,
        finish_reason: str,
        started: float,
        score: Mapping[str, float],
        reward: float,
    ) -> Trajectory:
        """One sequence as a trajectory, with everything that the store keeps of it."""
        tokens, loss_mask, logprobs = sequence.arrays()
        versions = [span.version for span in sequence.spans]
        header = TrajectoryHeader(
            trajectory_id=f"{task.group_id}/{run_id}.{task.attempt}.{index}",
            group_id=task.group_id,
            task_id=task.task_id,
            order=task.order,
            run_id=run_id,
            attempt=task.attempt,
            sequence=index,
            model_tag=task.model_tag,
            is_val=task.is_val,
            num_tokens=len(tokens),
            num_trained=int(loss_mask.sum()),
            reward=reward,
            score=dict(score),
            finish_reason=finish_reason,
            version_min=min(versions, default=-1),
            version_max=max(versions, default=-1),
            data_source=task.data_source,
            worker=self.context.name,
            seed=task.seed,
            temperature=task.sampling.temperature,
            started=started,
            finished=time.time(),
            recorder="",
        )
        return Trajectory(
            header=header,
            tokens=tokens,
            loss_mask=loss_mask,
            logprobs=logprobs,
            spans=tuple(sequence.spans),
            turns=tuple(sequence.turns),
            prompt=self.context.tokenizer.decode(sequence.tokens[: sequence.turns[0].end], skip_special_tokens=False)
            if sequence.turns
            else "",
            response=answer,
            ground_truth="" if task.ground_truth is None else str(task.ground_truth),
        )
