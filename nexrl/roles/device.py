"""Where a role computes."""

import torch

from nexrl.cluster import Identity


def limit_threads(threads: int) -> None:
    """Compute threads of this process; oversubscribed cores make a step ten times slower and more."""
    if threads > 0:
        torch.set_num_threads(threads)


def engine_device(identity: Identity) -> torch.device:
    """The GPU of this task's place on its node, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", identity.local_rank % torch.cuda.device_count())
    return torch.device("cpu")
