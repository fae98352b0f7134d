"""The keys that hold paths: which they are, what they are relative to, and whether what they name is there."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nexrl.errors import ConfigError

PathKind = Literal["data", "model", "code", "recipe", "checkpoint"]

_DATA_SUFFIXES = (".parquet", ".jsonl", ".csv")
_WEIGHT_PATTERNS = ("*.safetensors", "pytorch_model*.bin")

_KEYS: dict[str, PathKind] = {
    "data.data_files[]": "data",
    "data.custom_class": "code",
    "validate.data.data_files[]": "data",
    "validate.data.custom_class": "code",
    "rollout_worker.custom_class": "code",
    "rollout_worker.evaluator": "code",
    "rollout_worker.agent_args.tools": "code",
    "trainer.custom_class": "code",
    "service.train_service.*.actor.model.path": "model",
    "service.inference_service.model_path": "model",
    "initial_stage.recipe": "recipe",
    "resume.resume_path": "checkpoint",
}
_EVALUATORS = ("exact_match", "math", "format")
"""Names that `rollout_worker.evaluator` takes besides a path."""


@dataclass(frozen=True)
class FoundPath:
    """One path of a recipe."""

    key: str
    kind: PathKind
    text: str
    """As the recipe has it; `code` is `path/to/file.py:Name`."""

    @property
    def path(self) -> Path:
        """The path alone."""
        return Path(self.text.rpartition(":")[0] if self.kind == "code" else self.text)


def absolute(recipe: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The recipe's values with every path made absolute: relative ones against `folder`, that of the recipe's file;
    `resume.resume_path` against the working folder, as run folders are."""

    def against(found: FoundPath) -> str:
        start = Path.cwd() if found.kind == "checkpoint" else folder
        return str((start / Path(found.text).expanduser()).resolve())

    return changed_paths(recipe, against)


def check_paths(recipe: Mapping[str, Any]) -> None:
    """Raise ConfigError, with key and path, for the first absolute path behind which is not what the key needs."""
    for found in found_paths(recipe):
        _CHECKS[found.kind](found)
    services = recipe.get("service", {}).get("train_service", {})
    for name, service in services.items():
        model = service.get("actor", {}).get("model", {})
        if model.get("path") and model.get("init", "pretrained") == "pretrained":
            _check_weights(Path(model["path"]), f"service.train_service.{name}.actor.model.path")


def found_paths(recipe: Mapping[str, Any]) -> list[FoundPath]:
    """Every path that a recipe's values hold, in the schema's order."""
    found: list[FoundPath] = []

    def collect(path: FoundPath) -> str:
        found.append(path)
        return path.text

    changed_paths(recipe, collect)
    return found


def changed_paths(recipe: Mapping[str, Any], change: Callable[[FoundPath], str]) -> dict[str, Any]:
    """A copy of the recipe's values in which every path is `change(path)`."""
    values: dict[str, Any] = dict(recipe)
    for pattern, kind in _KEYS.items():
        for key in _matching(values, pattern.split("."), ""):
            values = _changed(values, key, kind, change)
    return values


def _matching(values: Any, pattern: list[str], prefix: str) -> Iterator[tuple[str, ...]]:
    head, *rest = pattern
    if not isinstance(values, Mapping):
        return
    for name in values if head == "*" else [head.removesuffix("[]")]:
        if name not in values:
            continue
        if rest:
            for tail in _matching(values[name], rest, head):
                yield (name, *tail)
        elif values[name]:
            yield (name,)


def _changed(
    values: dict[str, Any], parts: tuple[str, ...], kind: PathKind, change: Callable[[FoundPath], str]
) -> dict[str, Any]:
    key = ".".join(parts)

    def new(value: Any, at: str) -> Any:
        is_path = isinstance(value, str) and value and not (at == "rollout_worker.evaluator" and value in _EVALUATORS)
        return change(FoundPath(key=at, kind=kind, text=value)) if is_path else value

    def rebuilt(inner: Any, names: tuple[str, ...]) -> Any:
        if not names:
            listed = isinstance(inner, list | tuple)
            return [new(item, f"{key}[{index}]") for index, item in enumerate(inner)] if listed else new(inner, key)
        return {name: rebuilt(item, names[1:]) if name == names[0] else item for name, item in inner.items()}

    result: dict[str, Any] = rebuilt(values, parts)
    return result


def _check_data(found: FoundPath) -> None:
    if found.path.suffix not in _DATA_SUFFIXES:
        raise ConfigError(f"found {found.text}, needs a file that ends in {', '.join(_DATA_SUFFIXES)}", key=found.key)
    if not found.path.is_file():
        raise ConfigError(f"no such file: {found.text}", key=found.key)


def _check_model(found: FoundPath) -> None:
    if not found.path.is_dir():
        raise ConfigError(f"no such folder: {found.text}", key=found.key)
    if not (found.path / "config.json").is_file():
        raise ConfigError(f"no Hugging Face model: {found.text} has no config.json", key=found.key)


def _check_weights(folder: Path, key: str) -> None:
    if not any(next(folder.glob(pattern), None) for pattern in _WEIGHT_PATTERNS):
        raise ConfigError(f"{folder} holds no weights (model.safetensors); init: random starts without", key=key)


def _check_code(found: FoundPath) -> None:
    if not found.path.name or ":" not in found.text or not found.text.rpartition(":")[2].isidentifier():
        names = f"one of {', '.join(_EVALUATORS)}, or " if found.key == "rollout_worker.evaluator" else ""
        given = Path(found.text).name
        raise ConfigError(f"found {given!r}, needs {names}path/to/file.py:Name", key=found.key)
    if not found.path.is_file():
        raise ConfigError(f"no such file: {found.path}", key=found.key)


def _check_recipe(found: FoundPath) -> None:
    if not found.path.is_file():
        raise ConfigError(f"no such recipe: {found.text}", key=found.key)


def _check_checkpoint(found: FoundPath) -> None:
    if not found.path.is_dir():
        raise ConfigError(f"no such checkpoint folder: {found.text}", key=found.key)
    if not (found.path / "READY").exists():
        raise ConfigError(f"incomplete checkpoint: {found.text} has no READY", key=found.key)


_CHECKS: dict[PathKind, Callable[[FoundPath], None]] = {
    "data": _check_data,
    "model": _check_model,
    "code": _check_code,
    "recipe": _check_recipe,
    "checkpoint": _check_checkpoint,
}
