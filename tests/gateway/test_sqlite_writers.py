"""SQLite's one writer's place: who wants it waits for it, and is told when it does not come (RULES 3)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError, OperationalError

from gateway.storage import database
from gateway.storage.database import BUSY_TIMEOUT_MS, is_outage, open_engine


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    """A database with one table."""
    made = open_engine(sqlite_url)
    with made.begin() as conn:
        conn.execute(text("CREATE TABLE things (name TEXT)"))
    yield made
    made.dispose()


def test_writers_wait_for_each_other(engine: Engine) -> None:
    """Eight at once, each many times: nobody is refused, and every row is there."""

    def write(writer: int) -> None:
        for number in range(25):
            with engine.begin() as conn:
                conn.execute(text("INSERT INTO things VALUES (:name)"), {"name": f"{writer}-{number}"})

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    with engine.connect() as conn:
        assert conn.scalar(text("SELECT count(DISTINCT name) FROM things")) == 200


def test_who_waits_in_vain_is_told_as_by_any_outage(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy's error, as before; the connection goes back as it was."""
    with engine.begin():
        monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 40)
        with pytest.raises(OperationalError, match="locked") as refused, engine.begin():
            pytest.fail("there were two writers")
        monkeypatch.undo()

    assert is_outage(refused.value)
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO things VALUES ('afterwards')"))


def test_what_waits_inside_of_sqlite_has_its_ten_seconds_again(engine: Engine) -> None:
    """The short looks are those for the writer's place alone."""
    with engine.begin() as conn:
        assert conn.scalar(text("PRAGMA busy_timeout")) == BUSY_TIMEOUT_MS


def test_a_file_that_was_spoilt_is_told_at_once_as_any_error_of_the_database(
    engine: Engine, tmp_path: Path
) -> None:
    """Nobody waits for ten seconds, and the error is SQLAlchemy's: what catches those catches it."""
    kept = engine.raw_connection()
    for pragma in ("wal_checkpoint(TRUNCATE)", "shrink_memory"):  # nothing of it is in memory any more
        kept.cursor().execute(f"PRAGMA {pragma}")
    kept.close()
    (tmp_path / "fl-gateway.db").write_bytes(b"no database" * 500)

    began_s = time.monotonic()
    with pytest.raises(DatabaseError, match=r"not a database|malformed"), engine.begin():
        pytest.fail("it was opened")
    assert time.monotonic() - began_s < BUSY_TIMEOUT_MS / 1000
