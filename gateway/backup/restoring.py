"""Restores a backup into an empty database: checked whole, then keys, blobs, and all rows in ONE transaction.

A kill before that transaction commits leaves an empty database, keys that were there before, and blobs that no row
names: the same command begins again. Erasures and spends of the state are applied before a row is written (RULES 20).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, select
from sqlalchemy.exc import DBAPIError, IntegrityError

from audit.bundle import write_entries
from audit.reading import reading
from audit.tables import audit_log
from compliance.keyring.keys import SeedState, tombstone_of
from compliance.subjects import SubjectState
from compliance.tables import subjects
from gateway.backup.archive import Archive, Kind, Manifest, open_archive, written_aside
from gateway.backup.beyond import Beyond, look_beyond, stated_size, verifier_of
from gateway.backup.blobs import Progress, restore_blobs
from gateway.backup.course import Course, is_blank, known_size, plot
from gateway.backup.errors import BackupError, BadBackup, Mismatch, NotEmpty
from gateway.backup.filling import Fill
from gateway.backup.keys import bury, check_keys, restore_keys
from gateway.backup.reading import Findings, read_through, rows_of
from gateway.backup.rows import emptied_tables
from gateway.backup.sieve import Sieve
from gateway.backup.writing import schema_of, silent
from gateway.rounds.ledger import LineStatus
from gateway.rounds.recovery import unite_spends
from gateway.services import Services
from gateway.storage.leadership import Leadership
from gateway.storage.state import Spend
from gateway.tables import privacy_ledger

_PAGE = 1000
_PIECE_BYTES = 1 << 20
_NOT_ALLOWED = "42501"  # PostgreSQL: insufficient privilege (RULES 24)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the operator gives: the backup, and what else there is."""

    backup: Path
    log: Path | None = None
    keys: Path | None = None
    old_log: Path | None = None
    new_origin: bool = False
    without_state: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    `old_log` is the bundle of a log that ended; `to_do_again` counts what the log knows and the backup does not hold.
    """

    manifest: Manifest
    course: Course
    rows: int
    blobs: int
    erased_people: int
    erased_keys: int
    spends: int
    replayed: int
    failed_rounds: tuple[int, ...]
    lost_updates: int
    to_do_again: dict[str, int]
    old_log: Path | None


def insist_empty(engine: Engine) -> None:
    """Refuse a database that holds anything.

    Raises:
        NotEmpty: it does.
    """
    present = set(inspect(engine).get_table_names())
    with reading(engine) as conn:
        _insist_empty(conn, present)


def check(backup: Path, keys: Path | None = None, progress: Progress = silent) -> Manifest:
    """Read a backup through, and write nothing. Raises BadBackup."""
    if keys is not None:
        with open_archive(keys, Kind.KEYS) as archive:
            for name in archive.manifest.members:
                for _ in archive.lines(name):
                    pass
    with open_archive(backup, Kind.DATABASE) as archive:
        read_through(archive, (), (), progress)
        return archive.manifest


def restore(
    services: Services, wish: Wish, *, owner: Engine | None = None, progress: Progress = silent
) -> Restored:
    """Restore a backup; safe to repeat after a crash anywhere.

    Args:
        services: the stores; the database has every table and no row.
        wish: what to restore.
        owner: the database as a role that may write the log; that of the services when not given.
        progress: hears how far it is.

    Raises:
        BadBackup: a file is damaged; nothing was written.
        NotEmpty: the database holds something already.
        Mismatch, LogIncomplete: the parts do not fit; each says what to do.
    """
    with _alone(services.engine), open_archive(wish.backup, Kind.DATABASE) as archive:
        insist_empty(services.engine)
        _insist_schema(services, archive)
        if wish.keys is not None:
            check_keys(services, wish.keys)
        sizes = {known_size(services.state), stated_size(wish.log) if wish.log else 0}
        found = read_through(archive, services.state.erased_keys(), sizes, progress)
        if wish.keys is not None:
            restore_keys(services, wish.keys)
            services.crash("restore.keys")
        beyond = _beyond(services, wish, found)
        course = _course(services, wish, found, beyond)
        old_log = _keep_old_log(services, wish, archive, found, beyond, course)
        if is_blank(services.state) and not course.goes_on:
            _remember(services, archive)
        return _carry_out(
            services, owner or services.engine, wish, archive, found, beyond, course, old_log, progress
        )


def _carry_out(
    services: Services,
    owner: Engine,
    wish: Wish,
    archive: Archive,
    found: Findings,
    beyond: Beyond,
    course: Course,
    old_log: Path | None,
    progress: Progress,
) -> Restored:
    erased_keys = bury(services)
    blobs = restore_blobs(services.blobs, archive, found.gone_blobs, progress)
    services.crash("restore.blobs")
    sieve = Sieve.make(
        found,
        beyond,
        course,
        services.state.spends(),
        services.clock(),
        made_at=archive.manifest.created_at,
        may_have_drawn=lambda line: (
            wish.without_state or services.keystore.seed_state(line) is not SeedState.SEALED
        ),
    )
    fill = Fill(services, archive, sieve, wish.log, erased_keys=erased_keys, blobs=blobs)
    try:
        with owner.begin() as conn:
            _insist_empty(conn, {table.name for table in emptied_tables()})
            rows = fill.fill(conn, progress)
    except IntegrityError as error:
        raise BadBackup(
            f"the rows of the backup contradict each other ({type(error.orig).__name__})"
        ) from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_ALLOWED:
            raise
        raise BackupError(
            "This role may not write the log: name the owner with FLG_OWNER_DATABASE_URL"
        ) from None
    services.crash("restore.committed")
    unite_spends(services)
    return Restored(
        manifest=archive.manifest,
        course=course,
        rows=rows,
        blobs=blobs,
        erased_people=len(found.gone_subjects),
        erased_keys=erased_keys,
        spends=fill.spends,
        replayed=fill.replayed,
        failed_rounds=tuple(failing.round_number for failing in sieve.failures()),
        lost_updates=beyond.lost_updates.total(),
        to_do_again=dict(beyond.lost_effects),
        old_log=old_log,
    )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Refuse to restore beside a gateway that works on this database."""
    leadership = Leadership(engine, "worker")
    try:
        if not leadership.leads():
            raise BackupError("A gateway works on this database: stop it first")
        yield
    finally:
        leadership.close()


def _insist_empty(conn: Connection, present: set[str]) -> None:
    for table in emptied_tables():
        if table.name in present and conn.execute(select(table).limit(1)).first() is not None:
            raise NotEmpty(
                "A backup is restored into an empty database alone, and this one holds rows. Name a new one with "
                "FLG_DATABASE_URL, or move this one away (the default is fl-gateway.db, with -wal and -shm)"
            )


def _insist_schema(services: Services, archive: Archive) -> None:
    with reading(services.engine) as conn:
        if archive.manifest.schema != schema_of(conn):
            raise Mismatch(
                f"The backup was made by version {archive.manifest.gateway}, whose database has another schema. "
                "Restore it with that version, then install this one and run `fl-gateway db upgrade`"
            )


def _beyond(services: Services, wish: Wish, found: Findings) -> Beyond:
    """What the bundle says, if there is one; the key store must hold the key that signed the log."""
    if found.log.note is not None:
        verifier_of(services.keystore, found.log.origin, found.log.note)
    if wish.log is None:
        return Beyond()
    return look_beyond(
        wish.log,
        keystore=services.keystore,
        sealer=services.sealer,
        origin=found.log.origin,
        start=found.log.size,
        pending=found.pending,
        sizes={known_size(services.state), found.log.size},
    )


def _course(services: Services, wish: Wish, found: Findings, beyond: Beyond) -> Course:
    return plot(
        services.state,
        services.origin,
        found.log,
        beyond,
        new_origin=wish.new_origin,
        without_state=wish.without_state,
    )


def _keep_old_log(
    services: Services, wish: Wish, archive: Archive, found: Findings, beyond: Beyond, course: Course
) -> Path | None:
    """The log that ends here as a bundle of its own, for whoever holds a receipt or a checkpoint of it."""
    if course.goes_on or found.log.note is None or found.log.signed is None:
        return None
    if beyond.size > found.log.signed.size:
        return wish.log  # it holds more of that log than the backup
    target = wish.old_log or wish.backup.with_suffix(".old-log.zip")
    vkey = verifier_of(services.keystore, found.log.origin, found.log.note).vkey
    with written_aside(target) as file:
        write_entries(file, found.log.note, vkey, _entries(archive, found.log.signed.size))
    return target


def _entries(archive: Archive, size: int) -> Iterator[list[bytes]]:
    page: list[bytes] = []
    for row in rows_of(archive, audit_log):
        if row["seq"] < size:
            page.append(row["canonical"].encode())
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _remember(services: Services, archive: Archive) -> None:
    """Give an empty state what the backup itself knows of erasures and spends (RULES 1: their union)."""
    states = ((row["subject_id"], row["state"]) for row in rows_of(archive, subjects))
    services.state.add_erased_keys(
        tombstone_of(subject) for subject, state in states if state != SubjectState.ACTIVE.value
    )
    for row in rows_of(archive, privacy_ledger):
        if row["status"] == LineStatus.SPENT.value:
            facts = (row["ledger_id"], row["model_id"], row["round_number"], row["mechanism"])
            services.state.add_spend(Spend(*facts))
