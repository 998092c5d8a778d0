"""What a witness remembers of each log: the last tree it cosigned, and what it refused as evidence.

One SQLite file. A step is a compare-and-set in one transaction that is on the disk before the cosignature
leaves; several processes and threads may share the file, and only one of two that know the same tree moves on.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from audit.checkpoint import SignedTree
from audit.merkle import EMPTY_ROOT
from audit.witness.errors import MemoryLost, MemoryUnusable, SizeConflict

_PATIENCE_S = 10.0
_MOST_REFUSED = 1000  # of one log and kind: what anybody can send must leave room for what proves a fork
_SCHEMA = """
CREATE TABLE witness (name TEXT NOT NULL);
CREATE TABLE logs (
    origin TEXT PRIMARY KEY, size INTEGER NOT NULL, root BLOB NOT NULL, note TEXT NOT NULL,
    cosigned_at INTEGER NOT NULL
);
CREATE TABLE refused (
    origin TEXT NOT NULL, size INTEGER NOT NULL, root BLOB NOT NULL, why TEXT NOT NULL, at INTEGER NOT NULL,
    cosigned TEXT NOT NULL, note TEXT NOT NULL, PRIMARY KEY (origin, size, root)
);
"""
_REFUSE = """
INSERT INTO refused VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (origin, size, root) DO UPDATE
SET why = excluded.why, at = excluded.at, cosigned = excluded.cosigned, note = excluded.note
WHERE why <> excluded.why  -- it was ahead of its time, and is now one of two trees of one size
"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A checkpoint that its log signed and that was not cosigned, beside the last one that was."""

    origin: str
    why: str
    at: datetime
    cosigned: str
    refused: str


class Memory:
    """The memory in a file that was made by `create`.

    Raises:
        MemoryLost: the file is not there, or is empty.
        MemoryUnusable: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.exists():
            raise MemoryLost
        with self._opened() as db:
            if db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'logs'").fetchone() == (0,):
                raise MemoryLost
            (self.name,) = db.execute("SELECT name FROM witness").fetchone()

    @classmethod
    def create(cls, path: Path, name: str) -> Memory:
        """An empty memory of a new witness of this name; whole, or not there. One that is there stays."""
        aside = path.with_name(f".{path.name}.{uuid4().hex}")
        os.close(os.open(aside, os.O_CREAT | os.O_EXCL, 0o600))
        try:
            with closing(sqlite3.connect(aside)) as db:
                db.executescript(f"PRAGMA synchronous = EXTRA; BEGIN; {_SCHEMA}")
                db.execute("INSERT INTO witness VALUES (?)", (name,))
                db.commit()
            with suppress(FileExistsError):
                path.hardlink_to(aside)
        except (sqlite3.Error, OSError) as error:
            raise MemoryUnusable(f"the memory cannot be made: {type(error).__name__}") from None
        finally:
            aside.unlink(missing_ok=True)
        return cls(path)

    def last(self, origin: str) -> SignedTree:
        """The last tree of this log that was cosigned; the empty tree if there is none yet."""
        with self._opened() as db:
            return _last(db, origin)

    def advance(self, known: SignedTree, new: SignedTree, note: str, now: datetime) -> datetime:
        """Remember a larger tree (or the same again), if `known` is still the last; returns when that was.

        The times never go back, whatever the clock does: a later cosignature tells of no smaller tree.

        Raises:
            SizeConflict: another request was faster.
            MemoryUnusable: it is not on the disk.
        """
        with self._opened() as db:
            db.execute("BEGIN IMMEDIATE")
            if _last(db, new.origin) != known:
                raise SizeConflict(_last(db, new.origin).size)
            row = db.execute("SELECT size, cosigned_at FROM logs WHERE origin = ?", (new.origin,)).fetchone()
            at = max(int(now.timestamp()), row[1] if row else 0)
            if row != (new.size, at):
                db.execute(
                    "INSERT OR REPLACE INTO logs VALUES (?, ?, ?, ?, ?)",
                    (new.origin, new.size, new.root, note, at),
                )
            db.execute("COMMIT")
        return datetime.fromtimestamp(at, UTC)

    def refuse(self, tree: SignedTree, note: str, why: str, now: datetime) -> None:
        """Keep a checkpoint that its log signed although it does not continue the last one, with that one."""
        with self._opened() as db:
            db.execute("BEGIN IMMEDIATE")
            count = "SELECT count(*) FROM refused WHERE origin = ? AND why = ?"
            (kept,) = db.execute(count, (tree.origin, why)).fetchone()
            cosigned = db.execute("SELECT note FROM logs WHERE origin = ?", (tree.origin,)).fetchone()
            if kept < _MOST_REFUSED and cosigned:
                at = int(now.timestamp())
                row = (tree.origin, tree.size, tree.root, why, at, cosigned[0], note)
                db.execute(_REFUSE, row)
            db.execute("COMMIT")

    def refused(self) -> list[Refused]:
        """What was kept as evidence, the oldest first."""
        with self._opened() as db:
            rows = db.execute("SELECT origin, why, at, cosigned, note FROM refused ORDER BY at, rowid")
            return [
                Refused(origin, why, datetime.fromtimestamp(at, UTC), cosigned, note)
                for origin, why, at, cosigned, note in rows
            ]

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own for each step: threads share none. What is not committed is rolled back."""
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=rw"
            opened = sqlite3.connect(uri, uri=True, timeout=_PATIENCE_S, isolation_level=None)
            with closing(opened) as db:
                db.execute("PRAGMA synchronous = EXTRA")
                yield db
        except sqlite3.Error as error:
            raise MemoryUnusable(f"the memory cannot be used now: {type(error).__name__}") from None


def _last(db: sqlite3.Connection, origin: str) -> SignedTree:
    row = db.execute("SELECT size, root FROM logs WHERE origin = ?", (origin,)).fetchone()
    return SignedTree(origin, row[0], bytes(row[1])) if row else SignedTree(origin, 0, EMPTY_ROOT)
