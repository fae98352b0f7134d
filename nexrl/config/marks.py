"""Where each key of a recipe stands, so that an error can name file and line."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from nexrl.errors import ConfigError

_Keys = Iterator[tuple[str, int, yaml.Node]]
_LAST_PART = re.compile(r"(\.[^.\[]+|\[\d+\])$")


class Marks:
    """Dotted keys (`data.data_files[0]`) and the place that set each of them last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[str, str] = {}
        self.interpolations: dict[str, str] = {}
        """Key → text, of the file read last."""

    def add_file(self, path: Path, *, under: str = "") -> None:
        """Read the keys of a YAML file, which stand under the dotted key `under` ('' = at the top).

        Raises ConfigError with file and line for text that is no YAML, for a repeated key, and where the file is no
        mapping.
        """
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"not YAML: {error.problem} ({shown(path)}:{line})") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ConfigError(f"not YAML: {error} ({shown(path)})") from error
        if not isinstance(root, yaml.MappingNode):
            found = {type(None): "nothing", yaml.SequenceNode: "a list"}.get(type(root), "a single value")
            raise ConfigError(f"found {found}, needs a mapping of keys ({shown(path)}:1)")
        self.interpolations = {}
        for key, line, node in _walk(root, under, path):
            self._places[key] = f"{shown(path)}:{line}"
            if isinstance(node, yaml.ScalarNode) and "${" in node.value:
                self.interpolations[key] = node.value

    def add_override(self, key: str, text: str) -> None:
        """Note that the command line set `key`, and with it all that stood below."""
        below = (f"{key}.", f"{key}[")
        kept = {name: place for name, place in self._places.items() if not name.startswith(below) and name != key}
        self._places = kept
        while key not in self._places:
            self._places[key] = f"command line: {text}"
            key = _LAST_PART.sub("", key)

    def where(self, key: str) -> str:
        """`file:line` of the key, or of the nearest section around it that the recipe writes; else the file."""
        while key:
            if key in self._places:
                return self._places[key]
            shorter = _LAST_PART.sub("", key)
            key = shorter if shorter != key else ""
        return shown(self._path)

    def located(self, error: ConfigError) -> ConfigError:
        """The same error with the place of its key behind the message."""
        return ConfigError(f"{error.reason} ({self.where(error.key)})", key=error.key)


def shown(path: Path) -> str:
    """The path as a reader would type it: relative to the working folder where it lies below."""
    working = Path.cwd()
    return str(path.relative_to(working)) if path.is_relative_to(working) else str(path)


def _walk(node: yaml.Node, prefix: str, path: Path, above: tuple[yaml.Node, ...] = ()) -> _Keys:
    if node in above:
        raise ConfigError(f"an alias contains itself ({shown(path)}:{node.start_mark.line + 1})", key=prefix)
    if isinstance(node, yaml.MappingNode):
        yield from _walk_mapping(node, prefix, path, (*above, node))
    elif isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            key = f"{prefix}[{index}]"
            yield key, child.start_mark.line + 1, child
            yield from _walk(child, key, path, (*above, node))


def _walk_mapping(node: yaml.MappingNode, prefix: str, path: Path, above: tuple[yaml.Node, ...]) -> _Keys:
    first: dict[str, int] = {}
    for name, child in node.value:
        line = name.start_mark.line + 1
        if name.tag == "tag:yaml.org,2002:merge":
            yield from _walk(child, prefix, path, above)
            continue
        key = f"{prefix}.{name.value}" if prefix else str(name.value)
        if name.value in first:
            raise ConfigError(f"written twice, first in line {first[name.value]} ({shown(path)}:{line})", key=key)
        first[name.value] = line
        yield key, line, child
        yield from _walk(child, key, path, above)
