"""Chat messages to prompt tokens, by the tokenizer's own template."""

from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import msgspec

from nexrl.inference.embedded.request import RequestError
from nexrl.types import Message


def chat_prompt(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    add_generation_prompt: bool,
    options: Mapping[str, Any] | None,
) -> list[int]:
    """Token ids of a conversation; `options` are further variables of the template.

    Raises RequestError where there is no template, or it does not take these messages.
    """
    if not messages:
        raise RequestError("messages: found none, needs at least one", param="messages")
    if tokenizer.chat_template is None:
        raise RequestError("messages: the model's tokenizer has no chat template; send a prompt", param="messages")
    plain = [_plain(message) for message in messages]
    try:
        text = tokenizer.apply_chat_template(
            plain,
            tools=list(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **(options or {}),
        )
    except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
        raise RequestError(f"messages: the chat template refuses them: {error}", param="messages") from error
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _plain(message: Message) -> Message:
    """The message as templates expect it: content as text, arguments of tool calls as objects."""
    if not isinstance(message.get("role"), str):
        raise RequestError("messages: a message needs a role", param="messages")
    plain = {**message, "content": _text(message.get("content"))}
    if message.get("tool_calls"):
        plain["tool_calls"] = [_tool_call(call) for call in message["tool_calls"]]
    return plain


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    raise RequestError("messages: content needs to be text, or a list of text parts", param="messages")


def _tool_call(call: Any) -> dict[str, Any]:
    try:
        function = call["function"]
        arguments = function["arguments"]
        if isinstance(arguments, str):
            arguments = msgspec.json.decode(arguments)
    except (KeyError, TypeError, msgspec.DecodeError) as error:
        raise RequestError(f"messages: a tool call cannot be read: {error!r}", param="messages") from error
    return {**call, "function": {**function, "arguments": arguments}}
