"""The blobs of a backup: their stored bytes behind one another, and a list of what begins where.

An update stays encrypted under its subject's key on the whole way; an erasure therefore holds for every backup.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import IO, Any

from sqlalchemy import Table, select

from audit.reading import reading
from compliance.tables import privacy_requests
from gateway.backup.archive import (
    BLOB_BYTES,
    BLOB_LIST,
    Archive,
    ArchiveWriter,
    MemberReader,
    MemberWriter,
    dumps,
)
from gateway.backup.errors import BackupError, BadBackup
from gateway.backup.rows import Row
from gateway.services import Services
from gateway.storage.blobs import BlobStore
from gateway.storage.chunks import MODEL_NAME
from gateway.tables import client_updates, model_versions

Progress = Callable[[str, int], None]
"""Told what is being done, and how many bytes of it came to pass since the last call."""

_PIECE_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Tally:
    """Named blobs that were not there: `vanished` ones have no row any more, `missing` ones still have."""

    vanished: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class PackedBlob:
    """A blob in a backup."""

    name: str
    offset: int
    size_bytes: int
    sha256: str


def blob_of(table: Table, row: Row) -> str | None:
    """The blob that a row names."""
    if table is client_updates:
        return str(row["blob_id"])
    if table is model_versions:
        return str(row["model_blob_url"]).removeprefix("blob:")
    return row["package_blob"] if table is privacy_requests else None


def portable_name(name: str, made_at: str) -> str:
    """The name in any store; a bucket's name of a model version means nothing elsewhere."""
    return sha256(f"{made_at}|{name}".encode()).hexdigest()[:32] if MODEL_NAME.fullmatch(name) else name


class Spool:
    """Which blobs the snapshot's rows name, noted in a file while the rows pass by."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def note(self, table: Table, row: Row) -> None:
        """Take down the blob of a row, if it names one."""
        if (name := blob_of(table, row)) is not None:
            version = row["version"] if table is model_versions else None
            self._file.write(dumps({"name": name, "version": version}))

    def noted(self) -> Iterator[tuple[str, str | None]]:
        """The blobs, each with the model version that it is."""
        self._file.seek(0)
        for line in self._file:
            told = json.loads(line)
            yield told["name"], told["version"]


def write_blobs(services: Services, archive: ArchiveWriter, spool: Spool, progress: Progress) -> Tally:
    """Write the noted blobs, and the list of them; memory holds a piece of one."""
    vanished = missing = 0
    with tempfile.TemporaryFile() as told:
        with archive.member(BLOB_BYTES, packed=False) as member:
            for name, version in spool.noted():
                try:
                    told.write(dumps(asdict(_copied_now(services, name, version, member, progress))))
                except FileNotFoundError:
                    still = _is_named(services, name)
                    missing, vanished = missing + still, vanished + (not still)
        told.seek(0)
        with archive.member(BLOB_LIST) as member:
            for line in told:
                member.line(line)
    return Tally(vanished, missing)


def each_blob(
    archive: Archive, take: Callable[[PackedBlob, Iterator[bytes]], None] | None, progress: Progress
) -> Iterator[PackedBlob]:
    """Every blob, in order; `take` may use its bytes, of which the digest is right if the iteration goes on.

    Raises:
        BadBackup: the bytes are not those that were backed up.
    """
    position = 0
    with archive.stream(BLOB_BYTES) as stream:
        for line in archive.lines(BLOB_LIST):
            blob = _packed(line)
            _skip(stream, blob.offset - position)
            hashed = sha256()
            pieces = _hashed(_pieces(stream, blob.size_bytes), hashed.update)
            if take:
                take(blob, pieces)
            for _ in pieces:  # what `take` left over
                pass
            if hashed.hexdigest() != blob.sha256:
                raise BadBackup(f"the blob {blob.name} is not what was backed up")
            position = blob.offset + blob.size_bytes
            progress("blobs", blob.size_bytes)
            yield blob


def restore_blobs(store: BlobStore, archive: Archive, gone: Collection[str], progress: Progress) -> int:
    """Write each blob but those of erased people; how many are there now."""

    def take(blob: PackedBlob, pieces: Iterator[bytes]) -> None:
        name = portable_name(blob.name, archive.manifest.created_at)
        if blob.name in gone or _is_there(store, name, blob):
            return
        with store.incoming(name) as incoming:
            for piece in pieces:
                incoming.write(piece)
            incoming.keep()

    return sum(blob.name not in gone for blob in each_blob(archive, take, progress))


def _copied_now(
    services: Services, name: str, version: str | None, member: MemberWriter, progress: Progress
) -> PackedBlob:
    """Copy a blob; once more if it was filed under another name while it was read, and the first one is gone."""
    before = _name_now(services, name, version)
    try:
        return _copied(services, name, before, member, progress)
    except FileNotFoundError:
        now = _name_now(services, name, version)
        if now == before:
            raise
        return _copied(services, name, now, member, progress)


def _copied(
    services: Services, name: str, stored_as: str, member: MemberWriter, progress: Progress
) -> PackedBlob:
    """Copy the bytes as they are stored; a store may fail half-way: then the next blob begins further on."""
    hashed, offset = sha256(), member.size_bytes
    with services.blobs.clear_reader(stored_as) as blob:
        for start in range(0, blob.size_bytes, _PIECE_BYTES):
            piece = blob.read_at(start, min(_PIECE_BYTES, blob.size_bytes - start))
            hashed.update(piece)
            member.write(piece)
            progress("blobs", len(piece))
    if member.size_bytes - offset != blob.size_bytes:
        raise BackupError("A blob became shorter while it was read: the blob store is damaged")
    return PackedBlob(name, offset, blob.size_bytes, hashed.hexdigest())


def _name_now(services: Services, name: str, version: str | None) -> str:
    """Where a model's bytes lie at this moment: a bucket files them under their version meanwhile."""
    if version is None:
        return name
    query = select(model_versions).where(model_versions.c.version == version)
    with reading(services.engine) as conn:
        row = conn.execute(query).mappings().one_or_none()
    return (blob_of(model_versions, dict(row)) if row else None) or name


def _is_named(services: Services, name: str) -> bool:
    """Whether a row names the blob at this moment."""
    queries = (
        select(client_updates.c.update_id).where(client_updates.c.blob_id == name),
        select(model_versions.c.version_id).where(model_versions.c.model_blob_url == f"blob:{name}"),
        select(privacy_requests.c.id).where(privacy_requests.c.package_blob == name),
    )
    with reading(services.engine) as conn:
        return any(conn.execute(query.limit(1)).first() is not None for query in queries)


def _is_there(store: BlobStore, name: str, blob: PackedBlob) -> bool:
    """Whether the store has these very bytes already: it was not lost, or this is a repetition."""
    try:
        with store.clear_reader(name) as reader:
            if reader.size_bytes != blob.size_bytes:
                return False
            hashed = sha256()
            for start in range(0, blob.size_bytes, _PIECE_BYTES):
                hashed.update(reader.read_at(start, min(_PIECE_BYTES, blob.size_bytes - start)))
    except FileNotFoundError:
        return False
    return hashed.hexdigest() == blob.sha256


def _packed(line: bytes) -> PackedBlob:
    try:
        told: Any = json.loads(line)
        blob = PackedBlob(**told)
        is_named = _NAME.fullmatch(blob.name) or MODEL_NAME.fullmatch(blob.name)
        if (
            not is_named
            or not _DIGEST.fullmatch(blob.sha256)
            or min(int(blob.offset), int(blob.size_bytes)) < 0
        ):
            raise TypeError
    except (TypeError, ValueError, RecursionError):
        raise BadBackup("the list of blobs is not one that a backup has") from None
    return blob


def _skip(stream: MemberReader, length: int) -> None:
    """Pass over what belongs to no blob: a copy that broke off."""
    if length < 0:
        raise BadBackup("two blobs in the backup overlap")
    for _ in _pieces(stream, length):
        pass


def _pieces(stream: MemberReader, length: int) -> Iterator[bytes]:
    while length > 0:
        piece = stream.read(min(length, _PIECE_BYTES))
        if not piece:
            raise BadBackup("the blobs in the backup end too soon")
        length -= len(piece)
        yield piece


def _hashed(pieces: Iterator[bytes], see: Callable[[bytes], object]) -> Iterator[bytes]:
    for piece in pieces:
        see(piece)
        yield piece
