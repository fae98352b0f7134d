"""Recipes: schema, composition, checks. Imports neither torch nor transformers."""
