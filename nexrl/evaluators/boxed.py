"""The final answer in a mathematical reply."""

import re

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?=\{)")


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` or `\fbox{…}` that is closed, braces matched; None where there is none."""
    for box in reversed(list(_BOX.finditer(text))):
        depth = 0
        for place in range(box.end(), len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[box.end() + 1 : place]
    return None


def after_thinking(text: str, *, thinking: bool) -> str | None:
    """The reply after its first `</think>`; the whole reply where nobody thinks.

    `thinking`: the prompt opened a `<think>` already. None where a thought was opened and not closed.
    """
    _, closed, answer = text.partition("</think>")
    if closed:
        return answer
    return None if thinking or "<think>" in text else text
