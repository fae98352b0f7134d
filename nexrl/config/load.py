"""Recipes read, checked and written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import yaml

from nexrl.config.build import build
from nexrl.config.compose import compose
from nexrl.config.marks import Marks, shown
from nexrl.config.paths import absolute, check_paths
from nexrl.config.refused import check_refused
from nexrl.config.schema import Recipe
from nexrl.config.secrets import fill_references, masked
from nexrl.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe that passed every check, and where it came from."""

    recipe: Recipe
    """Paths are absolute; secrets are references, which `read_resolved` fills."""
    path: Path
    overrides: tuple[str, ...] = ()
    resolved: Mapping[str, Any]
    """What was written, as plain values: composed, interpolated, paths absolute; defaults left out."""

    def overridden(self, *overrides: str) -> "LoadedRecipe":
        """The same file with further overrides; raises ConfigError as load_recipe does."""
        return load_recipe(self.path, (*self.overrides, *overrides))


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Read a recipe: compose, override (`key=value`), interpolate, check against the schema and the file system.

    Raises ConfigError with the key, what was found and needed, and file and line (or the override) that set it.
    """
    file = Path(path).expanduser().absolute()
    marks = Marks(file)
    try:
        values = compose(file, overrides, marks)
        check_refused(values)
        build(Recipe, values)
        values = absolute(values, file.parent)
        check_paths(values)
        recipe = build(Recipe, values)
    except ConfigError as error:
        raise (marks.located(error) if error.key else error) from error
    return LoadedRecipe(recipe=recipe, path=file, overrides=tuple(overrides), resolved=values)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default written out; a secret is a reference, or masked."""
    values = masked(msgspec.to_builtins(recipe))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def read_resolved(path: Path | str) -> Recipe:
    """Read a `recipe.yaml` that dump_recipe made; secrets come from the environment.

    Raises ConfigError where the file is missing, is not such a recipe, or a secret's variable is not set.
    """
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"no such recipe: {shown(file.absolute())}")
    marks = Marks(file.absolute())
    marks.add_file(file.absolute())
    try:
        return build(Recipe, fill_references(yaml.safe_load(file.read_text(encoding="utf-8"))))
    except ConfigError as error:
        raise marks.located(error) from error
