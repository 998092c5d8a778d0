"""The one transaction of a restore: rows through the sieve, the log to its end or a new beginning, and what to say."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, insert, select

from audit.checkpoint import SignedTree
from audit.draft import NOBODY
from audit.entry import FIRST_PREV, Draft, Entry, Outcome, place
from audit.events import EventType
from audit.store import LogRows, insert_rows
from audit.succession import succession_details
from audit.tables import audit_checkpoints
from audit.tree import rebuild, root
from compliance.subjects import SubjectState
from compliance.tables import subjects
from gateway.backup.archive import Archive
from gateway.backup.beyond import LateRound, entries_from
from gateway.backup.blobs import Progress
from gateway.backup.errors import Mismatch
from gateway.backup.reading import rows_of
from gateway.backup.rows import Row, main_tables
from gateway.backup.sieve import RESTORED, Failing, Sieve
from gateway.rounds.ledger import LineStatus
from gateway.rounds.record import RoundStatus
from gateway.services import Services
from gateway.storage.state import Spend
from gateway.tables import privacy_ledger, rounds

_ROWS_AT_ONCE = 500


class Fill:
    """Fills an empty database; whatever needs a key or a signature is made before the transaction begins (RULES 3)."""

    def __init__(
        self,
        services: Services,
        archive: Archive,
        sieve: Sieve,
        bundle: Path | None,
        *,
        erased_keys: int,
        blobs: int,
    ) -> None:
        self._services, self._archive, self._sieve, self._bundle = services, archive, sieve, bundle
        self._people = [self._person(one) for one in services.keystore.subjects() if one not in NOBODY]
        self._failed = [self._failure(failing) for failing in sieve.failures()]
        self._late_spends = list(sieve.late_spends())
        self.spends = len(self._late_spends) + sum(line in sieve.found.lines for line in sieve.spends)
        course = sieve.course
        self.replayed = max(0, course.size - sieve.found.log.size) if course.goes_on else 0
        self._restored = self._note(
            EventType.BACKUP_RESTORED,
            tables=len(main_tables()),
            rows=archive.manifest.rows,
            blobs=blobs,
            erased_keys=erased_keys,
            spends=self.spends,
            replayed=self.replayed,
            checkpoint_size=sieve.found.log.signed.size if sieve.found.log.signed else 0,
        )
        self._beginning = self._first_entry()

    def fill(self, conn: Connection, progress: Progress) -> int:
        """Write everything; the state ends an old log as the last thing before the commit. Returns the rows."""
        written = sum(self._table(conn, table, progress) for table in main_tables())
        self._services.crash("restore.rows")
        self._add_late(conn)
        self._set_sequences(conn)
        if self._sieve.course.goes_on:
            self._replay(conn)
        elif self._beginning is not None:
            insert_rows(conn, LogRows.of(self._beginning))
        self._services.trail.write(conn, *self._failed, self._restored)
        if (old := self._sieve.course.old) is not None:
            self._services.state.succeed(old, self._sieve.course.origin)
            self._services.crash("restore.succeeded")
        return written

    def _table(self, conn: Connection, table: Table, progress: Progress) -> int:
        kept = (self._sieve.pass_through(table, row) for row in rows_of(self._archive, table))
        written = 0
        for page in _pages(row for row in kept if row is not None):
            conn.execute(insert(table), page)
            written += len(page)
            progress(table.name, 0)
        return written

    def _add_late(self, conn: Connection) -> None:
        """People, spends and rounds that came after the backup, as far as key store, state and log know them."""
        now = self._sieve.now
        for page in _pages(iter(self._people)):
            ids = [row["subject_id"] for row in page]
            here = set(conn.scalars(select(subjects.c.subject_id).where(subjects.c.subject_id.in_(ids))))
            if new := [row for row in page if row["subject_id"] not in here]:
                conn.execute(insert(subjects), new)
        for spend in self._late_spends:
            conn.execute(insert(privacy_ledger).values(**_line(spend), created_at=now, updated_at=now))
        for late in self._sieve.late_rounds():
            conn.execute(insert(rounds).values(**_ended(late), completed_at=now))

    def _person(self, subject: str) -> Row:
        forbidden = self._services.keystore.is_forbidden(subject)
        state = SubjectState.ERASED if forbidden else SubjectState.ACTIVE
        return {"subject_id": subject, "state": state.value, "created_at": self._sieve.now}

    def _set_sequences(self, conn: Connection) -> None:
        """PostgreSQL's own numbers go on behind those that came in; SQLite looks at the rows."""
        if conn.dialect.name != "postgresql":
            return
        for table in main_tables():
            column = table.autoincrement_column
            if column is not None and column.autoincrement is not False:
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                highest = conn.scalar(select(func.max(column)))
                if conn.scalar(select(sequence)) and highest:
                    conn.execute(select(func.setval(sequence, highest)))

    def _replay(self, conn: Connection) -> None:
        """Append what the bundle has beyond the backup, and derive the tree from the leaves."""
        course, beyond, start = self._sieve.course, self._sieve.beyond, self._sieve.found.log.size
        if self.replayed and self._bundle is not None:
            for page in _pages(entries_from(self._bundle, start)):
                insert_rows(conn, LogRows.of(*page))
            newest = {beyond.signed: beyond.note} if beyond.signed else {}
            for tree, note in (beyond.rotations | newest).items():
                self._keep(conn, tree, note)
        rebuild(conn, course.size)
        if root(conn, course.size) != course.root:
            raise Mismatch("A file changed while it was read: nothing was restored")

    def _keep(self, conn: Connection, tree: SignedTree, note: str) -> None:
        """Store a checkpoint of the bundle that the backup has not."""
        known = select(audit_checkpoints.c.size).where(audit_checkpoints.c.size == tree.size)
        if conn.scalar(known) is None:
            facts = {"size": tree.size, "root": tree.root, "note": note}
            conn.execute(insert(audit_checkpoints).values(**facts, created_at=self._sieve.now))

    def _first_entry(self) -> Entry | None:
        """The beginning of a new log, which nothing may come before."""
        course = self._sieve.course
        if course.old is None:
            return None
        draft = self._note(EventType.LOG_SUCCEEDED, **succession_details(course.old, course.origin))
        return place(draft.body(), 0, FIRST_PREV)

    def _failure(self, failing: Failing) -> Draft:
        return self._services.trail.draft(
            EventType.ROUND_FAILED,
            resource=f"round/{failing.round_number}",
            outcome=Outcome.FAILURE,
            details={
                "round_number": failing.round_number,
                "reason": failing.reason,
                "spend_stays": failing.spend_stays,
                "count": failing.lost,
            },
        )

    def _note(self, event_type: EventType, **facts: str | int) -> Draft:
        return self._services.trail.draft(event_type, details=facts)


def _pages(rows: Iterator[Any]) -> Iterator[list[Any]]:
    for first in rows:
        yield [first, *islice(rows, _ROWS_AT_ONCE - 1)]


def _line(spend: Spend) -> Row:
    return {
        "ledger_id": spend.ledger_id,
        "model_id": spend.model_id,
        "round_number": spend.round_number,
        "status": LineStatus.SPENT.value,
        "mechanism": spend.mechanism,
    }


def _ended(late: LateRound) -> Row:
    """A round of which only the log knows: its number is taken, and that it failed is all there is to say of it."""
    planned = late.policy.get("planned_clients")
    return {
        "round_number": late.round_number,
        "status": RoundStatus.FAILED.value,
        "started_at": late.created_at,
        "global_model_version": late.base_version,
        "model_id": late.model_id,
        "policy": late.policy,
        "policy_hash": late.policy_hash,
        "training_config": {},
        "deadline": late.created_at,
        "planned_clients": planned if isinstance(planned, int) else 0,
        "min_clients": 0,
        "closing": True,
        "failure": RESTORED,
    }
