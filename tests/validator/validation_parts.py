"""Tasks, headers and ended samples for the validator's tests."""

from nexrl.types import SampleFailure, SampleResult, SamplingParams, Task, TrajectoryHeader


def task(name, *, samples=1, data_source="words"):
    return Task(
        task_id=name,
        group_id=name,
        order=0,
        run_ids=tuple(range(samples)),
        attempt=0,
        is_val=True,
        prompt="p",
        ground_truth=None,
        data_source=data_source,
        seed=1,
        sampling=SamplingParams(max_tokens=4),
    )


def header(name, run_id=0, *, reward=1.0, score=None, data_source="words", sequence=0, num_trained=2):
    return TrajectoryHeader(
        trajectory_id=f"{name}/{run_id}.0.{sequence}",
        group_id=name,
        task_id=name,
        order=0,
        run_id=run_id,
        attempt=0,
        sequence=sequence,
        model_tag="default",
        is_val=True,
        num_tokens=num_trained + 1,
        num_trained=num_trained,
        reward=reward,
        score=score or {},
        finish_reason="stop",
        version_min=0,
        version_max=0,
        data_source=data_source,
        worker="rollout-0@here",
        seed=1,
        temperature=1.0,
        started=0.0,
        finished=1.0,
        recorder="recorder-0",
    )


def result(name, run_id=0, *, attempt=0, reward=1.0):
    headers = (header(name, run_id, reward=reward),)
    return SampleResult(group_id=name, run_id=run_id, attempt=attempt, is_val=True, headers=headers)


def failure(task):
    """All samples of `task` gave nothing."""
    return SampleFailure(
        group_id=task.group_id,
        run_ids=task.run_ids,
        attempt=task.attempt,
        is_val=True,
        reason="InferenceError: no answer",
        fatal=False,
    )
