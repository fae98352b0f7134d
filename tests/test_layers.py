"""The rules of the house that a machine can check: who may import whom, and how long things get."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = (
    ("nexrl.types", "nexrl.errors"),
    ("nexrl.config",),
    (
        "nexrl.algorithms",
        "nexrl.models",
        "nexrl.data",
        "nexrl.evaluators",
        "nexrl.store",
        "nexrl.comm",
        "nexrl.cluster",
        "nexrl.activity",
        "nexrl.metrics",
    ),
    ("nexrl.inference", "nexrl.train_service", "nexrl.weights", "nexrl.pool", "nexrl.gym"),
    ("nexrl.rollout", "nexrl.trainers"),
    ("nexrl.controller", "nexrl.validator"),
    ("nexrl.roles",),
    ("launch", "tools"),
)
"""From the ground up. A package imports from the lines below its own and from itself; the first line's two see each
other, because a record's checks raise errors."""

LAUNCH_MAY_IMPORT = {"launch", "nexrl.config", "nexrl.cluster", "nexrl.errors", "nexrl.types"}
"""The launcher runs on login nodes: it starts roles as programs and imports none of them."""

FACES = {"nexrl", "nexrl.mock"}
"""Re-export what the documents import by short names: they may import anything, and nothing imports nexrl.mock."""

PACKAGES = FACES | {package for line in LAYERS for package in line}

VAGUE = {"utils", "util", "common", "helpers", "helper", "misc"}
MAX_LINES, MAX_STATEMENTS = 400, 40

SOURCES = sorted(path for top in ("nexrl", "launch", "tools") for path in (ROOT / top).rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "recipes").rglob("*.py"))]


def package_of(module):
    """`nexrl.pool.ledger` → `nexrl.pool`; `launch.plan` → `launch`."""
    parts = module.split(".")
    return ".".join(parts[:2]) if parts[0] == "nexrl" else parts[0]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(package):
    for number, line in enumerate(LAYERS):
        if package in line:
            return number
    raise AssertionError(f"{package} stands in no layer")


def imports(path):
    """(line, module) of every import of ours, those under TYPE_CHECKING and inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found = imported_from(node, path)
        else:
            continue
        yield from ((node.lineno, name) for name in found if name.split(".")[0] in {"nexrl", "launch", "tools"})


def imported_from(node, path):
    base = node.module or ""
    if node.level:
        module = module_of(path).split(".")
        above = module[: len(module) - node.level + (path.name == "__init__.py")]
        base = ".".join([*above, *([base] if base else [])])
    if base == "nexrl":  # `from nexrl import pool` names a package, `from nexrl import __version__` does not
        named = [f"nexrl.{alias.name}" for alias in node.names]
        return [name if name in PACKAGES else "nexrl" for name in named]
    return [base]


def allowed(importer, imported):
    if importer in FACES or imported in {importer, "nexrl"}:
        return True
    if importer == "launch":
        return imported in LAUNCH_MAY_IMPORT
    if importer in LAYERS[0] and imported in LAYERS[0]:
        return True
    return imported not in FACES and layer_of(imported) < layer_of(importer)


def broken_rules(path):
    importer = package_of(module_of(path))
    for line, module in imports(path):
        if not allowed(importer, package_of(module)):
            yield f"{path.relative_to(ROOT)}:{line}: {importer} may not import {module}"


def test_imports_point_down():
    assert [broken for path in SOURCES for broken in broken_rules(path)] == []


def test_every_package_stands_in_a_layer():
    packages = {package_of(module_of(path)) for path in SOURCES} - FACES
    assert packages <= PACKAGES


@pytest.mark.parametrize(
    ("importer", "imported", "may"),
    [
        ("nexrl.pool", "nexrl.types", True),
        ("nexrl.pool", "nexrl.data", True),
        ("nexrl.data", "nexrl.pool", False),
        ("nexrl.weights", "nexrl.inference", False),
        ("nexrl.types", "nexrl.errors", True),
        ("nexrl.config", "nexrl.types", True),
        ("nexrl.types", "nexrl.config", False),
        ("nexrl.metrics", "nexrl.store", False),
        ("launch", "nexrl.config", True),
        ("launch", "nexrl.comm", False),
        ("launch", "nexrl.roles", False),
        ("nexrl.roles", "launch", False),
        ("tools", "nexrl.store", True),
        ("tools", "launch", False),
        ("nexrl.pool", "nexrl.mock", False),
        ("nexrl.mock", "nexrl.train_service", True),
    ],
)
def test_the_rule_itself(importer, imported, may):
    assert allowed(importer, imported) is may


def test_the_walk_sees_every_way_to_import(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / "nexrl" / "data" / "files.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import nexrl.pool.ledger\nfrom nexrl.roles import main\nfrom nexrl import weights, __version__\n"
        "from ..store import layout\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nexrl.controller import Controller\n"
        "def late():\n    import launch.plan\nfrom . import rows\nfrom nexrl.types import Task\n"
    )
    assert [broken.split("import ")[1] for broken in broken_rules(path)] == [
        "nexrl.pool.ledger",
        "nexrl.roles",
        "nexrl.weights",
        "nexrl.store",
        "nexrl.controller",
        "launch.plan",
    ]


def test_no_module_has_a_vague_name():
    assert [str(path.relative_to(ROOT)) for path in SOURCES if VAGUE & {path.stem, path.parent.name}] == []


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_functions_are_short():
    long = {}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                statements = sum(isinstance(below, ast.stmt) for below in ast.walk(node)) - 1
                if statements > MAX_STATEMENTS:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = statements
    assert long == {}


@pytest.mark.parametrize(
    "module", ["nexrl", "nexrl.types", "nexrl.config", "nexrl.cluster", "launch.plan", "launch.submit"]
)
def test_what_a_login_node_imports_is_light(module):
    code = f"import {module}, sys; print(*sorted({{'torch', 'transformers', 'h5py', 'wandb'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
