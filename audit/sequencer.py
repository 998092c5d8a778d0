"""The sequencer: gives staged entries their places, and signs the tree that they form (RULES 3, 22, 23).

Commit the leaves, advance the signer's memory by compare-and-set, sign, publish: after a crash anywhere
the next run goes on from there. A tree that is smaller than, or not a continuation of, what was signed
before is refused for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection, Engine, Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from audit.checkpoint import LogSigner, SignedTree
from audit.crash import CrashPoint, no_crash
from audit.entry import FIRST_PREV, parse_entry
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
from audit.merkle import leaf_hash, root_hash
from audit.reading import reading
from audit.staged import Placed, placed
from audit.store import (
    LogRows,
    StoredCheckpoint,
    delete_pending,
    entry_at,
    insert_rows,
    newest_checkpoint,
    tree_size,
)
from audit.succession import succeeded_tree
from audit.tables import audit_checkpoints, audit_pending
from audit.tree import TreeSource, grow
from audit.tree_rows import TileKey, write_rows

_LEADER = 0x666C_675F_7365_71  # PostgreSQL's advisory lock of the one sequencer
_INDEXED_LENGTH = 64  # of the columns that PostgreSQL holds them in
_BEHIND = 4  # times the batch: fewer signatures and syncs for each entry


class CheckpointState(Protocol):
    """The signer's memory, outside the database and never restored (RULES 1, 23)."""

    def last_checkpoint(self) -> SignedTree | None:
        """The last tree that was, or was about to be, signed."""

    def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
        """Remember a larger tree; raises StateConflict if the last one is not the expected one."""

    def predecessor(self) -> SignedTree | None:
        """The last tree of the log that this one succeeds, or None if it is the first (RULES 20)."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at the state and the database found: nothing in it is trusted after the next commit of a rival."""

    last: SignedTree | None
    published: StoredCheckpoint | None
    source: TreeSource
    tree: SignedTree
    pending: Sequence[Row[str, str]]

    @property
    def is_signed(self) -> bool:
        """Whether the whole log was signed, remembered and published."""
        known = (self.last.size if self.last else 0, self.published.size if self.published else 0)
        return known == (self.tree.size, self.tree.size)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Entries with their places, computed outside of the writing transaction."""

    size: int
    ids: Sequence[str]
    rows: LogRows
    tiles: Mapping[TileKey, bytes]
    tree: SignedTree
    peaks: Sequence[bytes]


class Sequencer:
    """Moves staged entries into the log, a batch a run; several may run, and no two can extend the same tree.

    Args:
        engine: the database, as a role that may write the log.
        signer: the log's key.
        state: the signer's memory.
        clock: dates checkpoints.
        batch: how many entries a run takes; four times as many while more than that are waiting.
        crash: where tests kill it.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        signer: LogSigner,
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
        self._at_once = batch
        self._crash = crash
        self._sure_of: SignedTree | None = None  # the last tree whose history this process has checked

    def run_once(self) -> int:
        """Sequence up to one batch, sign and publish; returns how many entries got their place.

        It first finishes what a crash left. An idle run reads three rows.

        Raises:
            LogShrunk, LogForked, OriginChanged: the log is not a continuation of what was signed.
            BadPending: a staged entry is malformed; somebody wrote it past `audit.store.stage`.
        """
        seen = self._look()
        if seen is None:
            return 0
        if not seen.is_signed:
            self._sign(seen.last, seen.published, seen.tree, seen.source.peaks())
        if not seen.pending:
            return 0
        batch = self._batch(seen)
        if not self._commit(batch):
            return 0
        self._crash("sequencer.batch")
        self._sign(seen.tree if seen.tree.size else None, seen.published, batch.tree, batch.peaks)
        self._at_once = self.batch * (_BEHIND if len(seen.pending) == self._at_once else 1)
        return len(seen.pending)

    def _look(self) -> _Seen | None:
        """What there is to sign and to sequence, checked against everything signed before; None if nothing is."""
        last = self._state.last_checkpoint()
        with reading(self._engine) as conn:
            published = newest_checkpoint(conn, cosigned=False)
            size = tree_size(conn)  # before the rows: whoever takes them from us meanwhile moves it
            pending = self._pending(conn)
            sizes = (last.size if last else 0, published.size if published else 0)
            self._check_size(size, last, max(sizes))
            if not pending and (size == 0 or (last == self._sure_of and sizes == (size, size))):
                return None
            if last is None and (old := self._state.predecessor()) and succeeded_in(conn) != old:
                raise NotSucceeded(old.origin)
            source = TreeSource(conn, size)
            tree = SignedTree(self._signer.origin, size, _checked_root(source, size, last, published))
            self._sure_of = tree
        return _Seen(last, published, source, tree, pending)

    def _pending(self, conn: Connection) -> Sequence[Row[str, str]]:
        """Rows of the next batch, oldest first, whatever was read before (RULES 22)."""
        query = select(audit_pending.c.id, audit_pending.c.body)
        order = (audit_pending.c.created_at, audit_pending.c.id)
        return conn.execute(query.order_by(*order).limit(self._at_once)).all()

    def _check_size(self, size: int, last: SignedTree | None, signed_size: int) -> None:
        if last and last.origin != self._signer.origin:
            raise OriginChanged(last.origin, self._signer.origin)
        if size < signed_size:
            raise LogShrunk(size, signed_size)

    def _batch(self, seen: _Seen) -> _Batch:
        """The pending entries in their places, and the tree that they make."""
        size = seen.tree.size
        prev = seen.source.node(0, size - 1).hex() if size else FIRST_PREV
        rows, leaves = LogRows(), list[bytes]()
        for seq, row in enumerate(seen.pending, size):
            entry = _placed(row.id, row.body, seq, prev)
            leaf = leaf_hash(entry.canonical)
            leaves.append(leaf)
            rows.add(entry, leaf)
            prev = leaf.hex()
        growth = grow(seen.source, size, leaves)
        tree = SignedTree(self._signer.origin, size + len(leaves), growth.root)
        return _Batch(size, [row.id for row in seen.pending], rows, growth.tiles, tree, growth.peaks)

    def _commit(self, batch: _Batch) -> bool:
        """Write a batch in one transaction, unless another sequencer leads or was faster."""
        with self._engine.begin() as conn:
            if not _leads(conn) or tree_size(conn) != batch.size:
                return False
            insert_rows(conn, batch.rows)
            write_rows(conn, batch.tiles)
            delete_pending(conn, batch.ids)
        return True

    def _sign(
        self,
        last: SignedTree | None,
        published: StoredCheckpoint | None,
        tree: SignedTree,
        peaks: Sequence[bytes],
    ) -> None:
        """Remember, sign and publish a tree that was checked, or grew out of one that was."""
        if tree != last:
            try:
                self._state.advance_checkpoint(last, tree)
            except StateConflict:
                return  # another sequencer signs this tree, or a larger one
        if published is None or published.size < tree.size:
            self._publish(tree, peaks, self._signer.sign(tree.size, tree.root))
        self._sure_of = tree

    def _publish(self, tree: SignedTree, peaks: Sequence[bytes], note: str) -> None:
        known = {"size": tree.size, "root": tree.root, "peaks": b"".join(peaks)}
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(audit_checkpoints).values(**known, note=note, created_at=self._clock()))
        except IntegrityError:
            with reading(self._engine) as conn:
                taken = select(audit_checkpoints.c.root).where(audit_checkpoints.c.size == tree.size)
                if conn.scalar(taken) != tree.root:
                    raise LogForked(tree.size) from None


def _checked_root(source: TreeSource, size: int, *known: SignedTree | StoredCheckpoint | None) -> bytes:
    """The root of the stored hashes, which must also give every root that is known; O(log n).

    A missing entry among the hashes means that the log was rewritten.
    """
    try:
        source.load_edge()
        for tree in known:
            if tree and root_hash(source, tree.size) != tree.root:
                raise LogForked(tree.size)
        return root_hash(source, size)
    except TilesDamaged as damage:
        if damage.level == 0:
            raise LogForked(size) from None
        raise


def _placed(entry_id: str, body: object, seq: int, prev: str) -> Placed:
    if not isinstance(body, str):
        raise BadPending(entry_id, "its body is not a text")  # SQLite keeps bytes in a column of texts, too
    try:
        entry = placed(body, seq, prev)
    except AuditError as error:
        raise BadPending(entry_id, str(error)) from None
    if entry.id != entry_id:
        raise BadPending(entry_id, "it bears another id")
    indexed = (entry.event_type, *entry.key_ids)
    if max(map(len, indexed)) > _INDEXED_LENGTH or "\0" in "".join(indexed):
        raise BadPending(entry_id, "its event type or the id of a key does not fit into a column of the log")
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
