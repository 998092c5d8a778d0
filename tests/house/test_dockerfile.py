"""The production image: what its build file promises, read without building it."""

from __future__ import annotations

import json
import re

import pytest
from services.checkout import ROOT

_DOCKERFILE = ROOT / "deploy" / "Dockerfile"


def _instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, continuation lines joined, comments left out."""
    lines = [line for line in _DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def _arguments(name: str) -> list[str]:
    return [arguments for instruction, arguments in _instructions() if instruction == name]


def _sources() -> list[str]:
    """What the image is built from: every word of a COPY but the options and the destination."""
    words = (word for arguments in _arguments("COPY") for word in arguments.split()[:-1])
    return [word for word in words if not word.startswith("--")]


@pytest.mark.parametrize("source", _sources())
def test_what_is_copied_exists_and_reaches_the_build(source: str) -> None:
    """A build from a clean checkout finds every file that it copies, .dockerignore included."""
    let_in = (ROOT / ".dockerignore").read_text().splitlines()

    assert (ROOT / source).exists()
    assert f"!{source}" in let_in


def test_all_packages_of_the_wheel_are_copied() -> None:
    """A package added to pyproject.toml is not forgotten here."""
    wheel = re.search(r"\[tool\.hatch\.build\.targets\.wheel\]\npackages = (\[.*\])", _pyproject())
    assert wheel is not None

    packages = json.loads(wheel.group(1))

    assert set(packages) <= set(_sources())


def test_the_image_does_not_run_as_root() -> None:
    """The last USER is a number other than 0, which Kubernetes' `runAsNonRoot` can check."""
    user = _arguments("USER")[-1]

    assert user.isdigit()
    assert int(user) > 0


def test_only_files_with_known_hashes_are_installed() -> None:
    """Dependencies are fetched once, by hash; later installations take them from there alone."""
    runs = " ".join(_arguments("RUN"))
    fetches = re.findall(r"pip (?:wheel|download) [^&]*", runs)
    installs = re.findall(r"pip install [^&]*", runs)

    assert fetches
    assert installs
    assert all("--require-hashes" in fetch and "--only-binary :all:" in fetch for fetch in fetches)
    assert all("--no-index" in install for install in installs)


def test_the_image_is_the_command_line() -> None:
    """`docker run IMAGE` serves on every address of the container; a command may follow it."""
    entry, command = _arguments("ENTRYPOINT"), _arguments("CMD")

    assert json.loads(entry[0]) == ["fl-gateway"]
    assert json.loads(command[0]) == ["serve", "--host", "0.0.0.0"]  # noqa: S104 - inside the container


def test_base_images_are_named_without_a_registry() -> None:
    """Which registry an image comes from is the builder's matter; which Python is ours."""
    bases = [base.split()[0] for base in _arguments("FROM")]

    assert all(re.fullmatch(r"python:3\.\d+-slim-[a-z]+", base) for base in bases)


def _pyproject() -> str:
    return (ROOT / "pyproject.toml").read_text()
