"""Trajectories to store."""

import numpy as np

from nexrl.types import Trajectory, TrajectoryHeader, Turn, VersionSpan

WRITER = {"node": "n0", "attempt": 0, "run_id": "run"}


def trajectory(number=0, *, tokens=12, prompt_tokens=4, version=3, seed=0, **fields):
    """Sample `number % 4` of group `number // 4`, with random arrays; `fields` replace those of record or header."""
    rng = np.random.default_rng([seed, number])
    mask = (np.arange(tokens) >= prompt_tokens).astype(np.uint8)
    group = number // 4
    header = {
        "trajectory_id": f"0:{group}/{number % 4}.0.0",
        "group_id": f"0:{group}",
        "task_id": f"row-{group}",
        "order": group,
        "run_id": number % 4,
        "attempt": 0,
        "sequence": 0,
        "model_tag": "default",
        "is_val": False,
        "num_tokens": tokens,
        "num_trained": int(mask.sum()),
        "reward": float(rng.integers(0, 2)),
        "score": {"exact": 1.0, "format": 0.5},
        "finish_reason": "stop",
        "version_min": version,
        "version_max": version,
        "data_source": "reverse",
        "worker": "rollout-0@n0",
        "seed": int(rng.integers(0, 2**62)),
        "temperature": 1.0,
        "started": 1e9 + number,
        "finished": 1e9 + number + 0.5,
        "recorder": "recorder-0",
        "extra": {},
    }
    body = {
        "tokens": rng.integers(0, 50_000, tokens, dtype=np.int32),
        "loss_mask": mask,
        "logprobs": (-rng.exponential(0.4, tokens) * mask).astype(np.float32),
        "spans": (VersionSpan(prompt_tokens, tokens, version),) if tokens > prompt_tokens else (),
        "turns": (Turn(0, prompt_tokens, "prompt"), Turn(prompt_tokens, tokens, "assistant")),
        "prompt": f"reverse {group}",
        "response": f"{group} esrever {number}",
        "ground_truth": "x",
    }
    header |= {name: value for name, value in fields.items() if name in header}
    body |= {name: value for name, value in fields.items() if name not in header}
    return Trajectory(header=TrajectoryHeader(**header), **body)


def same(one, other):
    """Whether two trajectories are equal in every field, dtype and bit."""
    arrays = ("tokens", "loss_mask", "logprobs")
    rest = ("header", "spans", "turns", "prompt", "response", "ground_truth")
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and getattr(one, name).tobytes() == getattr(other, name).tobytes()
        for name in arrays
    ) and all(getattr(one, name) == getattr(other, name) for name in rest)
