"""Connections that single look-ups keep for themselves: without pool, transaction or ping, with prepared statements.

A handful beside the engine's pool, opened by it with all its settings, and closed with it (decision 0165).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from sqlite3 import Connection as SqliteConnection
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, event

MOST = 4  # the look is short: more threads than these rarely wait for an answer at the same time
KEPT_S = 1800.0
Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Question:
    """A SELECT of at most one row by one parameter, in the driver's own words.

    Args:
        name: tells it from all others in this process.
        sql: `?` stands for the parameter on SQLite, `$1` on PostgreSQL.
    """

    name: bytes
    sql: str


class AllBusy(Exception):
    """Every connection of look-ups is in use."""


class Asker(Protocol):
    """A connection that answers questions."""

    def ask(self, question: Question, value: str) -> Row | None:
        """The row, its values as the driver gives them."""

    def close(self) -> None:
        """Close the connection."""


class _OnSqlite:
    """SQLite's driver keeps its statements prepared by itself."""

    def __init__(self, connection: SqliteConnection) -> None:
        self._connection = connection
        self.close = connection.close

    def ask(self, question: Question, value: str) -> Row | None:
        cursor = self._connection.execute(question.sql, (value,))
        found: Row | None = cursor.fetchone()
        cursor.close()  # or the database would be read on
        return found


@dataclass(slots=True)
class _Place:
    """A connection, opened at its first use and now and then anew, as those of the pool are."""

    asker: Asker | None = None
    until_s: float = 0.0

    def ask(self, engine: Engine, question: Question, value: str) -> Row | None:
        if self.asker is None or time.monotonic() > self.until_s:
            self.close()
            self.asker, self.until_s = _open(engine), time.monotonic() + KEPT_S
        return self.asker.ask(question, value)

    def close(self) -> None:
        asker, self.asker = self.asker, None
        if asker is not None:
            asker.close()


class OwnConnections:
    """What an engine's look-ups share: the one used last is used next; what failed, and what is older, is not again."""

    def __init__(self) -> None:
        self._free = [_Place() for _ in range(MOST)]
        self._is_closed = False

    def ask(self, engine: Engine, question: Question, value: str) -> Row | None:
        """The row.

        Raises:
            AllBusy: nothing was asked.
        """
        try:
            place = self._free.pop()
        except IndexError:
            raise AllBusy from None
        try:
            return place.ask(engine, question, value)
        except BaseException:  # nobody knows what state it is in
            place.close()
            for other in [*self._free]:  # what cut this one may have cut those, too
                other.until_s = 0.0
            raise
        finally:
            self._free.append(place)
            if self._is_closed:
                self.close()

    def close(self) -> None:
        """Close those that are free now, and each other one after its use."""
        self._is_closed = True
        with suppress(IndexError):  # two may close at the same time
            while self._free:
                self._free.pop().close()


_OF: WeakKeyDictionary[Engine, OwnConnections] = WeakKeyDictionary()
_LEFT: list[object] = []
_making = threading.Lock()


def own_connections(engine: Engine) -> OwnConnections:
    """Those of an engine."""
    found = _OF.get(engine)
    if found is None:
        with _making:
            found = _OF.setdefault(engine, OwnConnections())
    return found


def _open(engine: Engine) -> Asker:
    """A connection that the pool has opened and does not know any more."""
    conn = engine.connect()
    connection: Any = conn.connection.driver_connection
    conn.detach()
    if engine.dialect.name == "sqlite":
        return _OnSqlite(connection)
    from gateway.storage.postgres_asking import OnPostgresql  # an embedded gateway need not load psycopg

    return OnPostgresql(connection)


@event.listens_for(Engine, "engine_disposed")
def _close_with(engine: Engine) -> None:
    if (own := _OF.pop(engine, None)) is not None:
        own.close()


def _leave_to_parent() -> None:
    """After a fork the parent's connections are neither used nor closed here: both would disturb the parent."""
    global _making  # another thread of the parent may have held it, and will never let go of it here
    _making = threading.Lock()
    _LEFT.append(list(_OF.values()))
    _OF.clear()


os.register_at_fork(after_in_child=_leave_to_parent)
