"""The file of a backup: a ZIP with one member a table, all blobs behind one another, and a manifest of digests.

Members have names of ours alone, and nothing of a file is believed before its digest was checked: a name cannot
lead out of a folder, and what is stored compressed can swell no further than the manifest says.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast
from uuid import uuid4
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from gateway.backup.errors import BadBackup
from gateway.backup.rows import MAX_LINE_BYTES
from gateway.errors import StorageFull
from gateway.storage.durable import sync_directory
from gateway.storage.file_blobs import is_full

FORMAT = 1
MANIFEST, BLOB_LIST, BLOB_BYTES = "manifest.json", "blobs.jsonl", "blobs.bin"
_MAX_MANIFEST_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_EPOCH = (1980, 1, 1, 0, 0, 0)
_DAMAGE = (BadZipFile, zlib.error, struct.error, EOFError, ValueError, KeyError, RuntimeError, OverflowError)


class Kind(StrEnum):
    """Data and keys are backed up apart (RULES 1)."""

    DATABASE = "database"
    KEYS = "keys"


@dataclass(frozen=True, slots=True)
class Member:
    """What the manifest says of one member: its length, its SHA-256 in hex, its lines."""

    size_bytes: int
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup is of, and what is in it."""

    kind: Kind
    schema: str
    gateway: str
    created_at: str
    origin: str
    checkpoint: str | None = None
    members: Mapping[str, Member] = field(default_factory=dict)
    vanished: int = 0
    missing: int = 0
    format: int = FORMAT

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(member.rows for name, member in self.members.items() if name.startswith("tables/"))

    @property
    def blobs(self) -> int:
        """Blobs in it."""
        return self.members[BLOB_LIST].rows if BLOB_LIST in self.members else 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all members, unpacked."""
        return sum(member.size_bytes for member in self.members.values())


def table_member(name: str) -> str:
    """The member that holds a table."""
    return f"tables/{name}.jsonl"


class MemberWriter:
    """Bytes on their way into one member."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = sha256()
        self._lines = 0
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next bytes; lines are whole."""
        self._hash.update(data)
        self.size_bytes += len(data)
        self._stream.write(data)

    def line(self, data: bytes) -> None:
        """Take one line."""
        self._lines += 1
        self.write(data)

    def member(self) -> Member:
        """What was written."""
        return Member(self.size_bytes, self._hash.hexdigest(), self._lines)


class ArchiveWriter:
    """A backup being written; its members come one after the other, the manifest last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._zip = ZipFile(file, "w", compresslevel=1)
        self.members: dict[str, Member] = {}

    @contextmanager
    def member(self, name: str, *, packed: bool = True) -> Iterator[MemberWriter]:
        """A new member."""
        info = ZipInfo(name, _EPOCH)
        info.compress_type = ZIP_DEFLATED if packed else ZIP_STORED
        info.external_attr = 0o600 << 16
        with self._zip.open(info, "w", force_zip64=True) as stream:
            writer = MemberWriter(stream)
            yield writer
        self.members[name] = writer.member()

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # of a file that is given up, after a failure
            self._zip.close()

    def close(self, manifest: Manifest) -> None:
        """Write the manifest and the list of members."""
        info = ZipInfo(MANIFEST, _EPOCH)
        info.external_attr = 0o600 << 16
        self._zip.writestr(info, json.dumps(asdict(manifest), indent=1, sort_keys=True))
        self._zip.close()


@contextmanager
def written_aside(target: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when it is whole and durable; readable by its owner alone.

    Raises:
        StorageFull: there is no room; nothing is left.
    """
    aside = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with os.fdopen(os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
        sync_directory(target.parent)
    except BaseException as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_full(error):
            raise StorageFull from error
        raise


@dataclass(frozen=True, slots=True)
class Archive:
    """A backup that is open to be read; every reading is checked against the manifest."""

    manifest: Manifest
    _zip: ZipFile

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a member, each with its newline.

        Raises:
            BadBackup: they are not what the manifest says; known at the last of them at the latest.
        """
        rows = 0
        with self.stream(name) as stream:
            while line := stream.line():
                rows += 1
                yield line
        if rows != self.manifest.members[name].rows:
            raise BadBackup(f"the member {name} has not the number of lines that the manifest says")

    @contextmanager
    def stream(self, name: str) -> Iterator[MemberReader]:
        """The bytes of a member; a block that ends well has read and checked all of them."""
        with _guarded():
            raw: IO[bytes] = io.BufferedReader(cast(io.RawIOBase, self._zip.open(name)), _READ_BYTES)
        with raw:
            reader = MemberReader(raw, name)
            yield reader
            reader.finish(self.manifest.members[name])


class MemberReader:
    """Bytes out of a member, hashed on the way."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self._stream, self._name = stream, name
        self._hash = sha256()
        self._size_bytes = 0

    def read(self, length: int) -> bytes:
        """Up to so many bytes; none at the end."""
        with _guarded():
            return self._seen(self._stream.read(length))

    def line(self) -> bytes:
        """The next line with its newline; empty at the end."""
        with _guarded():
            line = self._seen(self._stream.readline(MAX_LINE_BYTES + 1))
        if line and not line.endswith(b"\n"):
            raise BadBackup(f"a line of the member {self._name} does not end")
        return line

    def finish(self, member: Member) -> None:
        """Read what is left, and compare."""
        while self.read(_READ_BYTES):
            pass
        if (self._size_bytes, self._hash.hexdigest()) != (member.size_bytes, member.sha256):
            raise BadBackup(f"the member {self._name} is not what the manifest says: the file was changed")

    def _seen(self, data: bytes) -> bytes:
        self._hash.update(data)
        self._size_bytes += len(data)
        return data


@contextmanager
def open_archive(path: Path, kind: Kind) -> Iterator[Archive]:
    """Open a backup, and look at its manifest.

    Raises:
        BadBackup: the file is no backup of that kind.
    """
    with path.open("rb") as file:
        with _guarded():
            archive = ZipFile(file)
        with archive:
            manifest = _manifest(archive)
            if manifest.kind is not kind:
                raise BadBackup(f"the file is a backup of the {manifest.kind}, not of the {kind}")
            _compare(archive.infolist(), manifest)
            yield Archive(manifest, archive)


def _manifest(archive: ZipFile) -> Manifest:
    with _guarded():
        if archive.getinfo(MANIFEST).compress_type != ZIP_STORED:  # before anything is unpacked
            raise BadBackup("the manifest is packed in a way that no backup is")
        with archive.open(MANIFEST) as stream:
            text = stream.read(_MAX_MANIFEST_BYTES + 1)
        if len(text) > _MAX_MANIFEST_BYTES:
            raise BadBackup("the manifest is too long")
        told = json.loads(text)
        try:
            members = {name: Member(**facts) for name, facts in told.pop("members").items()}
            made = manifest = Manifest(**{**told, "kind": Kind(told["kind"]), "members": members})
            "".join((made.schema, made.gateway, made.created_at, made.origin, made.checkpoint or ""))  # texts
        except (AttributeError, TypeError):
            raise BadBackup("the manifest is not one of this version") from None
    if manifest.format != FORMAT:
        raise BadBackup(f"the backup has the format {manifest.format}; this version reads {FORMAT}")
    return manifest


def _compare(found: list[ZipInfo], manifest: Manifest) -> None:
    """Exactly the members of the manifest are there, once each, as long as it says."""
    sizes = {info.filename: info.file_size for info in found if info.filename != MANIFEST}
    wanted = {name: member.size_bytes for name, member in manifest.members.items()}
    if sizes != wanted or len(found) != len(wanted) + 1:
        raise BadBackup("the file's members are not those of its manifest: some are missing, cut or added")
    for info in found:
        packed = info.filename not in (BLOB_BYTES, MANIFEST)
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED)[: 1 + packed] or info.flag_bits & 0x1:
            raise BadBackup(f"the member {info.filename} is packed in a way that no backup is")


@contextmanager
def _guarded() -> Iterator[None]:
    """What a damaged file raises in many ways becomes one error."""
    try:
        yield
    except BadBackup:
        raise
    except (*_DAMAGE, OSError) as error:
        raise BadBackup(f"the file is not a whole backup ({type(error).__name__})") from None


def dumps(facts: Mapping[str, Any]) -> bytes:
    """One line of facts."""
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode() + b"\n"
