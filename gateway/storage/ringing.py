"""Rings the bell after each commit that wrote what somebody waits for, so that no writer has to think of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Engine, Table, event

from gateway.storage.bell import Bell, Channel

_TOUCHED = "flg_touched"
_DUE = "flg_due"
_WRITES = re.compile(r"(?:INSERT INTO|UPDATE) (\w+)")  # what is not a statement of SQLAlchemy is seen, too


def ring_after_commits(engine: Engine, bell: Bell, channels: Mapping[Table, Channel]) -> None:
    """Ring a table's channel once a transaction that inserted into it or changed it has been committed.

    The bell rings when the connection goes back to the pool, which is right after the commit of `engine.begin()`;
    a commit that failed may ring for nothing.

    Args:
        engine: the database.
        bell: what rings.
        channels: by table, who waits for its rows.
    """

    by_name = {table.name: channel for table, channel in channels.items()}

    def channel_of(statement: str) -> Channel | None:
        written = _WRITES.match(statement)
        return by_name.get(written[1]) if written else None

    @event.listens_for(engine, "after_cursor_execute")
    def _note(conn: Connection, _cursor: object, statement: str, *_: object) -> None:
        if channel := channel_of(statement):
            conn.info.setdefault(_TOUCHED, set()).add(channel)

    @event.listens_for(engine, "rollback")
    def _forget(conn: Connection) -> None:
        if not conn.invalidated:  # the notes went with the connection
            conn.info.pop(_TOUCHED, None)

    @event.listens_for(engine, "commit")
    def _committed(conn: Connection) -> None:
        touched = conn.info.pop(_TOUCHED, set())
        carried = getattr(conn.connection.driver_connection, "carried", tuple)
        touched.update(channel for statement in carried() if (channel := channel_of(statement)))
        if touched:
            conn.info.setdefault(_DUE, set()).update(touched)

    @event.listens_for(engine, "checkin")
    def _ring(_dbapi_connection: Any, record: Any) -> None:
        for channel in record.info.pop(_DUE, ()):
            bell.ring(channel)
