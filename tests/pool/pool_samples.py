"""Tasks, headers and shorthands for the pool's tests."""

from nexrl.types import SamplingParams, Task, TrajectoryHeader


def task(name, *, order=0, samples=2, attempt=0, is_val=False):
    return Task(
        task_id=name,
        group_id=name,
        order=order,
        run_ids=tuple(range(samples)),
        attempt=attempt,
        is_val=is_val,
        prompt="p",
        ground_truth=None,
        data_source="src",
        seed=1,
        sampling=SamplingParams(max_tokens=4),
    )


def header(name, run_id=0, *, order=0, sequence=0, attempt=0, data_source="src", extra=None):
    return TrajectoryHeader(
        trajectory_id=f"{name}/{run_id}.{attempt}.{sequence}",
        group_id=name,
        task_id=name,
        order=order,
        run_id=run_id,
        attempt=attempt,
        sequence=sequence,
        model_tag="default",
        is_val=False,
        num_tokens=3,
        num_trained=2,
        reward=1.0,
        score={},
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
        extra=extra or {},
    )


def finish(pool, name, *, runs=(0, 1), order=0, attempt=0):
    for run in runs:
        assert pool.put(name, attempt, run, (header(name, run, order=order),))


def names(groups):
    return [group.group_id for group in groups]


def admit_all(pool, *letters):
    for order, name in enumerate(letters):
        pool.admit(task(name, order=order))
