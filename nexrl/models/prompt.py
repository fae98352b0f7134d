"""How a prompt becomes text and token ids, the same for data loading and rollouts."""

from collections.abc import Sequence
from typing import Any

from nexrl.errors import DataError
from nexrl.types import Message
from nexrl.types.protocols import Tokenizer


def prompt_text(tokenizer: Tokenizer, prompt: str | Sequence[Message], *, tools: Sequence[Any] | None = None) -> str:
    """A text prompt as it is, messages through the tokenizer's chat template; DataError where it has none."""
    if isinstance(prompt, str):
        return prompt
    if not tokenizer.chat_template:
        raise DataError("the prompt is a list of messages, but the model's tokenizer has no chat template")
    return tokenizer.apply_chat_template(list(prompt), tools=tools, add_generation_prompt=True, tokenize=False)


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids; a template has put its own special tokens in already."""
    return tokenizer.encode(text, add_special_tokens=False)


def count_prompt_tokens(tokenizer: Tokenizer, prompt: str | list[Message]) -> int:
    """Tokens of a prompt as the engine will see it."""
    return len(encode(tokenizer, prompt_text(tokenizer, prompt)))
