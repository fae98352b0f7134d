"""One way to say that a recipe's value is wrong."""

from typing import Any

from nexrl.errors import ConfigError


def require(condition: bool, key: str, *, found: Any, needed: str) -> None:
    """Raise ConfigError for `key` unless `condition`: what was found, what is needed."""
    if not condition:
        raise ConfigError(f"found {found!r}, needs {needed}", key=key)
