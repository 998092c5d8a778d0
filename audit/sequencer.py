"""The sequencer: gives staged entries their places, and signs the tree that they form (RULES 3, 22, 23).

Commit the leaves, advance the signer's memory by compare-and-set, sign, publish: after a crash anywhere
the next run goes on from there. A tree that is smaller than, or not a continuation of, what was signed
before is refused for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from audit.checkpoint import NoteSigner, SignedTree
from audit.crash import CrashPoint, no_crash
from audit.entry import FIRST_PREV, Entry, parse_entry, place
from audit.errors import (
    AuditError,
    BadPending,
    LogForked,
    LogShrunk,
    NotSucceeded,
    OriginChanged,
    StateConflict,
    TilesDamaged,
)
from audit.reading import reading
from audit.store import StoredCheckpoint, entry_at, insert_entries, newest_checkpoint, tree_size
from audit.succession import succeeded_tree
from audit.tables import audit_checkpoints, audit_pending
from audit.tree import TileKey, TreeSource, grow, root, write_tiles

_LEADER = 0x666C_675F_7365_71  # PostgreSQL's advisory lock of the one sequencer


class CheckpointState(Protocol):
    """The signer's memory, outside the database and never restored (RULES 1, 23)."""

    def last_checkpoint(self) -> SignedTree | None:
        """The last tree that was, or was about to be, signed."""

    def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
        """Remember a larger tree; raises StateConflict if the last one is not the expected one."""

    def predecessor(self) -> SignedTree | None:
        """The last tree of the log that this one succeeds, or None if it is the first (RULES 20)."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries with their places, computed outside of the writing transaction."""

    size: int
    entries: list[Entry]
    tiles: dict[TileKey, list[bytes]]


class Sequencer:
    """Moves staged entries into the log, a batch a run; several may run, one at a time leads."""

    def __init__(
        self,
        engine: Engine,
        *,
        signer: NoteSigner,
        state: CheckpointState,
        clock: Callable[[], datetime],
        batch: int = 500,
        crash: CrashPoint = no_crash,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._state = state
        self._clock = clock
        self.batch = batch
        self._crash = crash
        self._sure_of: SignedTree | None = None  # the last tree whose history this process has checked

    def run_once(self) -> int:
        """Sequence up to one batch, sign and publish; returns how many entries got their place.

        It first finishes what a crash left. An idle run reads three rows.

        Raises:
            LogShrunk, LogForked, OriginChanged: the log is not a continuation of what was signed.
            BadPending: a staged entry is malformed; somebody wrote it past `audit.store.stage`.
        """
        self._sign_if_needed()
        with reading(self._engine) as conn:
            batch = self._prepare(conn)
        if batch is None or not self._commit(batch):
            return 0
        self._crash("sequencer.batch")
        self._sign_if_needed()
        return len(batch.entries)

    def _prepare(self, conn: Connection) -> _Batch | None:
        """The next batch: every pending row, oldest first, whatever was read before (RULES 22)."""
        query = select(audit_pending.c.id, audit_pending.c.body)
        order = (audit_pending.c.created_at, audit_pending.c.id)
        size = tree_size(conn)  # before the rows: whoever takes them from us meanwhile moves it
        rows = conn.execute(query.order_by(*order).limit(self.batch)).all()
        if not rows:
            return None
        last = entry_at(conn, size - 1) if size else None
        prev = last.leaf.hex() if last else FIRST_PREV
        entries: list[Entry] = []
        leaves: list[bytes] = []
        for row in rows:
            entry = _placed(row.id, row.body, size + len(entries), prev)
            leaves.append(entry.leaf())
            entries.append(entry)
            prev = leaves[-1].hex()
        return _Batch(size, entries, grow(TreeSource(conn, size), size, leaves))

    def _commit(self, batch: _Batch) -> bool:
        """Write a batch in one transaction, unless another sequencer leads or was faster."""
        ids = [entry.id for entry in batch.entries]
        with self._engine.begin() as conn:
            if not _leads(conn) or tree_size(conn) != batch.size:
                return False
            insert_entries(conn, batch.entries)
            write_tiles(conn, batch.tiles)
            conn.execute(delete(audit_pending).where(audit_pending.c.id.in_(ids)))
        return True

    def _sign_if_needed(self) -> None:
        """Sign and publish the whole log, if it grew since it was last signed and published."""
        last = self._state.last_checkpoint()
        with reading(self._engine) as conn:
            tree, published = self._grown_tree(conn, last)
        if tree is None:
            return
        if tree != last:
            try:
                self._state.advance_checkpoint(last, tree)
            except StateConflict:
                return  # another sequencer signs this tree, or a larger one
        if published is None or published.size < tree.size:
            self._publish(tree, self._signer.sign(tree.size, tree.root))
        self._sure_of = tree

    def _grown_tree(
        self, conn: Connection, last: SignedTree | None
    ) -> tuple[SignedTree | None, StoredCheckpoint | None]:
        """The tree to sign, checked against everything that was signed before; None if there is none."""
        published = newest_checkpoint(conn)
        size = tree_size(conn)
        if last and last.origin != self._signer.origin:
            raise OriginChanged(last.origin, self._signer.origin)
        signed_sizes = [last.size if last else 0, published.size if published else 0]
        if size < max(signed_sizes):
            raise LogShrunk(size, max(signed_sizes))
        if size == 0 or (last == self._sure_of and signed_sizes == [size, size]):
            return None, published
        if last is None and (old := self._state.predecessor()) and succeeded_in(conn) != old:
            raise NotSucceeded(old.origin)
        for known in (last, published):
            if known and _root(conn, known.size) != known.root:
                raise LogForked(known.size)
        return SignedTree(self._signer.origin, size, _root(conn, size)), published

    def _publish(self, tree: SignedTree, note: str) -> None:
        row = {"size": tree.size, "root": tree.root, "note": note, "created_at": self._clock()}
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(audit_checkpoints).values(row))
        except IntegrityError:
            with reading(self._engine) as conn:
                taken = select(audit_checkpoints.c.root).where(audit_checkpoints.c.size == tree.size)
                if conn.scalar(taken) != tree.root:
                    raise LogForked(tree.size) from None


def _root(conn: Connection, size: int) -> bytes:
    """The root from the stored hashes; a missing entry among them means that the log was rewritten."""
    try:
        return root(conn, size)
    except TilesDamaged as damage:
        if damage.level == 0:
            raise LogForked(size) from None
        raise


def _placed(entry_id: str, body: str, seq: int, prev: str) -> Entry:
    try:
        entry = place(body.encode(), seq, prev)
    except AuditError as error:
        raise BadPending(entry_id, str(error)) from None
    if entry.id != entry_id:
        raise BadPending(entry_id, "it bears another id")
    return entry


def succeeded_in(conn: Connection) -> SignedTree | None:
    """What the first entry says of a log before this one."""
    first = entry_at(conn, 0)
    return succeeded_tree(parse_entry(first.canonical)) if first else None


def _leads(conn: Connection) -> bool:
    """Whether this transaction is the one sequencer; SQLite has one writer anyway."""
    if conn.dialect.name != "postgresql":
        return True
    return bool(conn.scalar(select(func.pg_try_advisory_xact_lock(_LEADER))))


__all__ = ["CheckpointState", "Sequencer", "SignedTree", "no_crash"]
