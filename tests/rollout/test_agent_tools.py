"""Which tools an agent has, and what becomes of calls that cannot be made."""

import pytest
from rollout_parts import ScriptedEngine, context, pieces, task

from nexrl.errors import ConfigError
from nexrl.rollout import AgentRolloutWorker

TOOLS = '''\
def add(left: int, right: int) -> int:
    """Adds.

    Args:
        left: a number
        right: another
    """
    return left + right


def nothing():
    return None


def other():
    """Has the name of a tool that is there."""


other.__name__ = "add"
GOOD = [add]
ONE = add
MIXED = [add, 3]
UNDESCRIBED = [nothing]
TWICE = [add, other]
'''


@pytest.fixture
def tools(tmp_path):
    """`tools(NAME)`: what a recipe says to have that list."""
    (tmp_path / "tools.py").write_text(TOOLS)
    return lambda name: {"tools": f"{tmp_path}/tools.py:{name}"}


def agent(tokenizer, replies, agent_args, **config):
    config = {"type": "agent", "max_sequence_length": 400, **config}
    return AgentRolloutWorker(context(tokenizer, ScriptedEngine(tokenizer, replies), agent_args=agent_args, **config))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ABSENT", "has no 'ABSENT'"),
        ("ONE", "needs a list of functions"),
        ("MIXED", "needs a list of functions"),
        ("UNDESCRIBED", "function nothing: .*docstring"),
        ("TWICE", r"2 functions, but only the names \['add'\]"),
    ],
)
def test_tools_that_cannot_be_offered_are_found_when_the_worker_is_made(name, said, tokenizer, tools):
    with pytest.raises(ConfigError, match=said) as raised:
        agent(tokenizer, [], tools(name))
    assert raised.value.key == "rollout_worker.agent_args.tools"


def test_tools_are_named_by_a_path(tokenizer):
    with pytest.raises(ConfigError, match=r"tools: found \['add'\], needs path/to/file\.py:NAME"):
        agent(tokenizer, [], {"tools": ["add"]})


def test_an_argument_that_no_agent_knows(tokenizer):
    with pytest.raises(ConfigError, match=r"agent_args: found \['tool'\]"):
        agent(tokenizer, [], {"tool": "tools.py:GOOD"})


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ('{"name": "add", "arguments": {"left": 2, "right": 3}}', "5"),
        ('{"name": "add", "arguments": {"left": 2}}', "error: TypeError"),
        ('{"name": "add", "arguments": {"left": 2, "right": "x"}}', "error: TypeError"),
        ('{"name": "divide", "arguments": {}}', "error: no tool 'divide'; there are ['add']"),
        ('{"name": "add", "arguments": [2, 3]}', "error: not a tool call"),
        ("add 2 and 3", "error: not a tool call"),
        ('{"name": "add", "arguments": {"left": ' + "[" * 5000, "error: not a tool call"),
    ],
)
def test_every_call_is_answered(call, answer, tokenizer, tools):
    replies = [f"<tool_call>{call}</tool_call>", "done"]
    worker = agent(tokenizer, replies, tools("GOOD"), max_sequence_length=8000)
    [trajectory] = worker.rollout(task("2+3", max_tokens=6000))[0]
    told = [text for role, text, _ in pieces(trajectory, tokenizer) if role == "tool"]
    assert told[0].startswith(f"<t>{answer}")
    assert trajectory.response == "done"


def test_an_episode_without_room_for_its_next_turn_is_truncated(tokenizer, tools):
    call = '<tool_call>{"name": "add", "arguments": {"left": 2, "right": 3}}</tool_call>'
    long_enough = len("<s>add;<eos><u>2<eos><a>".replace("<s>", "s").replace("<eos>", "e")) + len(call)
    worker = agent(tokenizer, [call, "5"], tools("GOOD"), max_sequence_length=long_enough)
    [trajectory] = worker.rollout(task("2", max_tokens=200))[0]
    assert trajectory.header.finish_reason == "truncated"
    assert trajectory.header.reward == 0.0
    assert trajectory.header.num_tokens <= long_enough
    assert trajectory.response == call
