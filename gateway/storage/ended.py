"""Says after each commit which tokens it ended, so that nobody who ends one has to think of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Engine, event

from gateway.storage.epochs import Endings

_NOTED = "flg_ended"
_DUE = "flg_ended_due"
_EVERY = ""


def note_ended(conn: Connection, keys: Iterable[str]) -> None:
    """Remember, until this transaction commits, that it ends the tokens under these keys."""
    conn.info.setdefault(_NOTED, set()).update(keys)


def note_every_ended(conn: Connection) -> None:
    """Remember that it ends tokens that nobody has listed, such as all of a client that is suspended."""
    note_ended(conn, [_EVERY])


def tell_after_commits(engine: Engine, endings: Endings) -> None:
    """Tell of what a transaction ended once it is committed: when its connection goes back to the pool."""

    @event.listens_for(engine, "rollback")
    def _forget(conn: Connection) -> None:
        if not conn.invalidated:  # the notes went with the connection
            conn.info.pop(_NOTED, None)

    @event.listens_for(engine, "commit")
    def _committed(conn: Connection) -> None:
        if noted := conn.info.pop(_NOTED, None):
            conn.info.setdefault(_DUE, set()).update(noted)

    @event.listens_for(engine, "checkin")
    def _tell(_dbapi_connection: Any, record: Any) -> None:
        keys = record.info.pop(_DUE, None)
        if keys and _EVERY in keys:
            endings.tell_of_every()
        elif keys:
            endings.tell(keys)
