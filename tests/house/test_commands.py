"""The commands that the README, CI and the Makefile promise one another."""

from __future__ import annotations

import re
import subprocess

from services.checkout import ROOT, files

_MAKEFILE = (ROOT / "Makefile").read_text()


def _targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", _MAKEFILE, re.MULTILINE))


def _commands(path: str) -> list[str]:
    """The targets that a file tells the reader to make, in code."""
    text = (ROOT / path).read_text()
    return re.findall(r"(?:^\$ |`)make ([a-z-]+)", text, re.MULTILINE)


def test_the_readme_shows_two_commands_that_exist() -> None:
    """README: `make demo` to see it, `make test` to believe it."""
    shown = _commands("README.md")

    assert shown[:2] == ["demo", "test"]
    assert set(shown) <= _targets()


def test_every_make_command_in_the_documentation_exists() -> None:
    """No page sends its reader to a target that was renamed."""
    pages = [str(path.relative_to(ROOT)) for path in files() if path.suffix == ".md"]

    unknown = {(page, target) for page in pages for target in _commands(page) if target not in _targets()}

    assert unknown == set()


def test_ci_runs_what_a_developer_runs() -> None:
    """`make check` is .ci/run itself, and that makes `lint` and `test`."""
    script = (ROOT / ".ci" / "run").read_text()

    assert re.findall(r"^make (.*)$", script, re.MULTILINE) == ["lint", "test"]
    assert re.search(r"^check:.*\n\t@\.ci/run$", _MAKEFILE, re.MULTILINE)


def test_shell_scripts_parse() -> None:
    """A script with a syntax error is found here, not on the machine that it was to set up."""
    scripts = [path for path in files() if path.read_bytes().startswith(b"#!/usr/bin/env bash")]

    broken = [path for path in scripts if subprocess.run(["bash", "-n", path], check=False).returncode != 0]

    assert scripts
    assert broken == []
