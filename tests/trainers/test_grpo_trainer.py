import pytest
from trainer_parts import RecordingService, advantages, group, group_of, header, recipe

from nexrl.trainers import SelfHostedGrpoTrainer


def train(groups, *, step=1, service=None, **settings):
    service = service or RecordingService()
    return SelfHostedGrpoTrainer(recipe(**settings), service).train(groups, step=step)


def rows_of(report):
    """Trajectory ids of every mini-batch, of the first rank."""
    return [
        [row.trajectory_id for micro in mini.micro_batches for row in micro.rows]
        for mini in report.batch.shards[0].mini_batches
    ]


def test_advantages_of_one_prompt():
    """Rewards 1, 0, 0, 0: mean 0.25, deviation 0.5 (N - 1), epsilon 1e-6."""
    report = train([group("a", [1, 0, 0, 0])])
    assert advantages(report.batch) == {
        "a/0.0.0": pytest.approx(1.499997, abs=1e-9),
        "a/1.0.0": pytest.approx(-0.499999, abs=1e-9),
        "a/2.0.0": pytest.approx(-0.499999, abs=1e-9),
        "a/3.0.0": pytest.approx(-0.499999, abs=1e-9),
    }


def test_each_prompt_is_compared_with_itself():
    report = train([group("a", [1, 0]), group("b", [5, 3])])
    of_a, of_b = 0.5 / (2**-0.5 + 1e-6), 1 / (2**0.5 + 1e-6)
    assert advantages(report.batch) == pytest.approx(
        {"a/0.0.0": of_a, "a/1.0.0": -of_a, "b/0.0.0": of_b, "b/1.0.0": -of_b}, abs=1e-12
    )


def test_without_the_deviation():
    report = train([group("a", [1, 0, 0, 0])], algorithm={"normalize_std": False})
    assert list(advantages(report.batch).values()) == [0.75, -0.25, -0.25, -0.25]


def test_a_run_of_several_sequences_counts_once():
    """Run 0 earned 1 with two sequences, run 1 earned 0: mean 0.5, not 2/3."""
    headers = [header("a", 0, reward=1.0), header("a", 0, reward=1.0, sequence=1), header("a", 1)]
    report = train([group_of("a", headers)], algorithm={"normalize_std": False})
    assert advantages(report.batch) == {"a/0.0.0": 0.5, "a/0.0.1": 0.5, "a/1.0.0": -0.5}


def test_runs_of_prompts_that_share_a_group_are_told_apart():
    """`trajectory_pool.key_list` may put several prompts into one group: three runs, of rewards 1, 0 and 0."""
    headers = [header("a", 0, reward=1.0), header("b", 0), header("b", 1)]
    report = train([group_of("a+b", headers)], algorithm={"normalize_std": False})
    assert advantages(report.batch) == pytest.approx({"a/0.0.0": 2 / 3, "b/0.0.0": -1 / 3, "b/1.0.0": -1 / 3})


def test_a_prompt_whose_rewards_are_equal_is_left_out_and_still_counts_as_trained():
    report = train([group("a", [1, 0]), group("b", [1, 1]), group("c", [0, 0])])
    assert {row.trajectory_id[0] for row in report.batch.rows} == {"a"}
    assert report.batch.group_ids == ("a", "b", "c")
    assert report.metrics["critic/zero_variance_groups"] == 2.0
    assert report.metrics["critic/grpo_num_groups"] == 3.0
    (mini,) = report.batch.shards[0].mini_batches
    assert (mini.global_sequences, mini.global_tokens) == (2, 4)


def test_without_the_filter_equal_rewards_give_rows_of_advantage_zero():
    report = train([group("a", [1, 1])], algorithm={"filter_zero_variance": False})
    assert advantages(report.batch) == {"a/0.0.0": 0.0, "a/1.0.0": 0.0}
    assert report.metrics["critic/zero_variance_groups"] == 0.0
    assert not report.skipped


def test_a_sequence_without_trained_tokens_counts_in_the_mean_but_is_no_row():
    headers = [header("a", 0, reward=1.0), header("a", 1, reward=0.0, num_trained=0)]
    report = train([group_of("a", headers)], algorithm={"normalize_std": False})
    assert advantages(report.batch) == {"a/0.0.0": 0.5}
    assert report.batch.shards[0].mini_batches[0].global_sequences == 1


@pytest.mark.parametrize(
    "groups",
    [[group("a", [1, 1]), group("b", [0, 0])], [group("a", [1, 0], num_trained=0)]],
    ids=["equal rewards", "nothing sampled"],
)
def test_a_batch_with_nothing_to_learn_is_skipped(groups):
    service = RecordingService()
    report = train(groups, service=service, step=3)
    assert service.calls == []
    assert report.skipped
    assert report.batch.step == 3
    assert report.batch.group_ids == tuple(one.group_id for one in groups)
    assert report.metrics["training/skipped"] == 1.0
    assert report.metrics["training/num_rows"] == 0.0


def test_mini_batches_are_of_so_many_prompts_in_order():
    groups = [group(name, [1, 0]) for name in "abcd"]
    report = train(groups, ppo_mini_batch_size=2, ppo_epochs=3)
    assert rows_of(report) == [
        ["a/0.0.0", "a/1.0.0", "b/0.0.0", "b/1.0.0"],
        ["c/0.0.0", "c/1.0.0", "d/0.0.0", "d/1.0.0"],
    ]
    assert report.batch.shards[0].epochs == 3


def test_a_mini_batch_with_nothing_to_learn_is_left_out():
    groups = [group("a", [1, 1]), group("b", [0, 0]), group("c", [1, 0]), group("d", [1, 1])]
    report = train(groups, ppo_mini_batch_size=2)
    assert rows_of(report) == [["c/0.0.0", "c/1.0.0"]]


def test_a_short_batch_has_a_short_last_mini_batch():
    report = train([group(name, [1, 0]) for name in "abc"], ppo_mini_batch_size=2)
    assert [len(rows) for rows in rows_of(report)] == [4, 2]


def test_every_rank_has_a_shard_and_every_row_one_rank():
    service = RecordingService(world_size=2)
    report = train([group("a", [1, 0, 0]), group("b", [1, 0, 0])], service=service, step=5, temperature=0.7)
    shards = service.batches[0].shards
    assert service.batches == [report.batch]
    assert [(shard.step, shard.temperature) for shard in shards] == [(5, 0.7), (5, 0.7)]
    rows = [
        {row.trajectory_id for mini in shard.mini_batches for micro in mini.micro_batches for row in micro.rows}
        for shard in shards
    ]
    assert rows[0].isdisjoint(rows[1])
    assert len(rows[0] | rows[1]) == 6
    assert [shard.mini_batches[0].global_sequences for shard in shards] == [6, 6]


def test_forwards_hold_at_most_so_many_tokens():
    report = train([group("a", [1, 0, 0, 0], num_tokens=5)], ppo_max_token_len_per_gpu=12)
    assert [len(micro.rows) for micro in report.batch.shards[0].mini_batches[0].micro_batches] == [2, 2]


def test_advantage_figures():
    metrics = train([group("a", [1, 0, 0, 0]), group("b", [1, 1, 0, 0])], algorithm={"normalize_std": False}).metrics
    assert metrics["critic/advantages/max"] == 0.75
    assert metrics["critic/advantages/min"] == -0.5
    assert metrics["critic/advantages/mean"] == pytest.approx(0.0)
    assert metrics["critic/advantage_mean"] == pytest.approx(0.0)
    assert metrics["critic/advantage_std"] == pytest.approx(((0.75**2 + 3 * 0.25**2 + 4 * 0.25) / 8) ** 0.5)
    assert metrics["critic/grpo_std/min"] == pytest.approx(0.5)
    assert metrics["critic/grpo_std/max"] == pytest.approx(3**-0.5)
