from itertools import combinations

import pytest
from validation_parts import header

from nexrl.validator import validation_metrics
from nexrl.validator.metrics import pass_at_k


def test_means_of_reward_and_of_every_figure():
    headers = [
        header("a", reward=1.0, score={"exact": 1.0}, num_trained=4),
        header("b", reward=0.0, score={"exact": 0.0, "format": 1.0}, num_trained=2),
        header("c", reward=0.5, score={"exact": 0.0}, num_trained=3),
    ]
    assert validation_metrics("greedy", headers, failed=0) == {
        "val/greedy_num_samples": 3.0,
        "val/greedy_failed": 0.0,
        "val/greedy_reward": 0.5,
        "val/greedy_exact": pytest.approx(1 / 3),
        "val/greedy_format": 1.0,
        "val/greedy_response_length": 3.0,
    }


def test_failed_samples_count_in_no_mean():
    metrics = validation_metrics("sampled", [header("a", reward=1.0)], failed=3)
    assert metrics["val/sampled_failed"] == 3.0
    assert metrics["val/sampled_num_samples"] == 1.0
    assert metrics["val/sampled_reward"] == 1.0


def test_a_pass_without_any_sample_says_so():
    assert validation_metrics("sampled", [], failed=2) == {"val/sampled_num_samples": 0.0, "val/sampled_failed": 2.0}


def test_a_rollout_of_several_sequences_counts_once():
    split = [header("a", reward=1.0, sequence=0), header("a", reward=1.0, sequence=1)]
    metrics = validation_metrics("sampled", [*split, header("b", reward=0.0)], failed=0)
    assert metrics["val/sampled_num_samples"] == 2.0
    assert metrics["val/sampled_reward"] == 0.5


def test_several_data_sources_are_told_apart():
    headers = [
        header("a", reward=1.0, data_source="openai/gsm8k", score={"exact": 1.0}),
        header("b", reward=0.0, data_source="openai/gsm8k", score={"exact": 0.0}),
        header("c", reward=0.2, data_source="words"),
    ]
    metrics = validation_metrics("sampled", headers, failed=0)
    assert metrics["val/sampled_reward"] == pytest.approx(0.4)
    assert metrics["val/sampled_openai_gsm8k_reward"] == 0.5
    assert metrics["val/sampled_openai_gsm8k_exact"] == 0.5
    assert metrics["val/sampled_words_reward"] == pytest.approx(0.2)
    assert "val/sampled_words_exact" not in metrics


def test_pass_at_k_over_prompts():
    """Prompt a: 1 of 4 passes; prompt b: none; a reward below 1 is no pass."""
    headers = [header("a", run_id, reward=reward) for run_id, reward in enumerate((0.9, 0.0, 1.0, 0.0))]
    headers += [header("b", run_id, reward=0.5) for run_id in range(4)]
    metrics = validation_metrics("sampled", headers, failed=0)
    assert {name: value for name, value in metrics.items() if "@" in name} == {
        "val/sampled_pass@1": pytest.approx((1 / 4 + 0) / 2),
        "val/sampled_pass@2": pytest.approx((1 / 2 + 0) / 2),
        "val/sampled_pass@4": pytest.approx((1 + 0) / 2),
    }


def test_pass_at_k_goes_up_to_the_samples_that_every_prompt_has():
    """Of prompt b one sample failed."""
    headers = [header("a", run_id) for run_id in range(4)] + [header("b", run_id) for run_id in range(3)]
    metrics = validation_metrics("sampled", headers, failed=1)
    assert [name for name in metrics if "@" in name] == ["val/sampled_pass@1", "val/sampled_pass@2"]


def test_no_pass_at_k_of_single_samples():
    assert not any("@" in name for name in validation_metrics("greedy", [header("a")], failed=0))


@pytest.mark.parametrize("samples", range(1, 7))
def test_pass_at_k_is_the_share_of_draws_with_a_pass(samples):
    for passed in range(samples + 1):
        for k in range(1, samples + 1):
            draws = list(combinations([i < passed for i in range(samples)], k))
            assert pass_at_k(samples, passed, k) == pytest.approx(sum(map(any, draws)) / len(draws))
