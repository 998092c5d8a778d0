"""Reads a backup through once before anything of it is used: every digest, every row, the whole of its log.

What a restore has to know beforehand is noted on the way: who was erased since, which rounds were open.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from sqlalchemy import Table

from audit.checkpoint import SignedTree, parse_checkpoint, parse_note
from audit.entry import FIRST_PREV, parse_entry
from audit.errors import AuditError
from audit.merkle import EMPTY_ROOT, CompactRange
from audit.tables import audit_log, audit_pending
from compliance.keyring.keys import tombstone_of
from compliance.tables import privacy_requests, subjects
from gateway.backup.archive import BLOB_BYTES, BLOB_LIST, Archive, table_member
from gateway.backup.blobs import Progress, blob_of, each_blob
from gateway.backup.errors import BadBackup
from gateway.backup.rows import Row, decode, main_tables
from gateway.backup.writing import silent
from gateway.rounds.record import OPEN_STATUSES
from gateway.tables import client_updates, clients, models, privacy_ledger, rounds, users

_PIECE_BYTES = 1 << 20
_NAME = re.compile(r"[0-9a-f]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class StoredLog:
    """The log in a backup: how long it is, its roots at the sizes asked for, and the checkpoint that was in force."""

    origin: str
    size: int
    roots: dict[int, bytes]
    note: str | None
    signed: SignedTree | None


@dataclass(slots=True)
class Findings:
    """What was seen in a backup."""

    log: StoredLog
    gone_subjects: set[str] = field(default_factory=set)
    gone_clients: set[str] = field(default_factory=set)
    gone_users: set[str] = field(default_factory=set)
    gone_blobs: set[str] = field(default_factory=set)
    pending: set[str] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    lines: set[str] = field(default_factory=set)
    round_numbers: set[int] = field(default_factory=set)
    open_rounds: list[Row] = field(default_factory=list)


def rows_of(archive: Archive, table: Table) -> Iterator[Row]:
    """The rows of a table, in the order of its key; raises BadBackup."""
    for line in archive.lines(table_member(table.name)):
        yield decode(table, line)


def read_through(
    archive: Archive, erased: Collection[str], sizes: Collection[int], progress: Progress = silent
) -> Findings:
    """Check everything in a backup of the database.

    Args:
        archive: the backup.
        erased: the erased key ids of the state, which hold a tombstone for each erased person.
        sizes: the sizes of the log at which its root is wanted.
        progress: hears how far it is.

    Raises:
        BadBackup: it is not whole, or its log is not.
    """
    _insist_tables(archive, main_tables())
    signed = _signed(archive)
    found = Findings(StoredLog(archive.manifest.origin, 0, {}, archive.manifest.checkpoint, signed))
    walk = _LogWalk({*sizes, 0, *([signed.size] if signed else [])})
    look = _looks(found, erased)
    for table in main_tables():
        progress(table.name, 0)
        for row in rows_of(archive, table):
            if table is audit_log:
                walk.take(row)
            elif table in look:
                look[table](row)
    roots = walk.roots | {walk.tree.size: walk.tree.root()}
    found.log = StoredLog(found.log.origin, walk.tree.size, roots, found.log.note, signed)
    _insist_signed(found.log)
    for _ in each_blob(archive, None, progress):
        pass
    return found


def _insist_tables(archive: Archive, tables: Collection[Table]) -> None:
    wanted = {table_member(table.name) for table in tables}
    if archive.manifest.members.keys() - {BLOB_BYTES, BLOB_LIST} != wanted:
        raise BadBackup(
            f"the backup, made by version {archive.manifest.gateway}, has other tables than this version: "
            "restore it with that version, then migrate"
        )


def _signed(archive: Archive) -> SignedTree | None:
    note = archive.manifest.checkpoint
    try:
        tree = parse_checkpoint(parse_note(note).text) if note else None
    except AuditError:
        raise BadBackup("the backup's checkpoint cannot be read") from None
    if tree and tree.origin != archive.manifest.origin:
        raise BadBackup("the backup's checkpoint is of another log than the backup")
    return tree


def _insist_signed(log: StoredLog) -> None:
    if log.signed and log.roots.get(log.signed.size) != log.signed.root:
        raise BadBackup("the log in the backup is not the one that its checkpoint signed")


class _LogWalk:
    """The log, entry by entry: chain, places, leaves."""

    def __init__(self, sizes: set[int]) -> None:
        self._sizes = sizes
        self._prev = FIRST_PREV
        self.tree = CompactRange()
        self.roots = {0: EMPTY_ROOT}

    def take(self, row: Row) -> None:
        """Check the next entry."""
        try:
            entry = parse_entry(row["canonical"].encode())
        except AuditError:
            entry = None
        told = (row["seq"], row["id"], row["leaf_hash"])
        if entry is None or (entry.seq, entry.id, entry.leaf()) != told or entry.prev != self._prev:
            raise BadBackup(f"the log in the backup breaks at seq {row['seq']}")
        if entry.seq != self.tree.size:
            raise BadBackup(f"the log in the backup lacks the entry {self.tree.size}")
        self.tree.append(entry.leaf())
        self._prev = entry.leaf().hex()
        if self.tree.size in self._sizes:
            self.roots[self.tree.size] = self.tree.root()


def _looks(found: Findings, erased: Collection[str]) -> dict[Table, Callable[[Row], object]]:
    def is_gone(subject: str) -> bool:
        return tombstone_of(subject) in erased

    def see_subject(row: Row) -> None:
        if is_gone(row["subject_id"]):
            found.gone_subjects.add(row["subject_id"])

    def see_client(row: Row) -> None:
        if is_gone(row["subject_id"]):
            found.gone_clients.add(row["client_id"])

    def see_user(row: Row) -> None:
        if is_gone(row["subject_id"]):
            found.gone_users.add(row["user_id"])

    def see_blob(table: Table, is_theirs: Callable[[Row], bool]) -> Callable[[Row], None]:
        def see(row: Row) -> None:
            if is_theirs(row) and (name := blob_of(table, row)) is not None:
                found.gone_blobs.add(name)

        return see

    def see_round(row: Row) -> None:
        found.round_numbers.add(row["round_number"])
        if row["status"] in OPEN_STATUSES:
            found.open_rounds.append(row)

    return {
        subjects: see_subject,
        clients: see_client,  # before the tables that refer to it
        users: see_user,
        client_updates: see_blob(client_updates, lambda row: row["client_id"] in found.gone_clients),
        privacy_requests: see_blob(privacy_requests, lambda row: is_gone(row["subject_id"])),
        audit_pending: lambda row: found.pending.add(row["id"]),
        models: lambda row: found.models.add(row["model_id"]),
        privacy_ledger: lambda row: found.lines.add(row["ledger_id"]),
        rounds: see_round,
    }
