import numpy as np

from nexrl.rollout.sequence import Sequence, merge_turns
from nexrl.types import Completion, Turn, VersionSpan


def turn(prompt, response, *spans):
    return Completion(
        prompt_ids=tuple(prompt),
        token_ids=tuple(response),
        logprobs=tuple(-token / 10 for token in response),
        spans=tuple(VersionSpan(*span) for span in spans) or (VersionSpan(0, len(response), 0),),
        text="",
        finish_reason="stop",
    )


def test_turns_that_continue_one_another_make_one_sequence():
    (merged,) = merge_turns([turn([1, 2], [3, 4]), turn([1, 2, 3, 4, 9], [5])])
    assert merged.tokens == [1, 2, 3, 4, 9, 5]
    assert merged.loss_mask == [0, 0, 1, 1, 0, 1]
    assert merged.logprobs == [0.0, 0.0, -0.3, -0.4, 0.0, -0.5]
    assert merged.turns == [
        Turn(0, 2, "prompt"),
        Turn(2, 4, "assistant"),
        Turn(4, 5, "tool"),
        Turn(5, 6, "assistant"),
    ]


def test_weight_versions_count_from_the_first_token_of_the_sequence():
    (merged,) = merge_turns([turn([1, 2], [3, 4, 5], (0, 1, 6), (1, 3, 7)), turn([1, 2, 3, 4, 5, 9], [8], (0, 1, 8))])
    assert merged.spans == [VersionSpan(2, 3, 6), VersionSpan(3, 5, 7), VersionSpan(6, 7, 8)]


def test_a_rewritten_history_starts_another_sequence():
    first, second, third = merge_turns([turn([1, 2], [3, 4]), turn([1, 2, 3, 9], [5]), turn([1, 2, 3, 4, 9], [6])])
    assert (first.tokens, first.loss_mask) == ([1, 2, 3, 4], [0, 0, 1, 1])
    assert (second.tokens, second.loss_mask) == ([1, 2, 3, 9, 5], [0, 0, 0, 0, 1])
    assert third.tokens == [1, 2, 3, 4, 9, 6]  # continues the first, but only the last one grows


def test_a_sequence_goes_on_after_a_rewritten_history():
    sequences = merge_turns([turn([1], [2]), turn([3], [4]), turn([3, 4, 5], [6])])
    assert [one.tokens for one in sequences] == [[1, 2], [3, 4, 5, 6]]


def test_a_prompt_that_ends_early_is_a_rewritten_history():
    sequences = merge_turns([turn([1, 2], [3, 4]), turn([1, 2, 3], [5])])
    assert [one.tokens for one in sequences] == [[1, 2, 3, 4], [1, 2, 3, 5]]


def test_turns_without_anything_in_between():
    (merged,) = merge_turns([turn([1], [2]), turn([1, 2], [3])])
    assert merged.loss_mask == [0, 1, 1]
    assert [one.role for one in merged.turns] == ["prompt", "assistant", "assistant"]


def test_cut_within_a_response():
    (merged,) = merge_turns([turn([1, 2], [3, 4]), turn([1, 2, 3, 4, 9], [5, 6, 7], (0, 1, 1), (1, 3, 2))])
    assert merged.cut(7)
    assert merged.tokens == [1, 2, 3, 4, 9, 5, 6]
    assert merged.loss_mask == [0, 0, 1, 1, 0, 1, 1]
    assert len(merged.logprobs) == 7
    assert merged.spans == [VersionSpan(2, 4, 0), VersionSpan(5, 6, 1), VersionSpan(6, 7, 2)]
    assert merged.turns[-1] == Turn(5, 7, "assistant")


def test_cut_drops_turns_and_spans_behind_it():
    (merged,) = merge_turns([turn([1, 2], [3, 4]), turn([1, 2, 3, 4, 9], [5])])
    assert merged.cut(4)
    assert merged.turns == [Turn(0, 2, "prompt"), Turn(2, 4, "assistant")]
    assert merged.spans == [VersionSpan(2, 4, 0)]


def test_cut_leaves_what_is_short_enough():
    (merged,) = merge_turns([turn([1, 2], [3, 4])])
    assert not merged.cut(4)
    assert merged.tokens == [1, 2, 3, 4]


def test_arrays():
    (merged,) = merge_turns([turn([1, 2], [3])])
    tokens, mask, logprobs = merged.arrays()
    assert [(array.dtype, array.shape) for array in (tokens, mask, logprobs)] == [
        (np.int32, (3,)),
        (np.uint8, (3,)),
        (np.float32, (3,)),
    ]
    assert logprobs.tolist() == [0.0, 0.0, np.float32(-0.3)]


def test_no_context_is_no_turn():
    sequence = Sequence()
    sequence.add_context([], role="tool")
    assert sequence.turns == []
