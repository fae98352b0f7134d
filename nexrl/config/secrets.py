"""Secrets in recipes: written as `${oc.env:NAME}`, kept as that text wherever a recipe is stored or shown."""

import os
import re
from collections.abc import Mapping
from typing import Any

from nexrl.errors import ConfigError

MASK = "***"
_SECRET_KEY = re.compile(
    r"(^|_)(api_?key|secret|password|passwd|credentials?|(access|auth|bearer)_?token)$|^token$", re.I
)
_REFERENCE = re.compile(r"\$\{oc\.env:(\w+)\}")


def keep_references(resolved: Any, written: Any, key: str = "") -> Any:
    """`resolved`, in which every secret is again the reference that `written` (before interpolation) has there.

    Raises ConfigError for a secret that stands in the recipe as it is.
    """
    if isinstance(resolved, Mapping):
        return {
            name: keep_references(value, written.get(name) if isinstance(written, Mapping) else None, _join(key, name))
            for name, value in resolved.items()
        }
    if isinstance(resolved, list):
        pairs = (
            zip(resolved, written, strict=True) if isinstance(written, list) else ((item, None) for item in resolved)
        )
        return [keep_references(item, before, f"{key}[{index}]") for index, (item, before) in enumerate(pairs)]
    if not _is_secret(key, resolved):
        return resolved
    if isinstance(written, str) and _REFERENCE.fullmatch(written):
        return written
    raise ConfigError("a secret must not stand in a recipe; write ${oc.env:NAME} and set that variable", key=key)


def fill_references(values: Any, key: str = "") -> Any:
    """`values` with every secret's reference filled from the environment; ConfigError where the variable is not set."""
    if isinstance(values, Mapping):
        return {name: fill_references(value, _join(key, name)) for name, value in values.items()}
    if isinstance(values, list):
        return [fill_references(value, f"{key}[{index}]") for index, value in enumerate(values)]
    reference = _REFERENCE.fullmatch(values) if _is_secret(key, values) else None
    if reference is None:
        return values
    if reference[1] not in os.environ:
        raise ConfigError(f"environment variable {reference[1]} is not set", key=key)
    return os.environ[reference[1]]


def masked(values: Any, key: str = "") -> Any:
    """`values` with MASK for every secret that is no reference."""
    if isinstance(values, Mapping):
        return {name: masked(value, _join(key, name)) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [masked(value, f"{key}[{index}]") for index, value in enumerate(values)]
    return MASK if _is_secret(key, values) and not _REFERENCE.fullmatch(values) else values


def _is_secret(key: str, value: Any) -> bool:
    name = re.sub(r"\[\d+\]", "", key).rpartition(".")[2]
    return isinstance(value, str) and bool(value) and bool(_SECRET_KEY.search(name))


def _join(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)
