import copy

import numpy as np
import pytest
import torch
from training_parts import VOCABULARY, make_trajectories, make_trajectory, rows_of
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from nexrl.errors import ConfigError, TrainingError
from nexrl.train_service.attention import ATTENTION, packed_attention, plan_segments, register_attention
from nexrl.train_service.collate import check_row, pack_rows
from nexrl.train_service.fsdp import packed_logits
from nexrl.types import BatchRow

CPU = torch.device("cpu")
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}
MODELS = {
    "qwen3": Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=4),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=4),
    "mistral, sliding window of 6": MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=6),
}
LENGTHS = {
    "equal": [6] * 5,
    "one": [11],
    "shortest": [1, 2, 1, 2],
    "mixed": [5, 17, 9, 33, 5, 2, 1, 20],
    "several buckets": [600, 1, 4, 300, 299, 2, 601, 5],
}


def models(name):
    register_attention()
    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(
        copy.deepcopy(MODELS[name]), dtype=torch.float64, attn_implementation="sdpa"
    )
    packed = AutoModelForCausalLM.from_config(
        copy.deepcopy(MODELS[name]), dtype=torch.float64, attn_implementation=ATTENTION
    )
    packed.load_state_dict(plain.state_dict())
    return plain, packed


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_packed_sequences_have_the_logits_and_gradients_of_lonely_ones(name, lengths):
    plain, packed = models(name)
    trajectories = make_trajectories(lengths)
    rows = rows_of(trajectories)
    inputs = pack_rows(
        rows, {item.header.trajectory_id: item for item in trajectories}, device=CPU, dtype=torch.float64
    )
    found = packed_logits(packed, inputs)
    alone = [
        plain(input_ids=torch.as_tensor(item.tokens)[None].long()).logits[0, :-1][
            torch.as_tensor(item.loss_mask[1:] > 0)
        ]
        for item in trajectories
    ]
    expected = torch.cat(alone)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    found.square().sum().backward()
    expected.square().sum().backward()
    for (parameter_name, mine), theirs in zip(packed.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-6, atol=1e-9, msg=parameter_name)


def test_padding_is_bounded_where_lengths_differ_much():
    segments = plan_segments([4000] + [10] * 400, device=CPU)
    assert [(bucket.count, bucket.length) for bucket in segments.buckets] == [(1, 4000), (400, 10)]


def test_collation_by_hand():
    trajectories = {
        "a": make_trajectory("a", [5, 6, 7], [0, 1, 1], [0, -0.5, -0.25]),
        "b": make_trajectory("b", [8, 9, 10, 11], [0, 1, 0, 1], [0, -1, 0, -2]),
    }
    rows = [BatchRow("a", "r", 3, 2, 0.5), BatchRow("b", "r", 4, 2, -1.0)]
    packed = pack_rows(rows, trajectories, device=CPU, dtype=torch.float32)
    assert packed.input_ids.tolist() == [[5, 6, 8, 9, 10]]
    assert packed.position_ids.tolist() == [[0, 1, 0, 1, 2]]
    assert packed.trained.tolist() == [0, 1, 2, 4]
    assert packed.targets.tolist() == [6, 7, 9, 11]
    assert packed.sampler_logprobs.tolist() == [-0.5, -0.25, -1, -2]
    assert packed.advantages.tolist() == [0.5, 0.5, -1, -1]
    assert packed.lengths == (2, 2)


def test_no_rows_still_make_a_forward():
    _, model = models("qwen3")
    logits = packed_logits(model, pack_rows([], {}, device=CPU, dtype=torch.float64))
    assert logits.shape == (0, VOCABULARY)
    logits.sum().backward()
    assert all((parameter.grad == 0).all() for parameter in model.parameters() if parameter.grad is not None)


@pytest.mark.parametrize(
    ("trajectory", "row", "message"),
    [
        (([3, 4], [0, 1], [0, 0]), ("x", "r", 3, 1, 0.0), "trajectory x: found 2 tokens, 1 of them trained"),
        (([3, 4], [0, 1], [0, 0]), ("x", "r", 2, 2, 0.0), "the batch says 2 and 2"),
        (([3, 4], [1, 1], [0, 0]), ("x", "r", 2, 2, 0.0), "first token that is not trained on"),
        (([3, 23], [0, 1], [0, 0]), ("x", "r", 2, 1, 0.0), "token ids 3 to 23, the model knows 0 to 22"),
        (([-1, 3], [0, 1], [0, 0]), ("x", "r", 2, 1, 0.0), "token ids -1 to 3"),
        (([], [], []), ("x", "r", 0, 0, 0.0), "needs a first token"),
    ],
)
def test_rows_that_do_not_fit_are_named(trajectory, row, message):
    with pytest.raises(TrainingError, match=message):
        check_row(BatchRow(*row), make_trajectory("x", *trajectory), vocab_size=VOCABULARY)


def test_attention_that_would_be_computed_wrongly_is_refused():
    tensor = torch.zeros(1, 2, 3, 4)
    segments = plan_segments([3], device=CPU)
    with pytest.raises(ConfigError, match="softcap"):
        packed_attention(torch.nn.Identity(), tensor, tensor, tensor, None, segments=segments, softcap=30.0)


def test_segments_lie_where_they_should():
    lengths = [3, 700, 2, 700, 4]
    segments = plan_segments(lengths, device=CPU)
    tokens = np.arange(sum(lengths))
    padded = torch.cat([torch.as_tensor(tokens)[bucket.gather] for bucket in segments.buckets])
    assert padded[segments.scatter].tolist() == tokens.tolist()
