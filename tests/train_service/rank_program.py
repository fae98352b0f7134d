"""One rank of several: `rank_program.py MODEL WORK_FOLDER RANK WORLD_SIZE`, writes what it did into the work folder."""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from training_parts import make_recipe, make_trajectories, make_worker, plan_for, rows_of, weights_of

from nexrl.config.schema import AlgorithmConfig, OptimConfig

LENGTHS = (5, 9, 7, 12, 3, 8, 8, 2, 15)
ALGORITHM = AlgorithmConfig(use_kl_loss=True, kl_loss_coef=0.1, entropy_coeff=0.01, loss_agg_mode="seq-mean-token-mean")
OPTIM = OptimConfig(lr=1e-2, weight_decay=0.1)


def recipe_for(model: Path):
    return make_recipe(model, algorithm=ALGORITHM, optim=OPTIM, grad_clip=0.5)


def shards_for(world_size: int):
    """Three training steps: one optimizer step of several forwards, four optimizer steps, and one row alone (so that
    all ranks but one have nothing to do)."""
    rows = rows_of(make_trajectories(LENGTHS))
    return (
        plan_for(rows, step=1, max_tokens=24, world_size=world_size),
        plan_for(rows, step=2, parts=2, epochs=2, world_size=world_size),
        plan_for(rows[:1], step=3, world_size=world_size),
    )


def run(model: Path, folder: Path, rank: int, world_size: int):
    """Returns weights and metrics after the three steps; a checkpoint of the second is made while the third runs."""
    worker = make_worker(recipe_for(model), make_trajectories(LENGTHS))
    first, second, third = (shards[rank] for shards in shards_for(world_size))
    sums = worker.compute_log_prob(first).logprob_sums
    metrics = [worker.update_actor(first).metrics, worker.update_actor(second).metrics]
    worker.save_checkpoint(folder / "checkpoint", global_step=2)
    metrics.append(worker.update_actor(third).metrics)
    worker.checkpoint_written().result()
    after = weights_of(worker)
    worker.export_hf(folder / "hf")
    worker.load_checkpoint(folder / "checkpoint")
    again = worker.update_actor(third).metrics
    same = again == metrics[2] and all(torch.equal(after[name], tensor) for name, tensor in worker.tensors())
    return after, metrics, sums, same


def main() -> None:
    model, folder, rank, world_size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world_size)
    weights, metrics, sums, same = run(model, folder, rank, world_size)
    (folder / f"rank-{rank}.json").write_text(json.dumps({"metrics": metrics, "sums": sums, "same": same}))
    if rank == 0:
        torch.save(weights, folder / "weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
