"""Rewards, and what happens to rewards that are none."""

import threading

import numpy as np
import pytest

from nexrl.config.schema import RolloutWorkerConfig
from nexrl.errors import ConfigError, RewardError
from nexrl.evaluators import (
    BaseEvaluationTarget,
    EvaluationRunResult,
    Evaluator,
    ExactMatchEvaluator,
    FormatEvaluator,
    MathEvaluator,
    checked,
    create_evaluator,
)
from nexrl.types import SamplingParams, Task


def task(ground_truth="ba", prompt="ab>"):
    return Task(
        task_id="rows.jsonl:7",
        group_id="g",
        order=0,
        run_ids=(0,),
        attempt=0,
        is_val=False,
        prompt=prompt,
        ground_truth=ground_truth,
        data_source="s",
        seed=1,
        sampling=SamplingParams(max_tokens=4),
    )


def judge(evaluator, answer, *args, **kwargs):
    return checked(evaluator, task(*args, **kwargs), BaseEvaluationTarget(final_answer=answer))


@pytest.mark.parametrize(
    ("options", "answer", "truth", "reward"),
    [
        ({}, "ba", "ba", 1),
        ({}, " ba\n", "ba", 1),
        ({"strip": False}, " ba", "ba", 0),
        ({}, "bA", "ba", 0),
        ({}, "", "ba", 0),
        ({}, "42", 42, 1),
        ({}, "c", ["b", "c"], 1),
        ({}, "d", ["b", "c"], 0),
        ({"answer_tag": "answer"}, "so <answer> ba </answer> or <answer>x</answer>", "ba", 1),
        ({"answer_tag": "answer"}, "so <answer>x</answer> or <answer>ba</answer>", "ba", 0),
        ({"answer_tag": "answer"}, "ba", "ba", 0),
        ({"answer_tag": "a.c"}, "<abc>ba</abc>", "ba", 0),
    ],
)
def test_exact_match(options, answer, truth, reward):
    result = judge(ExactMatchEvaluator(**options), answer, truth)
    assert (result.reward, result.metrics["exact_match"]) == (reward, reward)


def test_exact_match_reports_the_form_where_a_tag_is_asked_for():
    evaluator = ExactMatchEvaluator(answer_tag="answer")
    assert judge(evaluator, "<answer>x</answer>").metrics == {"exact_match": 0, "format_correct": 1}
    assert judge(evaluator, "x").metrics == {"exact_match": 0, "format_correct": 0}


@pytest.mark.parametrize("truth", [None, [], [None]])
@pytest.mark.parametrize("evaluator", [ExactMatchEvaluator(), MathEvaluator()])
def test_a_row_without_ground_truth_is_named(evaluator, truth):
    with pytest.raises(RewardError, match=r"Evaluator on task rows\.jsonl:7: .*data\.ground_truth_key"):
        judge(evaluator, "x", truth)


@pytest.mark.parametrize(
    ("options", "answer", "reward"),
    [
        ({"pattern": r"<a>.*</a>"}, "x <a>\n</a> y", 1),
        ({"pattern": r"<a>.*</a>", "full": True}, "x <a></a>", 0),
        ({"pattern": r"<a>.*</a>", "full": True}, "<a>1</a>", 1),
        ({"pattern": "z"}, "x", 0),
    ],
)
def test_format(options, answer, reward):
    result = judge(FormatEvaluator(**options), answer, None)
    assert (result.reward, result.metrics) == (reward, {"format_correct": reward})


@pytest.fixture(scope="module")
def maths():
    return MathEvaluator(timeout=2.0)


@pytest.mark.parametrize(
    ("answer", "truth", "reward"),
    [
        (r"so \boxed{4}", "4", 1.0),
        (r"\boxed{5}", "4", 0.1),
        ("4", "4", 0.0),
        (r"first \boxed{4}, no, \boxed{5}", "4", 0.1),
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0),
        (r"\fbox{\dfrac12}", r"\frac{1}{2}", 1.0),
        (r"\boxed{ 2 \sqrt{2} }", r"\sqrt{8}", 1.0),
        (r"\boxed{1+x^2}", "x^2+1", 1.0),
        (r"\boxed{(1, 2)}", "(1,2)", 1.0),
        (r"\boxed{(2, 1)}", "(1,2)", 0.1),
        (r"\boxed{7}", 7, 1.0),
        (r"\boxed{7}", ["6", r"it is \boxed{7}"], 1.0),
        (r"\boxed{\{a, b\}", "a", 0.0),
        (r"<think>\boxed{4}</think> \boxed{5}", "5", 1.0),
        (r"<think>\boxed{5}</think> none", "5", 0.0),
        (r"<think>\boxed{5}", "5", 0.0),
        (r"\boxed{}", "5", 0.1),
        (r"\boxed{$\text{nonsense}}}{$}", "5", 0.1),
    ],
)
def test_math(maths, answer, truth, reward):
    result = judge(maths, answer, truth)
    assert result.reward == reward
    assert result.metrics == {"correct": float(reward == 1.0), "format_correct": float(reward > 0)}


def test_a_thought_that_the_prompt_opened_must_be_closed(maths):
    assert judge(maths, r"\boxed{5}", "5", prompt="q <think>").reward == 0.0
    assert judge(maths, r"hm</think>\boxed{5}", "5", prompt="q <think>").reward == 1.0
    assert judge(maths, r"\boxed{5}", "5", prompt=[{"role": "user", "content": "q <think>"}]).reward == 0.0


def test_math_rewards_are_options():
    evaluator = MathEvaluator(correct=2.0, format=-0.5)
    assert judge(evaluator, r"\boxed{4}", "4").reward == 2.0
    assert judge(evaluator, r"\boxed{5}", "4").reward == -0.5
    assert judge(evaluator, "none", "4").reward == 0.0


def test_an_expression_without_end_is_wrong_and_the_next_one_is_judged():
    evaluator = MathEvaluator(timeout=1.0)
    assert judge(evaluator, r"\boxed{9^{9^{9^{9}}}}", "1").reward == 0.1
    assert judge(evaluator, r"\boxed{\frac{2}{4}}", "0.5").reward == 1.0


def test_math_is_judged_from_many_threads(maths):
    rewards = {}

    def work(number):
        rewards[number] = judge(maths, rf"\boxed{{\frac{{{2 * number}}}{{2}}}}", str(number)).reward

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rewards == dict.fromkeys(range(1, 13), 1.0)


# -- results that are none


class Saying(Evaluator):
    def __init__(self, result):
        self.result = result

    def evaluate(self, data, evaluation_target):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (EvaluationRunResult(float("nan")), "reward is nan (float)"),
        (EvaluationRunResult(float("-inf")), "reward is -inf (float)"),
        (EvaluationRunResult("1"), "reward is '1' (str)"),
        (EvaluationRunResult(None), "reward is None (NoneType)"),
        (EvaluationRunResult(1.0, metrics={"speed": float("inf")}), "metric 'speed' is inf"),
        (0.5, "returned 0.5, needs an EvaluationRunResult"),
        (None, "returned None"),
        (KeyError("answer"), "raised KeyError: 'answer'"),
    ],
)
def test_a_reward_that_is_none_names_evaluator_task_and_value(result, words):
    with pytest.raises(RewardError) as caught:
        judge(Saying(result), "x")
    assert "Saying on task rows.jsonl:7" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("reward", [1, True, np.float32(1), np.int64(1)])
def test_any_number_becomes_a_float(reward):
    result = judge(Saying(EvaluationRunResult(reward, metrics={"m": reward})), "x")
    assert type(result.reward) is type(result.metrics["m"]) is float
    assert result.reward == 1.0


# -- making them


def test_a_recipe_chooses_the_evaluator(tmp_path):
    assert type(create_evaluator(RolloutWorkerConfig())) is ExactMatchEvaluator
    config = RolloutWorkerConfig(evaluator="format", evaluator_args={"pattern": "x"})
    assert type(create_evaluator(config)) is FormatEvaluator
    path = tmp_path / "mine.py"
    path.write_text(
        "from nexrl.evaluators import EvaluationRunResult, Evaluator\n"
        "class Mine(Evaluator):\n"
        "    def __init__(self, bonus=0): self.bonus = bonus\n"
        "    def evaluate(self, data, evaluation_target):\n"
        "        return EvaluationRunResult(len(evaluation_target.final_answer) + self.bonus)\n"
    )
    config = RolloutWorkerConfig(evaluator=f"{path}:Mine", evaluator_args={"bonus": 10})
    assert judge(create_evaluator(config), "abc").reward == 13


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        ({"evaluator": "exact"}, "rollout_worker.evaluator", "one of exact_match, math, format"),
        ({"evaluator_args": {"strp": True}}, "rollout_worker.evaluator_args", "'strp'"),
        ({"evaluator": "format"}, "rollout_worker.evaluator_args", "'pattern'"),
        ({"evaluator": "format", "evaluator_args": {"pattern": "("}}, "rollout_worker.evaluator_args.pattern", "'('"),
    ],
)
def test_a_wrong_choice_names_the_key(config, key, words):
    with pytest.raises(ConfigError) as caught:
        create_evaluator(RolloutWorkerConfig(**config))
    assert caught.value.key == key
    assert words in str(caught.value)
