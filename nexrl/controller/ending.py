"""The end of a run: everything is closed, and the first error is the one that counts."""

import logging
from collections.abc import Callable, Iterable

from nexrl.errors import NexRLError

logger = logging.getLogger(__name__)


def first_error(error: Exception | None, acts: Iterable[Callable[[], object]]) -> Exception | None:
    """Do all `acts`, whatever they raise. Returns `error`, or where there is none what the first failing act raised;
    the rest is logged."""
    for act in acts:
        try:
            act()
        except Exception as caught:
            if error is None:
                error = caught
            else:
                bug = None if _is_ours(caught) else caught
                logger.warning("while the run was closed: %s", in_words(caught), exc_info=bug)
    return error


def in_words(error: Exception | None) -> str:
    """`<ErrorClass>: <message>`, empty for None; what is none of our tree is a bug, and stands under its root."""
    if error is None:
        return ""
    told = f"{type(error).__name__}: {error}"
    return told if _is_ours(error) else f"{NexRLError.__name__}: {told}"


def code_of(error: Exception) -> int:
    """Exit code of a run that `error` ended."""
    return error.exit_code if isinstance(error, NexRLError) else NexRLError.exit_code


def _is_ours(error: Exception) -> bool:
    return isinstance(error, NexRLError)
