"""The export package: complete, signed, readable by a person, and any change to it is found (Art. 15, 20)."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from os import urandom
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from compliance.errors import BadPackage
from compliance.keyring.keys import SigningKey
from compliance.packages.export import MANIFEST, SIGNATURE, verify_package, write_package
from compliance.places import ExportFile

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = SigningKey("0123456789abcdef", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
PUBLIC = KEY.private.public_key().public_bytes_raw()
NOTICE = {"controller": "Example Hospital", "rights": ["complaint"]}


def _files() -> list[ExportFile]:
    return [
        ExportFile("updates/updates.jsonl", "Art. 15, 20", rows=[{"round": 1}, {"round": 2, "name": "Zoë"}]),
        ExportFile("updates/7.safetensors", "Art. 20", chunks=[b"abc", b"def"]),
        ExportFile("client/client.jsonl", "Art. 15", rows=[]),
    ]


def _written(path: Path, files: list[ExportFile] | None = None) -> Path:
    with path.open("wb") as out:
        write_package(out, files or _files(), notice=NOTICE, key=KEY, at=AT)
    return path


def test_a_package_verifies_with_the_public_key_alone(tmp_path: Path) -> None:
    """API.md: manifest.json names every file with bytes, SHA-256, rows and article; manifest.sig signs it."""
    path = _written(tmp_path / "package.zip")

    manifest = verify_package(path, PUBLIC)

    told = {file.path: (file.bytes, file.rows, file.article) for file in manifest.files}
    assert manifest.kid == KEY.kid
    assert told["updates/updates.jsonl"][1:] == (2, "Art. 15, 20")
    assert told["updates/7.safetensors"] == (6, None, "Art. 20")
    assert told["client/client.jsonl"] == (0, 0, "Art. 15")


def test_a_package_is_the_same_bytes_whatever_the_order_of_places(tmp_path: Path) -> None:
    """A package can be made again and compared."""
    one = _written(tmp_path / "one.zip")
    other = _written(tmp_path / "other.zip", list(reversed(_files())))

    assert one.read_bytes() == other.read_bytes()


def test_a_person_finds_a_page_without_script_and_the_notice(tmp_path: Path) -> None:
    """Art. 12(1): in plain language; the page loads nothing and runs nothing."""
    with zipfile.ZipFile(_written(tmp_path / "package.zip")) as package:
        page = package.read("README.html").decode()
        notice = json.loads(package.read("article-15.json"))
        rows = package.read("updates/updates.jsonl").decode().splitlines()

    assert "updates/updates.jsonl" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert notice == NOTICE
    assert json.loads(rows[1])["name"] == "Zoë"


def test_names_of_files_are_escaped_in_the_page(tmp_path: Path) -> None:
    """What a device calls itself never becomes markup."""
    files = [ExportFile("<img src=x>.jsonl", "Art. 15", rows=[])]

    with zipfile.ZipFile(_written(tmp_path / "package.zip", files)) as package:
        page = package.read("README.html").decode()

    assert "<img" not in page


def test_a_package_is_written_as_a_stream() -> None:
    """Memory does not grow with what a person has: chunks leave before the last one is asked for."""
    seen: list[int] = []
    pulled: list[int] = []

    class Target:
        def write(self, data: bytes) -> None:
            seen.append(len(data))

    def chunks() -> Iterator[bytes]:
        for _ in range(8):
            pulled.append(sum(seen))
            yield urandom(65_536)

    write_package(Target(), [ExportFile("big.bin", "Art. 20", chunks=chunks())], notice={}, key=KEY, at=AT)

    assert pulled[-1] > 6 * 65_536


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up.json", "a/../b", "a//b", "a\\b", "./a"])
def test_a_path_that_leaves_the_package_is_refused(path: str) -> None:
    """No unpacking tool may write outside of its folder."""
    with pytest.raises(BadPackage):
        ExportFile(path, "Art. 15", rows=[])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A reader that takes the first and one that takes the last would see different data."""
    twice = [ExportFile("a.jsonl", "Art. 15", rows=[]), ExportFile("a.jsonl", "Art. 15", rows=[{}])]

    with pytest.raises(BadPackage):
        _written(tmp_path / "package.zip", twice)


def _changed_file(files: dict[str, bytes]) -> None:
    files["updates/7.safetensors"] = b"abcdeX"


def _dropped_file(files: dict[str, bytes]) -> None:
    del files["client/client.jsonl"]


def _added_file(files: dict[str, bytes]) -> None:
    files["extra.txt"] = b"hello"


def _changed_manifest(files: dict[str, bytes]) -> None:
    files[MANIFEST] = files[MANIFEST].replace(b"Art. 20", b"Art. 99", 1)


def _no_signature(files: dict[str, bytes]) -> None:
    del files[SIGNATURE]


def _malformed_signature(files: dict[str, bytes]) -> None:
    files[SIGNATURE] = b"%%%"


@pytest.mark.parametrize(
    "tamper",
    [_changed_file, _dropped_file, _added_file, _changed_manifest, _no_signature, _malformed_signature],
)
def test_any_change_to_a_package_is_found(tmp_path: Path, tamper: Callable[[dict[str, bytes]], None]) -> None:
    """Whoever answers with a package cannot leave out or add anything afterwards."""
    path = _written(tmp_path / "package.zip")
    with zipfile.ZipFile(path) as package:
        files = {name: package.read(name) for name in package.namelist()}
    tamper(files)
    with zipfile.ZipFile(path, "w") as package:
        for name, content in files.items():
            package.writestr(name, content)

    with pytest.raises(BadPackage):
        verify_package(path, PUBLIC)


def test_another_key_a_cut_file_and_no_zip_are_refused(tmp_path: Path) -> None:
    """Malformed input never leaks an error that is not ours."""
    path = _written(tmp_path / "package.zip")
    stranger = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    cut = tmp_path / "cut.zip"
    cut.write_bytes(path.read_bytes()[:-40])
    noise = tmp_path / "noise.zip"
    noise.write_bytes(io.BytesIO(b"no zip at all").getvalue())

    for bad, key in ((path, stranger), (cut, PUBLIC), (noise, PUBLIC), (tmp_path / "absent.zip", PUBLIC)):
        with pytest.raises(BadPackage):
            verify_package(bad, key)
