"""Classes of one's own: what a recipe names as `path/to/file.py:Class`."""

import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

from nexrl.errors import ConfigError

T = TypeVar("T")


def load_attribute(spec: str) -> Any:
    """What the file of `spec` (`/path/to/file.py:NAME`) calls NAME.

    A file runs once per process, however often it is named. Raises ConfigError naming the file and what is wrong
    with it: no such file, an error while it runs, no such name.
    """
    path, _, name = spec.rpartition(":")
    if not path or not name.isidentifier():
        raise ConfigError(f"found {spec!r}, needs path/to/file.py:Name")
    file = Path(path).resolve()
    module = _load_module(file)
    if not hasattr(module, name):
        defined = sorted(key for key, value in vars(module).items() if _is_defined_in(value, module))
        raise ConfigError(f"{file} has no {name!r}; it defines {', '.join(defined) or 'nothing'}")
    return getattr(module, name)


def load_class(spec: str, base: Callable[..., T]) -> type[T]:
    """The class that `spec` names; raises ConfigError unless it is a complete subclass of the class `base`.

    `base` is typed as a callable because `type[T]` would refuse an abstract class.
    """
    found = load_attribute(spec)
    assert isinstance(base, type)
    if not inspect.isclass(found) or not issubclass(found, base):
        raise ConfigError(f"{spec}: found {found!r}, needs a subclass of {base.__module__}.{base.__name__}")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise ConfigError(f"{spec}: class lacks {missing}, which {base.__name__} needs")
    return cast(type[T], found)


def _load_module(file: Path) -> ModuleType:
    if not file.is_file():
        raise ConfigError(f"no such file: {file}")
    name = f"nexrl_custom_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and msgspec look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def _is_defined_in(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__
