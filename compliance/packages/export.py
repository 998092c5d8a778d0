"""The export package: a ZIP for a person to read, with a signed manifest for anybody to check (Art. 15, 20).

It is written as a stream: memory does not grow with what a person has here.
"""

from __future__ import annotations

import base64
import binascii
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from compliance.errors import BadPackage
from compliance.keyring.keys import SigningKey
from compliance.packages.readme import readme_html
from compliance.places import ExportFile

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
_BLOCK_BYTES = 1 << 16


class Writable(Protocol):
    """Where a package goes: it is only ever written forward."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One line of the manifest; `rows` is null for files that are no table."""

    path: str
    bytes: int
    sha256: str
    rows: int | None
    article: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package holds."""

    kid: str
    files: tuple[PackedFile, ...]

    def encoded(self) -> bytes:
        """The bytes that are signed."""
        facts = {"kid": self.kid, "files": [asdict(file) for file in self.files]}
        return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """Hex SHA-256 of the signed bytes, as the audit entry of the export names it."""
        return sha256(self.encoded()).hexdigest()


def write_package(
    out: Writable,
    files: Iterable[ExportFile],
    *,
    notice: Mapping[str, Any],
    key: SigningKey,
    at: datetime,
) -> Manifest:
    """Write the package of one person.

    Args:
        out: where the ZIP goes.
        files: what the places hold; the order in the package is that of the paths.
        notice: the information that Art. 15(1) asks for, written as `article-15.json`.
        key: signs the manifest.
        at: the time that every file in the ZIP bears.
    """
    ordered = sorted(files, key=lambda file: file.path)
    with zipfile.ZipFile(cast("IO[bytes]", _Forward(out)), "w", zipfile.ZIP_DEFLATED) as package:
        packer = _Packer(package, at)
        packed = [packer.add("article-15.json", [_pretty(notice)], rows=None, article="Art. 15(1)")]
        packed += [packer.add_file(file) for file in ordered]
        readme = readme_html([(file.path, file.article, file.rows) for file in packed], at)
        packed.append(packer.add("README.html", [readme.encode()], rows=None, article="Art. 12"))
        manifest = Manifest(key.kid, tuple(packed))
        packer.add(MANIFEST, [manifest.encoded()], rows=None, article="")
        signature = base64.b64encode(key.private.sign(manifest.encoded()))
        packer.add(SIGNATURE, [signature], rows=None, article="")
    return manifest


def verify_package(path: Path, public_key: bytes) -> Manifest:
    """Check a package against its signed manifest, with the raw public key alone.

    Raises:
        BadPackage: it was changed, cut, or signed by another key.
    """
    try:
        with zipfile.ZipFile(path) as package:
            manifest = _signed_manifest(package, public_key)
            _check_names(package, manifest)
            for file in manifest.files:
                _check_file(package, file)
            return manifest
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise BadPackage(path.name, "this is not a whole ZIP file") from error


class _Packer:
    def __init__(self, package: zipfile.ZipFile, at: datetime) -> None:
        self._package = package
        self._date = at.astimezone(UTC).timetuple()[:6]
        self._names: set[str] = set()

    def add_file(self, file: ExportFile) -> PackedFile:
        if file.rows is None:
            return self.add(file.path, file.chunks or (), rows=None, article=file.article)
        counted = _Counted(file.rows)
        packed = self.add(file.path, counted, rows=None, article=file.article)
        return PackedFile(packed.path, packed.bytes, packed.sha256, counted.rows, packed.article)

    def add(self, path: str, chunks: Iterable[bytes], *, rows: int | None, article: str) -> PackedFile:
        if path in self._names:
            raise BadPackage(path, "two places export a file of this name")
        self._names.add(path)
        info = zipfile.ZipInfo(path, self._date)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        digest, size = sha256(), 0
        with self._package.open(info, "w", force_zip64=True) as target:
            for chunk in chunks:
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return PackedFile(path, size, digest.hexdigest(), rows, article)


class _Counted:
    """Rows as JSON lines, counted while they pass."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self._source = rows
        self.rows = 0

    def __iter__(self) -> Iterator[bytes]:
        for row in self._source:
            self.rows += 1
            yield json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n"


class _Forward:
    """A file that zipfile can only write to, so that it never seeks back."""

    def __init__(self, out: Writable) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        self._out.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def _pretty(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).encode()


def _signed_manifest(package: zipfile.ZipFile, public_key: bytes) -> Manifest:
    try:
        encoded = package.read(MANIFEST)
        signature = base64.b64decode(package.read(SIGNATURE), validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, encoded)
        facts = json.loads(encoded)
        return Manifest(facts["kid"], tuple(PackedFile(**file) for file in facts["files"]))
    except InvalidSignature as error:
        raise BadPackage(SIGNATURE, "the manifest is not signed by this key") from error
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise BadPackage(MANIFEST, "the manifest or its signature is missing or malformed") from error


def _check_names(package: zipfile.ZipFile, manifest: Manifest) -> None:
    here = sorted(package.namelist())
    told = sorted([*(file.path for file in manifest.files), MANIFEST, SIGNATURE])
    for name in {*here, *told}:
        if here.count(name) != told.count(name):
            raise BadPackage(name, "the package and its manifest do not name the same files")


def _check_file(package: zipfile.ZipFile, file: PackedFile) -> None:
    digest, size = sha256(), 0
    with package.open(file.path) as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    if (size, digest.hexdigest()) != (file.bytes, file.sha256):
        raise BadPackage(file.path, "the file is not what the manifest says")
