"""When new weights are due."""


def need_block(*, train_version: int, rollout_version: int, threshold: int | None) -> bool:
    """Whether rollouts must wait for new weights, asked when a batch has gone to the trainer and is not trained yet
    (hence the + 1).

    `threshold` is the number of versions that rollouts may lag behind: 0 = `sync`, blocks at every batch; T =
    `batch-async`, blocks at every (T + 1)-th; None = `fully-async`, never blocks.
    """
    return threshold is not None and train_version + 1 - rollout_version > threshold
