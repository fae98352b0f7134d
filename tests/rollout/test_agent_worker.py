import json

import pytest
from rollout_parts import FORGETFUL, ScriptedEngine, context, make_tokenizer, pieces, task

from nexrl.errors import DataError
from nexrl.rollout import AgentRolloutWorker
from nexrl.rollout.agent import ToolCall, parse_tool_calls
from nexrl.types import VersionSpan, derive_seed

TOOLS = '''\
def add(a: int, b: int) -> int:
    """Adds.

    Args:
        a: one number
        b: another
    """
    return a + b


def fail() -> str:
    """Never works."""
    raise LookupError("no such book")


ALL = [add, fail]
'''
TOOLS_HEAD = "<s>add;fail;<eos>"
PROMPT = "sadd;fail;eu2+3ea"
"""A letter per token of `<s>add;fail;<eos><u>2+3<eos><a>`."""


def call(name, **arguments):
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    file = tmp_path_factory.mktemp("tools") / "tools.py"
    file.write_text(TOOLS)
    return file


@pytest.fixture
def agent(tools, tokenizer):
    def make(replies, *, tokenizer=tokenizer, worker=AgentRolloutWorker, **config):
        engine = ScriptedEngine(tokenizer, replies)
        settings = {"type": "agent", "agent_args": {"tools": f"{tools}:ALL"}} | config
        return worker(context(tokenizer, engine, **settings)), engine

    return make


def test_tools_are_called_until_a_reply_calls_none(agent, tokenizer):
    worker, engine = agent([call("add", a=2, b=3), "five"])
    (found,) = worker.rollout(task("2+3", max_tokens=100))[0]
    asked = call("add", a=2, b=3)
    assert pieces(found, tokenizer) == [
        ("prompt", f"{TOOLS_HEAD}<u>2+3<eos><a>", False),
        ("assistant", f"{asked}<eos>", True),
        ("tool", "<t>5<eos><a>", False),
        ("assistant", "five<eos>", True),
    ]
    assert engine.prompts[1] == f"{TOOLS_HEAD}<u>2+3<eos><a>{asked}<eos><t>5<eos><a>"
    assert found.response == "five"
    assert found.header.reward == 4.0
    assert found.header.finish_reason == "stop"
    starts = [turn.start for turn in found.turns]
    assert found.spans == (VersionSpan(starts[1], starts[2], 3), VersionSpan(starts[3], len(found.tokens), 3))


def test_what_was_sampled_is_never_encoded_again(tokenizer):
    """The engine spelled `ab` in a way that the tokenizer would not; the next prompt has its ids, not the text's."""

    class Spells(ScriptedEngine):
        def generate(self, prompt_ids, *, sampling, seeds):
            self.ids = tuple(prompt_ids)
            return super().generate(prompt_ids, sampling=sampling, seeds=seeds)

        def _complete(self, prompt_ids, reply, sampling):
            made = super()._complete(prompt_ids, reply, sampling)
            odd = tuple(4 if token == made.token_ids[0] else token for token in made.token_ids)
            return type(made)(
                prompt_ids=prompt_ids,
                token_ids=odd,
                logprobs=made.logprobs,
                spans=made.spans,
                text=made.text,
                finish_reason=made.finish_reason,
            )

    class Nods(AgentRolloutWorker):
        def reply_messages(self, task, text):
            return [{"role": "user", "content": "go on"}] if text == "ab" else []

    engine = Spells(tokenizer, ["ab", "cd"])
    (found,) = Nods(context(tokenizer, engine, type="agent")).rollout(task("x"))[0]
    first = found.turns[1]
    assert tokenizer.decode(found.tokens[first.start : first.end].tolist()) == "<a>b<eos>"
    assert tuple(found.tokens[: len(engine.ids)].tolist()) == engine.ids
    assert len(found.turns) == 4


def test_weights_that_change_between_two_turns(agent):
    class Syncs(AgentRolloutWorker):
        def reply_messages(self, task, text):
            self.client.version += 1
            return super().reply_messages(task, text)

    worker, _ = agent([call("add", a=1, b=1), "two"], worker=Syncs)
    (found,) = worker.rollout(task(max_tokens=100))[0]
    assert [span.version for span in found.spans] == [3, 4]
    assert (found.header.version_min, found.header.version_max) == (3, 4)


def test_every_sample_has_a_seed_of_its_own(agent):
    worker, engine = agent(["two", "three"])
    rollouts = worker.rollout(task("1+1", samples=2, max_tokens=100))
    assert [len(rollouts[run_id]) for run_id in (0, 1)] == [1, 1]
    assert sorted(engine.seeds) == sorted([derive_seed(7, "a@0", run_id, 0)] for run_id in (0, 1))
    assert rollouts[1][0].header.trajectory_id == "a@0/1.0.0"


def test_every_turn_has_a_seed_of_its_own(agent):
    worker, engine = agent([call("add", a=1, b=1), "two"])
    worker.rollout(task("1+1", max_tokens=100))
    assert engine.seeds == [[derive_seed(7, "a@0", 0, turn)] for turn in (0, 1)]


def test_a_tool_that_raises_tells_the_policy(agent, tokenizer):
    worker, _ = agent([call("fail"), "sorry"])
    (found,) = worker.rollout(task(max_tokens=100))[0]
    assert pieces(found, tokenizer)[2] == ("tool", "<t>error: LookupError: no such book<eos><a>", False)
    assert found.response == "sorry"


def test_several_calls_in_one_reply(agent, tokenizer):
    worker, _ = agent([f"both: {call('add', a=1, b=2)} {call('add', a=3, b=4)}", "done"])
    (found,) = worker.rollout(task(max_tokens=200))[0]
    assert pieces(found, tokenizer)[2] == ("tool", "<t>3<eos><t>7<eos><a>", False)


def test_calls_of_a_text():
    text = f'{call("add", a=1)} and <tool_call>\n{{"name": "f"}}\n</tool_call> <tool_call>{{"name": "unfinished"'
    assert parse_tool_calls(text) == [ToolCall("add", {"a": 1}), ToolCall("f", {})]
    assert parse_tool_calls("nothing") == []


def test_the_last_turn_that_is_allowed(agent):
    worker, engine = agent([call("add", a=1, b=1)] * 3, max_turns=2)
    (found,) = worker.rollout(task(max_tokens=100))[0]
    assert len(engine.prompts) == 2
    assert [turn.role for turn in found.turns] == ["prompt", "assistant", "tool", "assistant"]
    assert found.header.finish_reason == "max_turns"


def test_a_reply_that_ran_into_its_limit_ends_the_episode(agent):
    asked = call("add", a=1, b=1)
    worker, engine = agent([f"{asked} and so on"])
    (found,) = worker.rollout(task(max_tokens=len(asked) + 2))[0]
    assert len(engine.prompts) == 1
    assert found.header.finish_reason == "length"


def test_a_turn_gets_the_room_that_is_left(agent, tokenizer):
    asked = call("add", a=1, b=1)
    parts = len(PROMPT), len(asked) + 1, len("t2ea")
    worker, engine = agent([asked, "a long answer"], max_sequence_length=sum(parts) + 5)
    (found,) = worker.rollout(task("2+3", max_tokens=100))[0]
    assert [sampling.max_tokens for sampling in engine.samplings] == [len(asked) + 10, 5]
    assert pieces(found, tokenizer)[-1] == ("assistant", "a lon", True)
    assert found.header.num_tokens == sum(parts) + 5
    assert found.header.finish_reason == "length"
    assert found.header.reward == 5.0


def test_a_prompt_that_leaves_no_room_at_all(agent):
    worker, engine = agent(["never asked for"], max_sequence_length=len(PROMPT))
    with pytest.raises(DataError, match=r"task a: the prompt has 17 tokens, rollout_worker\.max_sequence_length is 17"):
        worker.rollout(task("2+3"))
    assert engine.prompts == []


def test_a_template_that_drops_history_gives_a_sequence_per_context(agent):
    """What the policy sampled after a thought is trained under the context that had the thought, and the next turn
    under the one without."""
    forgetful = make_tokenizer(FORGETFUL)
    asked = call("add", a=1, b=1)
    worker, engine = agent([f"let me see|{asked}", "two"], tokenizer=forgetful)
    first, second = worker.rollout(task("1+1", max_tokens=100))[0]
    assert pieces(first, forgetful) == [
        ("prompt", f"{TOOLS_HEAD}<u>1+1<eos><a>", False),
        ("assistant", f"let me see|{asked}<eos>", True),
    ]
    assert pieces(second, forgetful) == [
        ("prompt", f"{TOOLS_HEAD}<u>1+1<eos><a>{asked}<eos><t>2<eos><a>", False),
        ("assistant", "two<eos>", True),
    ]
    assert engine.prompts[1] == pieces(second, forgetful)[0][1]
    assert [one.header.trajectory_id for one in (first, second)] == ["a@0/0.0.0", "a@0/0.0.1"]
    assert [one.header.reward for one in (first, second)] == [3.0, 3.0]
    assert [one.response for one in (first, second)] == ["two", "two"]


def test_an_environment_of_ones_own(agent, tokenizer):
    class Guess(AgentRolloutWorker):
        def first_messages(self, task):
            return [{"role": "system", "content": "guess"}, *super().first_messages(task)]

        def reply_messages(self, task, text):
            return [] if text == task.ground_truth else [{"role": "user", "content": "no"}]

        def final_answer(self, texts):
            return "".join(texts)

    worker, _ = agent(["x", "y"], worker=Guess, agent_args={})
    (found,) = worker.rollout(task("?", ground_truth="y"))[0]
    assert "".join(text for _, text, _ in pieces(found, tokenizer)) == (
        "<s>guess<eos><u>?<eos><a>x<eos><u>no<eos><a>y<eos>"
    )
    assert found.response == "xy"
