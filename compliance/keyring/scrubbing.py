"""Leaves no deleted key in the database's own files: SQLite's write-ahead log, PostgreSQL's dead rows."""

from __future__ import annotations

from sqlalchemy import Engine, text

_TRIES = 3


def scrub(engine: Engine, table: str) -> bool:
    """Drop deleted rows of a table from disk; False where readers kept SQLite from it (ask again later).

    The pages themselves are zeroed by `PRAGMA secure_delete`; this empties the log that still has them.
    """
    match engine.dialect.name:
        case "sqlite":
            return _truncate_log(engine)
        case "postgresql":
            _run_outside_transactions(engine, f"VACUUM {table}")
    return True


def empty_write_ahead_log(engine: Engine) -> bool:
    """Drop from disk what SQLite's write-ahead log still has of deleted rows; False where readers kept it from that.

    PostgreSQL drops them at its next vacuum; what lies in them until then is sealed, and its keys are destroyed.
    """
    return engine.dialect.name != "sqlite" or _truncate_log(engine)


def _truncate_log(engine: Engine) -> bool:
    return any(_checkpoint(engine) for _ in range(_TRIES))


def _checkpoint(engine: Engine) -> bool:
    raw = engine.raw_connection()  # a checkpoint cannot run inside a transaction, and `connect` begins one
    try:
        cursor = raw.cursor()
        busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        cursor.close()
    finally:
        raw.close()
    return bool(busy == 0)


def _run_outside_transactions(engine: Engine, statement: str) -> None:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text(statement))
