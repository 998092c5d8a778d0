"""The export package: complete, signed, readable by a person, and any change to it is found (Art. 15, 20)."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from os import urandom
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jsonschema import Draft202012Validator, ValidationError

from compliance.errors import BadPackage
from compliance.keyring.keys import SigningKey
from compliance.packages.columns import ExportColumn, Form
from compliance.packages.export import write_package
from compliance.packages.folders import AT_ONCE
from compliance.packages.manifest import MANIFEST, SIGNATURE
from compliance.packages.rows import cell
from compliance.packages.scratch import Scratch
from compliance.packages.verifying import verify_package
from compliance.places import ExportFile, ExportFolder, ExportPart, ExportTable, FolderFile

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
KEY = SigningKey("0123456789abcdef", Ed25519PrivateKey.from_private_bytes(b"k" * 32))
PUBLIC = KEY.private.public_key().public_bytes_raw()
NOTICE = {"controller": "Example Hospital", "rights": ["complaint"]}


COLUMNS = (
    ExportColumn("round", Form.INTEGER, "the round", is_portable=True),
    ExportColumn("name", Form.TEXT, "what it is called", is_optional=True, is_portable=True),
    ExportColumn("metrics", Form.ANY, "what was reported", is_optional=True),
)
ROWS = (
    {"round": 1, "name": "=1+1", "metrics": {"loss": -1}},
    {"round": 2, "name": "Zoë", "metrics": None},
)


def _table(category: str, rows: Iterable[Mapping[str, Any]] = ROWS) -> ExportTable:
    return ExportTable(category, "Art. 15, Art. 20", f"All {category}", COLUMNS, rows)


def _folder(path: str, names: Iterable[str], *, is_portable: bool = True) -> ExportFolder:
    files = (FolderFile(name, 6, [b"abc", b"def"]) for name in names)
    return ExportFolder(path, "Art. 20", "Updates", files, is_portable)


def _parts() -> list[ExportPart]:
    only = COLUMNS[2:]
    return [
        _table("history"),
        ExportTable("clients", "Art. 15", "Clients", only, []),
        ExportFile("audit/checkpoint", "Art. 15", "The log", [b"note"]),
        _folder("updates", ["7.safetensors"]),
        _folder("audit/proofs", ["1.tlog-proof"], is_portable=False),
    ]


def _written(path: Path, parts: list[ExportPart] | None = None, *, is_portable: bool = False) -> Path:
    with path.open("wb") as out:
        write_package(out, parts or _parts(), notice=NOTICE, key=KEY, at=AT, is_portable=is_portable)
    return path


def test_a_package_verifies_with_the_public_key_alone(tmp_path: Path) -> None:
    """API.md: manifest.json names every file with bytes, SHA-256, rows and article; manifest.sig signs it."""
    path = _written(tmp_path / "package.zip")

    manifest = verify_package(path, PUBLIC)

    told = {file.path: (file.bytes, file.rows, file.article) for file in manifest.files}
    assert manifest.kid == KEY.kid
    assert told["data/history.json"][1:] == told["data/history.csv"][1:] == (2, "Art. 15, Art. 20")
    assert told["updates/7.safetensors"] == (6, None, "Art. 20")
    assert told["data/clients.json"][1:] == (0, "Art. 15")


def test_a_package_is_the_same_bytes_whatever_the_order_of_places(tmp_path: Path) -> None:
    """A package can be made again and compared."""
    one = _written(tmp_path / "one.zip")
    other = _written(tmp_path / "other.zip", list(reversed(_parts())))

    assert one.read_bytes() == other.read_bytes()


def test_a_person_finds_a_page_without_script_and_the_notice(tmp_path: Path) -> None:
    """Art. 12(1): in plain language; the page loads nothing and runs nothing."""
    with zipfile.ZipFile(_written(tmp_path / "package.zip")) as package:
        page = package.read("README.html").decode()
        notice = json.loads(package.read("article-15.json"))
        rows = json.loads(package.read("data/history.json"))

    assert "data/history.json" in page
    assert "All history" in page
    assert "<script" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert notice == NOTICE
    assert rows == list(ROWS)


def test_names_of_files_are_escaped_in_the_page(tmp_path: Path) -> None:
    """What a device calls itself never becomes markup."""
    parts = [ExportFile("<img src=x>", "Art. 15", "<img src=y>", [])]

    with zipfile.ZipFile(_written(tmp_path / "package.zip", parts)) as package:
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

    big = ExportFile("big.bin", "Art. 20", "A big file", chunks())
    write_package(Target(), [big], notice={}, key=KEY, at=AT)

    assert pulled[-1] > 6 * 65_536


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../up.json", "a/../b", "a//b", "a\\b", "./a"])
def test_a_path_that_leaves_the_package_is_refused(path: str) -> None:
    """No unpacking tool may write outside of its folder."""
    with pytest.raises(BadPackage):
        ExportFile(path, "Art. 15", "A file", [])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """A reader that takes the first and one that takes the last would see different data."""
    with pytest.raises(BadPackage):
        _written(tmp_path / "package.zip", [_table("a"), _table("a")])


def test_a_table_lies_there_three_times_with_the_same_rows(tmp_path: Path) -> None:
    """Art. 12(1), 20: for programs, for spreadsheets, and the part to take along; of one look at the rows."""
    with zipfile.ZipFile(_written(tmp_path / "package.zip", [_table("history", iter(ROWS))])) as package:
        as_json = json.loads(package.read("data/history.json"))
        as_csv = list(csv.DictReader(io.StringIO(package.read("data/history.csv").decode(), newline="")))
        portable = json.loads(package.read("portability/history.json"))

    assert [row["round"] for row in as_csv] == [str(row["round"]) for row in as_json]
    assert [json.loads(row["metrics"] or "null") for row in as_csv] == [row["metrics"] for row in as_json]
    assert portable == [{"round": row["round"], "name": row["name"]} for row in ROWS]


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff20"])
def test_a_cell_never_becomes_a_formula(first: str) -> None:
    """What a client calls itself must not run in the spreadsheet of who opens the package."""
    assert cell(f"{first}cmd|' /C calc'!A0").startswith("'")
    assert (cell("a=b"), cell(-1), cell(True), cell(None)) == ("a=b", "-1", "true", "")


def test_each_table_has_a_schema_that_its_rows_fit(tmp_path: Path) -> None:
    """JSON Schema 2020-12: what each member means, and no member that it does not tell of."""
    with zipfile.ZipFile(_written(tmp_path / "package.zip")) as package:
        names = package.namelist()
        for rows, name in (
            ("data/history.json", "history"),
            ("portability/history.json", "portability-history"),
            ("data/clients.json", "clients"),
        ):
            schema = json.loads(package.read(f"schemas/{name}.schema.json"))
            Draft202012Validator.check_schema(schema)
            Draft202012Validator(schema).validate(json.loads(package.read(rows)))
        with pytest.raises(ValidationError):
            Draft202012Validator(schema).validate([{"metrics": None, "extra": 1}])

    assert "portability/clients.json" not in names


def test_a_row_that_its_schema_does_not_know_is_no_package(tmp_path: Path) -> None:
    """Nothing leaves that nobody described."""
    with pytest.raises(BadPackage, match="schema"):
        _written(tmp_path / "package.zip", [_table("a", [{"round": 1, "surprise": 2}])])


def test_a_portable_package_has_only_what_may_be_taken_along(tmp_path: Path) -> None:
    """Art. 20: what the person gave, and a page; no notice, no log."""
    path = _written(tmp_path / "package.zip", is_portable=True)

    told = {file.path for file in verify_package(path, PUBLIC).files}

    assert told == {
        "README.html",
        "portability/history.json",
        "schemas/portability-history.schema.json",
        "updates/7.safetensors",
    }


def test_many_files_of_a_kind_lie_in_archives(tmp_path: Path) -> None:
    """A ZIP and its manifest stay short however many files there are; nothing is left out."""
    names = [f"{number:05}" for number in range(2 * AT_ONCE + 5)]

    path = _written(tmp_path / "package.zip", [_folder("updates", names)])

    verify_package(path, PUBLIC)
    with zipfile.ZipFile(path) as package:
        here = [name for name in package.namelist() if name.startswith("updates/")]
        packed = []
        for archive in ("updates/part-0002.tar", "updates/part-0003.tar"):
            with tarfile.open(fileobj=io.BytesIO(package.read(archive))) as tar:
                packed += tar.getnames()
                assert tar.extractfile(tar.getmembers()[0]).read() == b"abcdef"
    assert len(here) == AT_ONCE + 2
    assert packed == names[AT_ONCE:]


def test_what_waits_on_disk_cannot_be_read_there() -> None:
    """RULES 17: a copy that is cut off leaves nothing readable."""
    scratch = Scratch()
    scratch.write(b"canary" * 10_000)
    scratch._file.flush()

    on_disk = os.pread(scratch._file.fileno(), 60_000, 0)

    assert b"canary" not in on_disk
    assert len(on_disk) == 60_000
    assert b"".join(scratch.read()) == b"canary" * 10_000


def _changed_file(files: dict[str, bytes]) -> None:
    files["updates/7.safetensors"] = b"abcdeX"


def _dropped_file(files: dict[str, bytes]) -> None:
    del files["data/clients.json"]


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


def test_a_signature_that_would_fill_the_memory_is_not_read(tmp_path: Path) -> None:
    """Whoever checks a package from a stranger must not be felled by a few bytes that unpack to gigabytes."""
    path = _written(tmp_path / "package.zip")
    with zipfile.ZipFile(path) as package:
        files = {name: package.read(name) for name in package.namelist()}
    files[SIGNATURE] = b"A" * (1 << 25)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in files.items():
            package.writestr(name, content)

    with pytest.raises(BadPackage, match=r"manifest\.sig.*longer"):
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
