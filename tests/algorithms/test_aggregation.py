import numpy as np
import pytest

from nexrl.algorithms.aggregation import token_weights

LOSSES = np.array([1.0, 2, 3, 4, 5, 6])
LENGTHS = [2, 4]
GOLDEN = {"token-mean": 3.5, "seq-mean-token-sum": 10.5, "seq-mean-token-mean": 3.0}


@pytest.mark.parametrize(("mode", "loss"), GOLDEN.items())
def test_golden_numbers(mode, loss):
    assert token_weights(LENGTHS, mode, global_tokens=6, global_sequences=2) @ LOSSES == pytest.approx(loss)


@pytest.mark.parametrize(("mode", "loss"), GOLDEN.items())
def test_parts_of_a_batch_add_up_to_the_whole(mode, loss):
    first = token_weights([2], mode, global_tokens=6, global_sequences=2) @ LOSSES[:2]
    second = token_weights([4], mode, global_tokens=6, global_sequences=2) @ LOSSES[2:]
    assert first + second == pytest.approx(loss)


@pytest.mark.parametrize("mode", GOLDEN)
def test_rows_without_trained_tokens_change_nothing(mode):
    with_empty = token_weights([0, 2, 0, 4], mode, global_tokens=6, global_sequences=2)
    np.testing.assert_array_equal(with_empty, token_weights(LENGTHS, mode, global_tokens=6, global_sequences=2))
    assert token_weights([0], mode, global_tokens=0, global_sequences=0).shape == (0,)
    assert token_weights([], mode, global_tokens=0, global_sequences=0).sum() == 0.0
