"""The composition root: the only place that turns a recipe into objects. `python -m nexrl.roles ROLE --run-dir DIR`."""
