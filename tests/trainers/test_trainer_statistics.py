import numpy as np
import pytest
from trainer_parts import RecordingService, group, group_of, header, recipe

from nexrl.config.schema import DataConfig
from nexrl.mock import MockTrainServiceClient
from nexrl.trainers import SelfHostedGrpoTrainer
from nexrl.trainers.statistics import rollout_metrics, score_means, spread

LIMITS = DataConfig(data_files=("train.jsonl",), max_prompt_length=6, max_response_length=8)


def metrics_of(*groups, version=0):
    return rollout_metrics(groups, version=version, data=LIMITS)


def test_rewards():
    metrics = metrics_of(group("a", [1.0, 0.0]), group("b", [0.5, 0.5]))
    assert metrics["rollout/reward_mean"] == 0.5
    assert metrics["rollout/reward_std"] == pytest.approx(8**-0.5)
    assert (metrics["rollout/reward_min"], metrics["rollout/reward_max"]) == (0.0, 1.0)
    assert (metrics["rollout/num_groups"], metrics["rollout/num_sequences"]) == (2.0, 4.0)
    for name in ("critic/score", "critic/rewards"):
        assert [metrics[f"{name}/{key}"] for key in ("mean", "max", "min")] == [0.5, 1.0, 0.0]


def test_a_rollout_of_several_sequences_counts_once_in_rewards_and_scores():
    split = [header("a", 0, reward=1.0, score={"exact": 1.0}, sequence=sequence) for sequence in range(2)]
    metrics = metrics_of(group_of("a", [*split, header("a", 1, reward=0.0, score={"exact": 0.0})]))
    assert metrics["rollout/reward_mean"] == 0.5
    assert metrics["rollout/exact"] == 0.5
    assert metrics["rollout/num_sequences"] == 3.0


def test_lengths_are_of_prompt_and_sampled_tokens():
    headers = [header("a", 0, num_tokens=7, num_trained=2), header("a", 1, num_tokens=14, num_trained=8)]
    metrics = metrics_of(group_of("a", headers))
    assert [metrics[f"response_length/{key}"] for key in ("mean", "max", "min")] == [5.0, 8.0, 2.0]
    assert [metrics[f"prompt_length/{key}"] for key in ("mean", "max", "min")] == [5.5, 6.0, 5.0]
    assert metrics["response_length/clip_ratio"] == 0.5
    assert metrics["prompt_length/clip_ratio"] == 0.5
    assert metrics["training/sequence_length"] == 14.0


def test_truncated_rollouts():
    headers = [
        header("a", run_id, finish_reason=reason) for run_id, reason in enumerate(("stop", "length", "truncated"))
    ]
    assert metrics_of(group_of("a", headers))["rollout/truncated_ratio"] == pytest.approx(1 / 3)


def test_staleness_is_the_age_of_the_oldest_token():
    """Trained from version 7, sampled under 7, 6 to 7, and 4 to 5."""
    headers = [
        header("a", run_id, version_min=oldest, version_max=newest)
        for run_id, (oldest, newest) in enumerate([(7, 7), (6, 7), (4, 5)])
    ]
    metrics = metrics_of(group_of("a", headers), version=7)
    assert metrics["staleness/mean"] == pytest.approx(4 / 3)
    assert metrics["staleness/max"] == 3.0


def test_a_step_trains_from_the_version_before_it():
    report = SelfHostedGrpoTrainer(recipe(), RecordingService()).train([group("a", [1, 0], version=4)], step=5)
    assert report.metrics["staleness/max"] == 0.0
    report = SelfHostedGrpoTrainer(recipe(), RecordingService()).train([group("a", [1, 0], version=3)], step=5)
    assert report.metrics["staleness/max"] == 1.0


def test_nothing_is_stale_where_training_makes_no_new_weights():
    report = SelfHostedGrpoTrainer(recipe(), MockTrainServiceClient()).train([group("a", [1, 0], version=0)], step=5)
    assert report.metrics["staleness/max"] == 0.0


def test_nothing_is_stale_where_no_engine_was_asked():
    metrics = metrics_of(group("a", [1.0], version=-1), version=9)
    assert (metrics["staleness/mean"], metrics["staleness/max"]) == (0.0, 0.0)


def test_figures_of_the_evaluator():
    headers = [header("a", 0, score={"exact": 1.0, "format": 1.0}), header("a", 1, score={"exact": 0.0})]
    assert score_means(headers) == {"rollout/exact": 0.5, "rollout/format": 1.0}
    assert metrics_of(group_of("a", headers))["rollout/exact"] == 0.5


def test_a_batch_without_groups_has_no_figures():
    assert metrics_of() == {}


def test_spread():
    assert spread("x", np.array([1, 2, 6])) == {"x/mean": 3.0, "x/max": 6.0, "x/min": 1.0}
    assert spread("x", np.array([])) == {}
