"""setup.py, constraints.txt and environment.yml agree with each other, with the imports and with what is installed."""

import ast
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
OURS = {"nexrl", "launch", "tools"}
ENGINES = {"vllm", "sglang"}  # extras with an environment and pins of their own
EXTRA_ONLY = {"tinker", "megatron"}  # extras that `make` does not install


def pins(lines):
    """Canonical name → version of every `name==version`; anything else than a comment fails."""
    found = {}
    for line in lines:
        text = line.split("#")[0].strip()
        if text:
            name, _, version = text.partition("==")
            assert version, f"{line!r} is no pin (name==version)"
            assert canonicalize_name(name) not in found, f"{name} is pinned twice"
            found[canonicalize_name(name)] = version
    return found


@pytest.fixture(scope="module")
def constraints():
    return pins((ROOT / "constraints.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def declared():
    """Requirements by extra, "" for the core, as setup.py tells them."""
    code = (
        "import json, runpy, setuptools; told = {}; setuptools.setup = told.update; runpy.run_path('setup.py');"
        "print(json.dumps({'': told['install_requires'], **told['extras_require']}))"
    )
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    return {extra: [Requirement(line) for line in lines] for extra, lines in yaml.safe_load(told).items()}


def test_conda_users_get_the_same_versions(constraints):
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (pip_part,) = (entry["pip"] for entry in dependencies if isinstance(entry, dict))
    assert "python=3.11" in dependencies
    assert pip_part[0] == "--editable ."
    assert pins(pip_part[1:]) == constraints


def test_every_declared_dependency_is_pinned(declared, constraints):
    for extra, requirements in declared.items():
        for requirement in requirements:
            if extra in ENGINES:
                assert str(requirement.specifier).startswith("=="), f"extra {extra}: {requirement} needs a pin"
            else:
                assert canonicalize_name(requirement.name) in constraints, f"{requirement.name}: not in constraints.txt"
                assert not requirement.specifier, f"{requirement}: the version stands in constraints.txt alone"


def test_every_direct_pin_says_what_it_is_for(declared):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    explained = {canonicalize_name(line.split("==")[0]) for line in lines if "==" in line and "#" in line}
    direct = {canonicalize_name(r.name) for extra, rs in declared.items() if extra not in ENGINES for r in rs}
    assert explained == direct


def test_what_is_installed_is_what_is_pinned_and_nothing_is_pinned_in_vain(declared, constraints):
    needed, absent = closure([r for extra, rs in declared.items() if extra not in ENGINES for r in rs])
    assert absent <= EXTRA_ONLY | {"megatron-core"}, f"not installed: {sorted(absent)}"
    unpinned = {
        name for name in needed if name not in constraints and not name.startswith(("nvidia-", "cuda-", "triton"))
    }
    assert not unpinned, "needed, but not in constraints.txt"
    different = {n: (v, constraints[n]) for n, v in needed.items() if n in constraints and v != constraints[n]}
    assert not different, "installed version, pinned version"
    if not absent:
        assert set(constraints) <= set(needed), "in constraints.txt, but nothing needs it"


def closure(requirements):
    """Public version of every installed distribution that the requirements lead to, and the roots that are absent."""
    needed, absent, seen = {}, set(), set()
    todo = [(requirement, True) for requirement in requirements]
    while todo:
        requirement, is_root = todo.pop()
        name = canonicalize_name(requirement.name)
        if (name, frozenset(requirement.extras)) in seen:
            continue
        seen.add((name, frozenset(requirement.extras)))
        try:
            found = distribution(name)
        except PackageNotFoundError:
            assert is_root, f"{name} is needed and not installed"
            absent.add(name)
            continue
        needed[name] = Version(found.version).public
        todo += [
            (below, False) for below in map(Requirement, found.requires or ()) if applies(below, requirement.extras)
        ]
    return needed, absent


def applies(requirement, extras):
    """Whether the requirement of a distribution counts on this machine, for the extras that were asked for."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def test_everything_imported_is_declared(declared):
    providers = packages_distributions()
    for module, path in imported_modules():
        if module in OURS or module in sys.stdlib_module_names:
            continue
        for_users = [requirements for extra, requirements in declared.items() if extra != "dev"]
        allowed = declared.values() if path.is_relative_to(ROOT / "tools") else for_users
        known = {canonicalize_name(requirement.name) for requirements in allowed for requirement in requirements}
        names = {canonicalize_name(name) for name in providers.get(module, [module])}
        assert names & known, f"{path.relative_to(ROOT)} imports {module}, which setup.py does not declare for users"


def imported_modules():
    for path in sorted(file for package in OURS for file in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                yield node.module.split(".")[0], path


def test_the_interpreter_is_the_one_that_is_promised():
    assert re.search(r'python_requires=">=3\.11,<3\.12"', (ROOT / "setup.py").read_text())
    assert sys.version_info[:2] == (3, 11)
