"""Recipes: schema, composition, checks. Imports neither torch nor transformers."""

from nexrl.config.load import LoadedRecipe, dump_recipe, load_recipe, read_resolved
from nexrl.config.paths import FoundPath, changed_paths, found_paths
from nexrl.config.schema import Recipe

__all__ = [
    "FoundPath",
    "LoadedRecipe",
    "Recipe",
    "changed_paths",
    "dump_recipe",
    "found_paths",
    "load_recipe",
    "read_resolved",
]
