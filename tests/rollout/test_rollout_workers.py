import pytest
from rollout_parts import EOS, Length, ScriptedEngine, context, make_tokenizer, pieces, task

from nexrl.errors import ConfigError, DataError, RewardError
from nexrl.evaluators import EvaluationRunResult, Evaluator
from nexrl.rollout import (
    AgentRolloutWorker,
    SimpleRolloutWorker,
    SupervisedRolloutWorker,
    create_rollout_worker,
)
from nexrl.types import VersionSpan, derive_seed

CUSTOM = """\
from nexrl.rollout import BaseRolloutWorker


class Echo(BaseRolloutWorker):
    def rollout(self, task):
        return {}


class Incomplete(BaseRolloutWorker):
    pass
"""


def test_one_completion_per_sample(tokenizer):
    engine = ScriptedEngine(tokenizer, ["b", "bac"])
    worker = SimpleRolloutWorker(context(tokenizer, engine))
    rollouts = worker.rollout(task("ab", samples=2))
    assert engine.prompts == ["ab"]
    assert engine.samplings == [task().sampling]
    (first,), (second,) = rollouts[0], rollouts[1]
    assert pieces(first, tokenizer) == [("prompt", "ab", False), ("assistant", "b<eos>", True)]
    assert pieces(second, tokenizer) == [("prompt", "ab", False), ("assistant", "bac<eos>", True)]
    assert first.logprobs.tolist() == [0, 0, -1, -2]
    assert first.spans == (VersionSpan(2, 4, 3),)
    assert [one.header.reward for one in (first, second)] == [1.0, 3.0]


def test_everything_that_is_kept_of_a_sample(tokenizer):
    worker = SimpleRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, ["b"], version=9)))
    (found,) = worker.rollout(task("ab", attempt=2, is_val=True, model_tag="judge"))[0]
    header = found.header
    assert header.trajectory_id == "a@0/0.2.0"
    assert (header.group_id, header.task_id, header.order) == ("a@0", "a", 5)
    assert (header.run_id, header.attempt, header.sequence) == (0, 2, 0)
    assert (header.model_tag, header.is_val, header.data_source) == ("judge", True, "words")
    assert (header.num_tokens, header.num_trained) == (4, 2)
    assert header.score == {"half": 0.5}
    assert header.finish_reason == "stop"
    assert (header.version_min, header.version_max) == (9, 9)
    assert (header.worker, header.seed, header.temperature) == ("rollout-0@here", 7, 0.7)
    assert 0 < header.started <= header.finished
    assert (found.prompt, found.response, found.ground_truth) == ("ab", "b", "ba")


def test_seeds_depend_on_the_sample_and_not_on_its_company(tokenizer):
    engine = ScriptedEngine(tokenizer, "abcde")
    worker = SimpleRolloutWorker(context(tokenizer, engine))
    worker.rollout(task(samples=3))
    worker.rollout(task(attempt=1, samples=2))
    assert engine.seeds[0] == [derive_seed(7, "a@0", run_id, 0) for run_id in range(3)]
    assert engine.seeds[1] == engine.seeds[0][:2]


def test_messages_go_through_the_chat_template(tokenizer):
    engine = ScriptedEngine(tokenizer, ["b"])
    SimpleRolloutWorker(context(tokenizer, engine)).rollout(task([{"role": "user", "content": "ab"}]))
    assert engine.prompts == ["<u>ab<eos><a>"]


def test_messages_without_a_chat_template():
    tokenizer = make_tokenizer(template=None)
    worker = SimpleRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, ["b"])))
    with pytest.raises(DataError, match="no chat template"):
        worker.rollout(task([{"role": "user", "content": "ab"}]))


def test_a_response_that_ran_into_its_limit_is_judged_as_it_is(tokenizer):
    evaluator = Length()
    worker = SimpleRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, ["abcdef"]), evaluator=evaluator))
    (found,) = worker.rollout(task(max_tokens=3))[0]
    assert found.header.finish_reason == "length"
    assert found.header.reward == 3.0
    assert not evaluator.targets[0].is_truncated


def test_a_rollout_above_the_longest_sequence_is_cut_and_earns_nothing(tokenizer):
    evaluator = Length()
    engine = ScriptedEngine(tokenizer, ["abcdef"])
    worker = SimpleRolloutWorker(context(tokenizer, engine, evaluator=evaluator, max_sequence_length=5))
    (found,) = worker.rollout(task("ab"))[0]
    assert pieces(found, tokenizer) == [("prompt", "ab", False), ("assistant", "abc", True)]
    assert (found.header.num_tokens, found.header.num_trained) == (5, 3)
    assert found.header.finish_reason == "truncated"
    assert found.header.reward == 0.0
    assert found.header.score == {"half": 0.5}
    assert evaluator.targets[0].is_truncated


class ReturnsNan(Evaluator):
    def evaluate(self, data, evaluation_target):
        return EvaluationRunResult(reward=float("nan"))


class Raises(Evaluator):
    def evaluate(self, data, evaluation_target):
        raise KeyError("colour")


@pytest.mark.parametrize(("evaluator", "said"), [(ReturnsNan, "nan"), (Raises, "raised KeyError")])
def test_a_broken_evaluator_is_named_with_its_task(evaluator, said, tokenizer):
    worker = SimpleRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, ["b"]), evaluator=evaluator()))
    with pytest.raises(RewardError, match=rf"{evaluator.__name__} on task a.*{said}"):
        worker.rollout(task())


def test_demonstrations_come_from_the_data_row(tokenizer):
    worker = SupervisedRolloutWorker(context(tokenizer, None, type="supervised", response_key="answer"))
    rollouts = worker.rollout(task("ab", samples=2, fields={"answer": "ba"}))
    assert sorted(rollouts) == [0, 1]
    (found,) = rollouts[1]
    assert pieces(found, tokenizer) == [("prompt", "ab", False), ("assistant", "ba<eos>", True)]
    assert found.tokens[-1] == EOS
    assert found.logprobs.tolist() == [0.0] * 5
    assert found.spans == ()
    header = found.header
    assert (header.reward, header.finish_reason, header.score) == (1.0, "supervised", {})
    assert (header.version_min, header.version_max) == (-1, -1)
    assert (header.num_tokens, header.num_trained) == (5, 3)


@pytest.mark.parametrize("fields", [{}, {"response": None}, {"response": ""}, {"response": 3}])
def test_a_row_without_a_demonstration(fields, tokenizer):
    worker = SupervisedRolloutWorker(context(tokenizer, None, type="supervised"))
    with pytest.raises(DataError, match=r"row a: column 'response' holds .*rollout_worker\.response_key"):
        worker.rollout(task(fields=fields))


def test_a_demonstration_above_the_longest_sequence(tokenizer):
    worker = SupervisedRolloutWorker(context(tokenizer, None, type="supervised", max_sequence_length=4))
    with pytest.raises(DataError, match=r"row a: prompt and response have 5 tokens, .*max_sequence_length is 4"):
        worker.rollout(task(fields={"response": "ba"}))


def test_a_demonstration_asks_no_engine(tokenizer):
    with pytest.raises(DataError, match="SimpleRolloutWorker asks an engine"):
        SimpleRolloutWorker(context(tokenizer, None)).rollout(task())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("simple", SimpleRolloutWorker), ("agent", AgentRolloutWorker), ("supervised", SupervisedRolloutWorker)],
)
def test_the_type_says_which_worker(kind, expected, tokenizer):
    assert type(create_rollout_worker(context(tokenizer, None, type=kind))) is expected


def test_a_worker_of_ones_own(tmp_path, tokenizer):
    file = tmp_path / "workers.py"
    file.write_text(CUSTOM)
    worker = create_rollout_worker(context(tokenizer, None, custom_class=f"{file}:Echo"))
    assert type(worker).__name__ == "Echo"
    assert worker.rollout(task()) == {}
    with pytest.raises(ConfigError, match="lacks rollout, which BaseRolloutWorker needs"):
        create_rollout_worker(context(tokenizer, None, custom_class=f"{file}:Incomplete"))
