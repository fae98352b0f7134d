"""From plain values to the schema's dataclasses, strictly: no unknown key, no silent change of type."""

import dataclasses
import difflib
import math
import types
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from nexrl.errors import ConfigError

T = TypeVar("T")

_NEEDED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def build(schema: type[T], value: Any, *, key: str = "", root: type | None = None) -> T:
    """Make the dataclass `schema` from a mapping of plain values (as YAML gives them).

    Raises ConfigError with the full dotted key for an unknown key (naming the nearest known one of `schema`, or of
    `root` as a whole), a missing one, a value of another type, and whatever a dataclass refuses in __post_init__.
    """
    root = root or schema
    if not isinstance(value, Mapping):
        raise ConfigError(f"found {_found(value)}, needs a mapping of keys", key=key)
    hints = _hints(cast("Any", schema))
    for name in value:
        if name not in hints:
            raise ConfigError(_unknown(str(name), schema, root), key=_join(key, name))
    arguments = {name: _convert(hints[name], value[name], _join(key, name), root) for name in hints if name in value}
    for field in dataclasses.fields(cast("Any", schema)):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and field.name not in value:
            raise ConfigError(f"missing, needs {_needed(hints[field.name])}", key=_join(key, field.name))
    try:
        return schema(**arguments)
    except ConfigError as error:
        raise error.under(key) from error


def schema_keys(schema: type, prefix: str = "") -> Iterator[str]:
    """Every dotted key of a schema; `*` stands for names that a recipe chooses."""
    for name, hint in _hints(schema).items():
        key = _join(prefix, name)
        yield key
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part):
                inner = f"{key}.*" if get_origin(hint) is dict else key
                yield from schema_keys(cast("type", part), inner)


def _convert(hint: Any, value: Any, key: str, root: type) -> Any:
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return build(cast("type", hint), value, key=key, root=root)
    origin = get_origin(hint)
    if origin in (types.UnionType, Union):
        inner = next(part for part in get_args(hint) if part is not type(None))
        return None if value is None else _convert(inner, value, key, root)
    if origin is Literal:
        return _convert_choice(hint, value, key)
    if origin is tuple:
        return _convert_tuple(hint, value, key, root)
    if origin is dict:
        return _convert_dict(hint, value, key, root)
    return _convert_scalar(hint, value, key)


def _convert_scalar(hint: Any, value: Any, key: str) -> Any:
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise ConfigError(f"found {value}, needs a finite number", key=key)
        return float(value)
    if type(value) is hint:
        return value
    advice = ": put it in quotes" if hint is str and value is not None and not isinstance(value, list | dict) else ""
    raise ConfigError(f"found {_found(value)}, needs {_needed(hint)}{advice}", key=key)


def _convert_choice(hint: Any, value: Any, key: str) -> Any:
    choices = get_args(hint)
    if value in choices and type(value) is str:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1)
    advice = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"found {_found(value)}, needs {_needed(hint)}{advice}", key=key)


def _convert_tuple(hint: Any, value: Any, key: str, root: type) -> tuple[Any, ...]:
    parts = get_args(hint)
    if not isinstance(value, list | tuple):
        raise ConfigError(f"found {_found(value)}, needs {_needed(hint)}", key=key)
    if parts[-1] is Ellipsis:
        parts = (parts[0],) * len(value)
    if len(parts) != len(value):
        raise ConfigError(f"found a list of {len(value)}, needs {_needed(hint)}", key=key)
    pairs = enumerate(zip(parts, value, strict=True))
    return tuple(_convert(part, item, f"{key}[{index}]", root) for index, (part, item) in pairs)


def _convert_dict(hint: Any, value: Any, key: str, root: type) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"found {_found(value)}, needs a mapping of keys", key=key)
    _, inner = get_args(hint)
    for name in value:
        if not isinstance(name, str):
            raise ConfigError(f"found the name {name!r}, needs text: put it in quotes", key=key)
    return {name: _convert(inner, item, _join(key, name), root) for name, item in value.items()}


def _found(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"{value!r} (text)"
        case list() | tuple():
            return f"a list of {len(value)}"
        case Mapping():
            return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    return repr(value)


def _needed(hint: Any) -> str:
    if hint in _NEEDED:
        return _NEEDED[hint]
    if dataclasses.is_dataclass(hint) or get_origin(hint) is dict:
        return "a mapping of keys"
    if get_origin(hint) is Literal:
        choices = get_args(hint)
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        of = f", each {_needed(parts[0])}"
        return f"a list{of}" if parts[-1] is Ellipsis else f"a list of {len(parts)}{of}"
    return str(hint)


def _unknown(name: str, schema: type, root: type) -> str:
    near = difflib.get_close_matches(name, _hints(schema), n=1)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    elsewhere = [key for key in schema_keys(root) if key.rpartition(".")[2] == name]
    if elsewhere:
        return f"unknown key here; did you mean {' or '.join(elsewhere)}?"
    return f"unknown key; this section has {', '.join(_hints(schema))}"


def _join(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)


@cache
def _hints(schema: type) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(cast("Any", schema))}
