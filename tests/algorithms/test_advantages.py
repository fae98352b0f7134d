import numpy as np
import pytest

from nexrl.algorithms.advantages import discounted_future_sum, grpo_advantages, zero_variance


def test_grpo_advantages_golden_numbers():
    np.testing.assert_allclose(
        grpo_advantages([1, 0, 0, 0], [0, 1, 2, 3]), [1.499997, -0.499999, -0.499999, -0.499999], atol=5e-7
    )


def test_runs_count_once_however_many_sequences_they_gave():
    # run means 1, 0: mean 0.5, deviation sqrt(0.5)
    advantages = grpo_advantages([1, 1, 1, 0], [0, 0, 0, 1])
    np.testing.assert_allclose(advantages, np.array([0.5, 0.5, 0.5, -0.5]) / (np.sqrt(0.5) + 1e-6))


def test_single_sequence_keeps_its_reward():
    np.testing.assert_allclose(grpo_advantages([1.0], [0]), [0.999999], atol=1e-9)
    np.testing.assert_allclose(grpo_advantages([0.7], [3], normalize_std=False), [0.7])


def test_one_run_of_several_sequences_is_not_divided():
    np.testing.assert_allclose(grpo_advantages([1.0, 0.0], [5, 5]), np.array([0.5, -0.5]) / (1 + 1e-6))


def test_equal_run_means_of_unequal_sequences_stay_bounded():
    np.testing.assert_allclose(grpo_advantages([1, 0, 0, 1], [0, 0, 1, 1]), [0.5, -0.5, -0.5, 0.5], atol=1e-6)


def test_without_std_it_is_the_difference_to_the_mean():
    np.testing.assert_allclose(
        grpo_advantages([1, 0, 0, 0], [0, 1, 2, 3], normalize_std=False), [0.75, -0.25, -0.25, -0.25]
    )


def test_equal_rewards_give_no_advantage():
    assert np.abs(grpo_advantages([0.1] * 3, [0, 1, 2])).max() < 1e-9


def test_empty_group_and_unequal_lengths():
    assert grpo_advantages([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 rewards and 1 run ids"):
        grpo_advantages([1, 2], [0])


@pytest.mark.parametrize(
    ("rewards", "flat"),
    [([1, 1, 1], True), ([0.1, 0.1], True), ([0, 0], True), ([1, 0], False), ([1], False), ([], False)],
)
def test_zero_variance(rewards, flat):
    assert zero_variance(rewards) is flat


def test_discounted_future_sum_golden_numbers():
    np.testing.assert_allclose(discounted_future_sum(np.array([-1.0, -1, -1]), discount=0.5), [-1.75, -1.5, -1])
    values = np.array([1.0, 2, 3])
    np.testing.assert_allclose(discounted_future_sum(values, discount=0.0), values)
