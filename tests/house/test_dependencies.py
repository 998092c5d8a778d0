"""What the code imports, and what pyproject.toml says that it needs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from services.checkout import ROOT, files

_PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
_PACKAGES: list[str] = _PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
_REQUIREMENTS: list[str] = _PROJECT["project"]["dependencies"]
_EXTRAS: dict[str, list[str]] = _PROJECT["project"]["optional-dependencies"]
_OPTIONAL = {"gateway/web_granian.py": "server"}  # loaded only where somebody asks for it
_ALL = [*_REQUIREMENTS, *(requirement for extra in _EXTRAS.values() for requirement in extra)]


def _distribution(requirement: str) -> str:
    """The normalised name (PEP 503) of what a requirement asks for."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]).lower()


def _imports(path: Path) -> set[str]:
    """The top-level modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    return {name.partition(".")[0] for name in plain | named}


@cache
def _outside_imports(package: str) -> frozenset[str]:
    sources = [path for path in files() if path.suffix == ".py" and path.is_relative_to(ROOT / package)]
    sources = [path for path in sources if str(path.relative_to(ROOT)) not in _OPTIONAL]
    imported = {name for path in sources for name in _imports(path)}
    return frozenset(imported - sys.stdlib_module_names - {*_PACKAGES, ""})


@pytest.mark.parametrize("package", [*_PACKAGES, "migrations"])
def test_every_import_is_declared(package: str) -> None:
    """An installation without the extras runs: what the packages import is a dependency."""
    declared = {_distribution(requirement) for requirement in _REQUIREMENTS}
    providers = packages_distributions()

    undeclared = {
        module
        for module in _outside_imports(package)
        if not declared & {_distribution(name) for name in providers.get(module, [])}
    }

    assert undeclared == set()


@pytest.mark.parametrize("path", _OPTIONAL)
def test_what_an_optional_module_imports_is_in_its_extra(path: str) -> None:
    """The extra named beside it brings it."""
    declared = {_distribution(requirement) for requirement in (*_REQUIREMENTS, *_EXTRAS[_OPTIONAL[path]])}
    imported = _imports(ROOT / path) - sys.stdlib_module_names - {*_PACKAGES}
    providers = packages_distributions()

    undeclared = {
        module
        for module in imported
        if not declared & {_distribution(name) for name in providers.get(module, [])}
    }

    assert imported
    assert undeclared == set()


@pytest.mark.parametrize("requirement", _ALL)
def test_every_dependency_has_a_lower_bound(requirement: str) -> None:
    """An old version that lacks what we use is refused at installation, not met at run time."""
    assert ">=" in requirement


def test_every_dependency_is_pinned() -> None:
    """constraints.txt was made from this pyproject.toml: nothing asked for is missing in it."""
    constraints = (ROOT / "constraints.txt").read_text()
    pins = {_distribution(name) for name in re.findall(r"^\w\S*(?===)", constraints, re.MULTILINE)}
    asked = {_distribution(requirement) for requirement in _ALL}

    missing = asked - pins

    assert missing == set()
