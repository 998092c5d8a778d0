"""The keys come back first, and never those that were erased: the state is asked before a row is written (RULES 1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sqlalchemy import Connection, Table, insert, select
from sqlalchemy.exc import IntegrityError

from audit.draft import NOBODY
from audit.events import Retention
from audit.reading import reading
from compliance.keyring.keys import tombstone_of
from compliance.keyring.tables import pseudonyms, subject_keys
from compliance.log_place import LogPlace
from gateway.backup.archive import Archive, Kind, open_archive, table_member
from gateway.backup.errors import BadBackup, Mismatch
from gateway.backup.reading import rows_of
from gateway.backup.rows import Row, keystore_tables
from gateway.backup.writing import schema_of
from gateway.services import Services

_ROWS_AT_ONCE = 500


def check_keys(services: Services, path: Path) -> None:
    """Read a backup of the keys through.

    Raises:
        BadBackup: it is not whole.
        Mismatch: its schema is another version's.
        compliance.errors.BadMasterKey: the master key does not open it.
    """
    with open_archive(path, Kind.KEYS) as archive:
        if archive.manifest.members.keys() != {table_member(table.name) for table in keystore_tables()}:
            raise BadBackup("the backup of the keys has other tables than this version")
        with reading(services.keystore_engine) as conn:
            if archive.manifest.schema != schema_of(conn):
                made_by = archive.manifest.gateway
                raise Mismatch(
                    f"The keys were backed up by version {made_by}, whose key store has another schema"
                )
        for table in keystore_tables():
            for number, row in enumerate(rows_of(archive, table)):
                if table is subject_keys and number == 0:
                    _insist_opens(services, row)


def restore_keys(services: Services, path: Path) -> int:
    """Put the keys of a backup beside those that are there, in one transaction; safe to repeat.

    An erased key does not come back, nor the name by which a SIEM knew an erased person.

    Raises:
        Mismatch: the key store has keys of another gateway, or keys made since in the place of those.
    """
    is_dead = _graveyard(services.state.erased_keys())
    try:
        with open_archive(path, Kind.KEYS) as archive, services.keystore_engine.begin() as conn:
            written = sum(_merge(conn, archive, table, is_dead) for table in keystore_tables())
    except IntegrityError:
        raise Mismatch(
            "The key store has other keys in the places of these: name an empty one with FLG_KEYSTORE_URL, or move "
            "this one away (the default is keys/subjects.db)"
        ) from None
    services.state.bump_epoch()
    return written


def bury(services: Services) -> int:
    """Apply the state's erasures to the key store as it is; how many keys that destroyed."""
    place = LogPlace(services.engine, services.keystore, services.sealer)
    gone = services.keystore.apply_state()
    for subject in services.keystore.subjects():
        if subject not in NOBODY and services.keystore.is_forbidden(subject):
            gone += place.erase(subject).rows
    return gone


def _insist_opens(services: Services, row: Row) -> None:
    services.keystore.master.unwrap(row["wrapped"], subject_keys.name, row["key_id"], row["subject"])


def _graveyard(erased: Collection[str]) -> Callable[[Table, Row], bool]:
    def is_dead(table: Table, row: Row) -> bool:
        if table is subject_keys:
            gone = (
                tombstone_of(row["subject"]) in erased and row["retention"] == Retention.PARTICIPATION.value
            )
            return gone or row["key_id"] in erased
        return table is pseudonyms and tombstone_of(row["subject"]) in erased

    return is_dead


def _merge(conn: Connection, archive: Archive, table: Table, is_dead: Callable[[Table, Row], bool]) -> int:
    (key,) = table.primary_key.columns
    written = 0
    for page in _pages(row for row in rows_of(archive, table) if not is_dead(table, row)):
        here = select(key).where(key.in_([row[key.name] for row in page]))
        known = set(conn.execute(here).scalars())
        new = [row for row in page if row[key.name] not in known]
        if new:
            conn.execute(insert(table), new)
        written += len(new)
    return written


def _pages(rows: Iterator[Row]) -> Iterator[list[Row]]:
    page: list[Row] = []
    for row in rows:
        page.append(row)
        if len(page) == _ROWS_AT_ONCE:
            yield page
            page = []
    if page:
        yield page
