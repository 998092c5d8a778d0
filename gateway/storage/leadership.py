"""One process leads, the others stand by: a session lock on PostgreSQL, a locked file beside an SQLite database.

The lock ends with its session or process, however that ends. A leader that is only halted keeps the lead; who takes
over after it must be safe beside it, by the rows' own locks (RULES 5, 8).
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import threading
from pathlib import Path
from typing import IO, Any, Protocol

import psycopg
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from gateway.storage.database import own_session

log = logging.getLogger(__name__)


class _Lock(Protocol):
    def is_held(self) -> bool:
        """Whether the lock is ours, now or still."""

    def release(self) -> None:
        """Give it up."""


class Leadership:
    """The lead of one task; safe for threads, of which all lead or none.

    Args:
        engine: the main database.
        name: the task, the same in every process.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._name = name
        self._guard = threading.Lock()
        self._lock: _Lock = (
            _SessionLock(engine, name) if engine.dialect.name == "postgresql" else _FileLock(engine, name)
        )
        self._led = False

    def leads(self) -> bool:
        """Take the lead or keep it; False if another process has it or the database is away. It never waits for it."""
        with self._guard:
            leads = self._lock.is_held()
            if leads is not self._led:
                log.info("%s: this process %s", self._name, "leads" if leads else "does not lead any more")
            self._led = leads
            return leads

    def close(self) -> None:
        """Let another process lead."""
        with self._guard:
            self._lock.release()
            self._led = False


class _SessionLock:
    """PostgreSQL's advisory lock, held by a connection of its own for as long as that lives."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        digest = hashlib.sha256(f"fl-gateway {name}".encode()).digest()
        self._key = int.from_bytes(digest[:8], "big", signed=True)
        self._session: psycopg.Connection[Any] | None = None

    def is_held(self) -> bool:
        try:
            return self._is_alive(self._session) if self._session else self._take()
        except (SQLAlchemyError, psycopg.Error) as error:
            log.warning("the lead cannot be known: the database is away (%s)", type(error).__name__)
            self.release()
            return False

    def release(self) -> None:
        session, self._session = self._session, None
        if session:
            session.close()

    def _is_alive(self, session: psycopg.Connection[Any]) -> bool:
        session.execute("SELECT 1")  # a session that answers still has its locks
        return True

    def _take(self) -> bool:
        self._session = own_session(self._engine)
        row = self._session.execute("SELECT pg_try_advisory_lock(%s)", (self._key,)).fetchone()
        if row != (True,):
            self.release()
        return self._session is not None


class _FileLock:
    """A locked file beside an SQLite database."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._path = Path(f"{engine.url.database}.{name}.lock")
        self._file: IO[bytes] | None = None

    def is_held(self) -> bool:
        if self._file is None:
            file = self._path.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                return False
            self._file = file
        return True

    def release(self) -> None:
        file, self._file = self._file, None
        if file:
            file.close()
