"""Writes a backup beside a running gateway: every table in one snapshot, then the blobs that its rows name.

Memory does not grow with the database: rows and bytes are streamed, and what a blob was is noted in a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from alembic.migration import MigrationContext
from sqlalchemy import Connection, Table, select

from audit.events import EventType
from audit.reading import snapshot
from audit.store import newest_checkpoint
from gateway.backup.archive import (
    ArchiveWriter,
    Kind,
    Manifest,
    table_member,
    written_aside,
)
from gateway.backup.blobs import Progress, Spool, write_blobs
from gateway.backup.rows import Row, encode, keystore_tables, main_tables
from gateway.services import Services

_ROWS_AT_ONCE = 500
_PIECE_BYTES = 1 << 20


def silent(_what: str, _done: int) -> None:
    """Progress that nobody looks at."""


def back_up(services: Services, target: Path, progress: Progress = silent) -> Manifest:
    """Write the database and its blobs into one file.

    Blobs whose row went meanwhile, by an erasure, are left out and counted as vanished; those that a row still
    names and that are not there are counted as missing, which is a finding about the store.

    Raises:
        StorageFull: there is no room for the file; nothing of it is left.
    """
    with (
        written_aside(target) as file,
        ArchiveWriter(file) as archive,
        tempfile.TemporaryFile() as names,
    ):
        spool = Spool(names)
        with snapshot(services.engine) as conn:
            schema, published = schema_of(conn), newest_checkpoint(conn)
            for table in main_tables():
                _write_table(archive, conn, table, spool.note, progress)
        tally = write_blobs(services, archive, spool, progress)
        manifest = replace(
            _manifest(services, Kind.DATABASE, schema, archive),
            checkpoint=published.note if published else None,
            vanished=tally.vanished,
            missing=tally.missing,
        )
        archive.close(manifest)
    _note(services, manifest, checkpoint_size=published.size if published else 0)
    return manifest


def back_up_keys(services: Services, target: Path, progress: Progress = silent) -> Manifest:
    """Write the key store into a file of its own; its secrets stay wrapped under the master key, which is not in it."""
    with written_aside(target) as file, ArchiveWriter(file) as archive:
        with snapshot(services.keystore_engine) as conn:
            schema = schema_of(conn)
            for table in keystore_tables():
                _write_table(archive, conn, table, _no_note, progress)
        manifest = _manifest(services, Kind.KEYS, schema, archive)
        archive.close(manifest)
    _note(services, manifest, checkpoint_size=0)
    return manifest


def _manifest(services: Services, kind: Kind, schema: str, archive: ArchiveWriter) -> Manifest:
    return Manifest(
        kind=kind,
        schema=schema,
        gateway=version("fl-gateway"),
        created_at=services.clock().isoformat(),
        origin=services.origin,
        members=archive.members,
    )


def _note(services: Services, made: Manifest, *, checkpoint_size: int) -> None:
    tables = sum(name.startswith("tables/") for name in made.members)
    facts = {"tables": tables, "rows": made.rows, "blobs": made.blobs, "checkpoint_size": checkpoint_size}
    services.trail.note(EventType.BACKUP_CREATED, **facts)


def schema_of(conn: Connection) -> str:
    """The revision of the database's schema."""
    return MigrationContext.configure(conn).get_current_revision() or ""


def _write_table(
    archive: ArchiveWriter,
    conn: Connection,
    table: Table,
    note: Callable[[Table, Row], None],
    progress: Progress,
) -> None:
    ordered = select(table).order_by(*table.primary_key.columns)
    with archive.member(table_member(table.name)) as member:
        for page in conn.execution_options(yield_per=_ROWS_AT_ONCE).execute(ordered).mappings().partitions():
            for mapping in page:
                row: Row = dict(mapping)
                note(table, row)
                line = encode(table, row)
                member.line(line)
                progress(table.name, len(line))


def _no_note(_table: Table, _row: Row) -> None:
    """Keys have no blobs."""
