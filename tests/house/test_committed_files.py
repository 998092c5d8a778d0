"""What must stand in no file of the repository."""

from __future__ import annotations

import re
from pathlib import Path

from services import checkout

# Written in parts, so that this file does not name what it forbids.
_REGISTRY_HOSTS = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "npm" + "js.",
    "deb." + "debian.org",
    "security." + "debian.org",
    "docker" + ".io",
    "ghcr" + ".io",
    "quay" + ".io",
]


def _files_with(pattern: str) -> list[str]:
    found = re.compile(pattern.encode())
    return [_name(path) for path in checkout.files() if found.search(path.read_bytes())]


def _name(path: Path) -> str:
    return str(path.relative_to(checkout.ROOT))


def test_no_file_names_a_registry_host() -> None:
    """Packages are named; where they come from is the matter of whoever installs them."""
    hosts = "|".join(re.escape(host) for host in _REGISTRY_HOSTS)

    named_in = _files_with(hosts)

    assert named_in == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    """A clone works in any folder."""
    homes = "|".join(["/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/[a-z]", re.escape(f"{checkout.ROOT}/")])

    named_in = _files_with(homes)

    assert named_in == []


def test_versions_are_pinned_in_one_place() -> None:
    """constraints.txt is the one list of versions: no lock file of another tool beside it."""
    others = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "requirements.txt"}

    found = [path for path in checkout.files() if path.name in others]

    assert found == []


def test_every_pinned_package_has_a_hash() -> None:
    """What is installed is the file that was tested, byte for byte."""
    text = (checkout.ROOT / "constraints.txt").read_text()
    pins = re.findall(r"^(\S+?)==\S+ \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)*)", text, re.MULTILINE)

    names = {name for name, hashes in pins if hashes}

    assert len(names) == len(re.findall(r"^\w", text, re.MULTILINE)) > 0


def test_scripts_may_be_run() -> None:
    """A script that begins with `#!` has the right to be executed."""
    scripts = [path for path in checkout.files() if path.read_bytes().startswith(b"#!")]

    locked = [_name(path) for path in scripts if not path.stat().st_mode & 0o111]

    assert locked == []
