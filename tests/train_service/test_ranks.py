import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import rank_program
import torch
from training_parts import make_worker, weights_of

PROGRAM = Path(rank_program.__file__)
WORLD_SIZE = 2


@pytest.fixture(scope="module")
def two_ranks(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    environment["PYTHONPATH"] = os.pathsep.join([str(PROGRAM.parents[2]), str(PROGRAM.parent)])
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "error", PROGRAM, model_folder, folder, str(rank), str(WORLD_SIZE)], env=environment
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        codes = [rank.wait(120) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    assert codes == [0] * WORLD_SIZE
    return folder


@pytest.fixture(scope="module")
def one_rank(model_folder, tmp_path_factory):
    return rank_program.run(model_folder, tmp_path_factory.mktemp("rank"), 0, 1)


def report(folder, rank):
    return json.loads((folder / f"rank-{rank}.json").read_text())


@pytest.mark.processes
def test_two_ranks_train_as_one(two_ranks, one_rank):
    weights = torch.load(two_ranks / "weights.pt", weights_only=True)
    assert weights.keys() == one_rank[0].keys()
    for name, expected in one_rank[0].items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.processes
def test_metrics_are_of_all_ranks_and_equal_on_all(two_ranks, one_rank):
    assert report(two_ranks, 0)["metrics"] == report(two_ranks, 1)["metrics"]
    for found, expected in zip(report(two_ranks, 0)["metrics"], one_rank[1], strict=True):
        assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.processes
def test_each_rank_answers_for_its_own_rows(two_ranks, one_rank):
    parts = [report(two_ranks, rank)["sums"] for rank in range(WORLD_SIZE)]
    assert not parts[0].keys() & parts[1].keys()
    assert parts[0] | parts[1] == pytest.approx(one_rank[2], rel=1e-9)


@pytest.mark.processes
def test_a_step_after_a_resume_repeats_bit_by_bit(two_ranks, one_rank):
    assert [report(two_ranks, rank)["same"] for rank in range(WORLD_SIZE)] == [True, True]
    assert one_rank[3]


@pytest.mark.processes
def test_a_checkpoint_of_two_ranks_continues_on_one(two_ranks, one_rank, model_folder):
    worker = make_worker(rank_program.recipe_for(model_folder), rank_program.make_trajectories(rank_program.LENGTHS))
    assert worker.load_checkpoint(two_ranks / "checkpoint").global_step == 2
    worker.update_actor(rank_program.shards_for(1)[2][0])
    for name, tensor in weights_of(worker).items():
        torch.testing.assert_close(tensor, one_rank[0][name], rtol=1e-6, atol=1e-9)
