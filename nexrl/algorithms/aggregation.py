"""From per-token losses to one number: weights, normalised over the whole batch of all ranks."""

from collections.abc import Sequence

import numpy as np

from nexrl.config.schema import LossAggregation


def token_weights(
    lengths: Sequence[int], mode: LossAggregation, *, global_tokens: int, global_sequences: int
) -> np.ndarray:
    """Weights w such that the loss of a batch is the sum of w[t] * loss[t] over all trained tokens of all its parts.

    `lengths` are the trained tokens of the sequences at hand, in order; the result is float64 [sum of lengths].
    `global_tokens` and `global_sequences` count the whole batch, sequences without a trained token left out, so the
    sum does not depend on how the batch was cut. A sequence of length 0 has no weight, and no batch gives NaN.

    token-mean: every token alike. seq-mean-token-sum: the mean over sequences of their sums. seq-mean-token-mean:
    the mean over sequences of their means.
    """
    lengths_S = np.asarray(lengths, dtype=np.int64)
    if mode == "token-mean":
        per_sequence_S = np.full(len(lengths_S), 1.0 / max(global_tokens, 1))
    elif mode == "seq-mean-token-sum":
        per_sequence_S = np.full(len(lengths_S), 1.0 / max(global_sequences, 1))
    else:
        per_sequence_S = 1.0 / (max(global_sequences, 1) * np.maximum(lengths_S, 1))
    return np.repeat(per_sequence_S, lengths_S)
