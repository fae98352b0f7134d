"""Several turns with tools."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import isfunction
from typing import Any, ClassVar

import msgspec

from nexrl.config.custom import load_attribute
from nexrl.errors import ConfigError, DataError
from nexrl.rollout.base import TRUNCATED, BaseRolloutWorker, RolloutContext
from nexrl.rollout.sequence import merge_turns
from nexrl.types import Completion, Message, Task, Trajectory, derive_seed

_TOOLS_KEY = "rollout_worker.agent_args.tools"
_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


class ToolCall(msgspec.Struct, frozen=True):
    """One call that the policy asked for, in Hermes' JSON form: `{"name": …, "arguments": {…}}`."""

    name: str
    arguments: dict[str, Any] = {}


def parse_tool_calls(text: str) -> list[ToolCall | str]:
    """Calls of a reply in order; a block that is not such JSON gives the text of what is wrong with it."""
    calls: list[ToolCall | str] = []
    for block in _TOOL_CALL.findall(text):
        try:
            calls.append(msgspec.json.decode(block, type=ToolCall))
        except (msgspec.DecodeError, RecursionError) as error:  # the latter: [[[[[[…
            calls.append(f"not a tool call: {error}")
    return calls


class AgentRolloutWorker(BaseRolloutWorker):
    """Lets the policy call Python functions until it answers without a call, or `max_turns` is reached.

    `agent_args.tools` is `path/to/file.py:NAME`, a list of functions; each is offered under its own name with its
    docstring. Override `first_messages`, `reply_messages` or `final_answer` for an environment of your own, and
    `agent_arg_names` for arguments of your own. The samples of a prompt play at the same time: keep what belongs to one
    episode out of `self`.
    """

    agent_arg_names: ClassVar[tuple[str, ...]] = ("tools",)
    """Keys of `rollout_worker.agent_args` that this worker knows."""

    def __init__(self, context: RolloutContext) -> None:
        super().__init__(context)
        unknown = set(self.config.agent_args) - set(self.agent_arg_names)
        if unknown:
            known = ", ".join(self.agent_arg_names)
            raise ConfigError(f"found {sorted(unknown)}, knows {known}", key="rollout_worker.agent_args")
        self.tools = _load_tools(self.config.agent_args.get("tools"))
        self._descriptions = [_describe(function) for function in self.tools.values()]

    def first_messages(self, task: Task) -> list[Message]:
        """The conversation that the first turn answers."""
        return [{"role": "user", "content": task.prompt}] if isinstance(task.prompt, str) else list(task.prompt)

    def reply_messages(self, task: Task, text: str) -> list[Message]:
        """What the environment says to a reply; nothing ends the episode."""
        return [{"role": "tool", "content": self._run(call)} for call in parse_tool_calls(text)]

    def final_answer(self, texts: Sequence[str]) -> str:
        """What the evaluator judges: the last reply."""
        return texts[-1]

    def rollout(self, task: Task) -> Mapping[int, Sequence[Trajectory]]:
        """One episode per run id, all at once: the engine batches what they ask."""
        with ThreadPoolExecutor(len(task.run_ids), thread_name_prefix=f"episode {task.group_id}") as threads:
            episodes = threads.map(lambda run_id: self._episode(task, run_id), task.run_ids)
            return dict(zip(task.run_ids, episodes, strict=True))

    def _episode(self, task: Task, run_id: int) -> list[Trajectory]:
        """Turns until one needs no reply, ran into its token limit or was the last that is allowed (`max_turns`); an
        episode that has no room left for its next turn is cut off (`truncated`)."""
        started = time.time()
        messages = self.first_messages(task)
        text = self._render(messages)
        ids = self.encode(text)
        turns: list[Completion] = []
        while True:
            completion = self._generate(task, run_id, ids, turn=len(turns))
            turns.append(completion)
            replies = self.reply_messages(task, completion.text)
            finish_reason = completion.finish_reason
            if not replies or finish_reason == "length":
                break
            if len(turns) == self.config.max_turns:
                finish_reason = "max_turns"
                break
            messages = [*messages, {"role": "assistant", "content": completion.text}, *replies]
            text, ids = self._next_prompt(text, completion, messages)
            if len(ids) >= self.config.max_sequence_length:
                finish_reason = TRUNCATED
                break
        return self.finish(
            task,
            run_id,
            merge_turns(turns),
            answer=self.final_answer([turn.text for turn in turns]),
            finish_reason=finish_reason,
            started=started,
        )

    def _generate(self, task: Task, run_id: int, ids: list[int], *, turn: int) -> Completion:
        room = self.config.max_sequence_length - len(ids)
        if room < 1:
            raise DataError(
                f"task {task.task_id}: the prompt has {len(ids)} tokens, rollout_worker.max_sequence_length is "
                f"{self.config.max_sequence_length}"
            )
        sampling = msgspec.structs.replace(task.sampling, max_tokens=min(task.sampling.max_tokens, room))
        seed = derive_seed(task.seed, task.group_id, run_id, turn)
        return self.client.generate(ids, sampling=sampling, seeds=[seed])[0]

    def _render(self, messages: Sequence[Message]) -> str:
        return self.prompt_text(messages, tools=self._descriptions or None)

    def _next_prompt(self, text: str, completion: Completion, messages: Sequence[Message]) -> tuple[str, list[int]]:
        """The sampled ids themselves followed by the ids of what the template adds; where the template rewrites the
        history (some drop earlier reasoning), everything is tokenised anew and the episode goes on in a sequence of
        its own."""
        rendered = self._render(messages)
        spoken = text + completion.text
        if not rendered.startswith(spoken):
            return rendered, self.encode(rendered)
        tail = self.encode(rendered[len(spoken) :])
        eos = self.context.tokenizer.eos_token_id
        if eos is not None and completion.token_ids[-1:] == (eos,) and tail[:1] == [eos]:
            tail = tail[1:]
        return rendered, [*completion.prompt_ids, *completion.token_ids, *tail]

    def _run(self, call: ToolCall | str) -> str:
        if isinstance(call, str):
            return f"error: {call}"
        tool = self.tools.get(call.name)
        if tool is None:
            return f"error: no tool {call.name!r}; there are {sorted(self.tools)}"
        try:
            return str(tool(**call.arguments))
        except Exception as error:  # noqa: BLE001 - a tool's failure is the policy's to deal with
            return f"error: {type(error).__name__}: {error}"


def _load_tools(spec: Any) -> dict[str, Callable[..., Any]]:
    if spec is None:
        return {}
    if not isinstance(spec, str):
        raise ConfigError(f"found {spec!r}, needs path/to/file.py:NAME", key=_TOOLS_KEY)
    try:
        tools = load_attribute(spec)
    except ConfigError as error:
        raise error.under(_TOOLS_KEY) from error
    if not isinstance(tools, (list, tuple)) or not all(isfunction(tool) for tool in tools):
        raise ConfigError(f"{spec} is {tools!r}, needs a list of functions", key=_TOOLS_KEY)
    named = {tool.__name__: tool for tool in tools}
    if len(named) < len(tools):
        raise ConfigError(f"{spec} has {len(tools)} functions, but only the names {sorted(named)}", key=_TOOLS_KEY)
    return named


def _describe(function: Callable[..., Any]) -> dict[str, Any]:
    """JSON schema from signature and docstring, as chat templates take it."""
    from transformers.utils import get_json_schema  # heavy: only where tools are described
    from transformers.utils.chat_template_utils import DocstringParsingException, TypeHintParsingException

    try:
        schema: dict[str, Any] = get_json_schema(function)
    except (DocstringParsingException, TypeHintParsingException) as error:
        raise ConfigError(f"function {function.__name__}: {error}", key=_TOOLS_KEY) from error
    return schema
