"""Staging and reading, and what the database itself refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from logbook import ALICE, BOB, Logbook, entries
from sqlalchemy import Text, cast, delete, insert, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from audit.datamap import FACTS
from audit.entry import parse_entry
from audit.events import Retention
from audit.merkle import leaf_hash
from audit.reading import reading
from audit.store import (
    LogRows,
    add_cosignature,
    cosignature_lines,
    each_entry,
    entry_at,
    entry_by_id,
    insert_rows,
    is_pending,
    last_cosigned,
    latest_checkpoint,
    newest_checkpoint,
    oldest_pending,
    pending_count,
    read_entries,
    seqs_of_keys,
    stage,
    tree_size,
    witnessed_checkpoint,
)
from audit.tables import audit_log, audit_pending, metadata
from audit.triggers import INSERT_ONLY, statements


def test_an_entry_is_staged_with_its_effect_or_not_at_all(log: Logbook) -> None:
    """Promise 1: the effect's transaction carries the entry."""
    draft = log.make()

    with log.engine.connect() as conn:
        stage(conn, draft)
        conn.rollback()  # the effect fails

    with reading(log.engine) as conn:
        assert not is_pending(conn, draft.id)
        assert oldest_pending(conn) is None


def test_what_is_staged_is_what_is_sequenced_whatever_signs_it_holds(log: Logbook) -> None:
    """Promise 2: backslashes, tabs, nulls of COPY and letters of any script come through to the byte."""
    odd = replace(log.make(), resource="a\\b\tc\nd\\N \\. é€🗝 '\"")
    with log.engine.begin() as conn:
        stage(conn, odd)

    log.sequence()

    with reading(log.engine) as conn:
        stored = entry_by_id(conn, odd.id)
    assert stored is not None
    assert parse_entry(stored.canonical).digest() == odd.digest()
    assert stored.leaf == leaf_hash(stored.canonical)


def test_times_are_stored_as_sqlalchemy_stores_and_compares_them(log: Logbook) -> None:
    """RULES 22: rows of any writer are ordered among each other, though the driver is given some as they are."""
    first = log.stage(1)[0]
    with log.engine.begin() as conn:
        conn.execute(insert(audit_pending).values(id="by SQLAlchemy", body="", created_at=first.time))
        spellings = conn.execute(select(cast(audit_pending.c.created_at, Text))).scalars().all()
        conn.execute(delete(audit_pending).where(audit_pending.c.id != first.id))

    log.sequence()

    with reading(log.engine) as conn:
        found = conn.scalars(select(audit_log.c.id).where(audit_log.c.time == first.time)).all()
    assert len(spellings) == 2
    assert len({*spellings}) == 1
    assert found == [first.id]


def test_entries_staged_one_by_one_or_together_are_the_same_rows(log: Logbook) -> None:
    """Promise 1: one entry, several, or none in a transaction."""
    drafts = [log.make(number) for number in range(3)]
    with log.engine.begin() as conn:
        stage(conn)
        stage(conn, drafts[0])
        stage(conn, *drafts[1:])

    with reading(log.engine) as conn:
        rows = conn.execute(select(audit_pending).order_by(audit_pending.c.id)).all()

    assert [tuple(row) for row in rows] == [(one.id, one.body().decode(), one.time) for one in drafts]


def test_rows_of_a_taken_place_are_refused_as_sqlalchemy_refuses(log: Logbook) -> None:
    """Promise 2: a place is given once; callers catch one family of errors on either database."""
    log.grow(2)
    with reading(log.engine) as conn:
        stored = entry_at(conn, 1)
    assert stored is not None

    with pytest.raises(IntegrityError), log.engine.begin() as conn:
        insert_rows(conn, LogRows.of(parse_entry(stored.canonical)))

    with reading(log.engine) as conn:
        assert tree_size(conn) == 2


def test_a_connection_that_breaks_while_rows_are_copied_is_an_outage(postgresql_log: Logbook) -> None:
    """A part that sequences waits for its database to come back; it knows an outage by SQLAlchemy's error."""
    (entry,) = entries(1)
    with postgresql_log.engine.connect() as conn:
        pid = conn.scalar(text("SELECT pg_backend_pid()"))
        with postgresql_log.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({pid}, 5000)"))

        with pytest.raises(OperationalError):
            insert_rows(conn, LogRows.of(entry))

        conn.invalidate()
    assert len(postgresql_log.grow(1)) == 1


def test_a_staged_entry_waits_until_it_is_sequenced(log: Logbook) -> None:
    """API: 202 until sequenced."""
    first, second = log.stage(2)

    with reading(log.engine) as conn:
        assert is_pending(conn, first.id)
        assert oldest_pending(conn) == first.time
        assert pending_count(conn) == 2
        assert entry_by_id(conn, first.id) is None
        assert (tree_size(conn), latest_checkpoint(conn)) == (0, None)

    log.sequence()
    with reading(log.engine) as conn:
        assert not is_pending(conn, first.id)
        assert oldest_pending(conn) is None
        found = entry_by_id(conn, second.id)
        assert found is not None
        assert (found.seq, tree_size(conn)) == (1, 2)
        assert entry_at(conn, 1) == found


def test_entries_are_read_in_pages(log: Logbook) -> None:
    """API: `after=SEQ&limit=N`; without `after` from the first."""
    log.grow(7)

    with reading(log.engine) as conn:
        pages = [[entry.seq for entry in read_entries(conn, after, 3)] for after in (None, 2, 5, 6)]
        everything = [entry.seq for entry in each_entry(conn, page=2)]

    assert pages == [[0, 1, 2], [3, 4, 5], [6], []]
    assert everything == list(range(7))


def test_entries_are_found_by_the_keys_they_are_sealed_under(log: Logbook) -> None:
    """RULES 26: export and erasure find a subject's entries by key id."""
    log.stage(2, actor=ALICE)
    log.stage(3, actor=BOB)
    log.sequence()
    keys = [log.sealer.key(person.subject, Retention.PARTICIPATION) for person in (ALICE, BOB)]

    with reading(log.engine) as conn:
        assert seqs_of_keys(conn, keys[:1]) == [0, 1]
        assert seqs_of_keys(conn, keys[1:]) == [2, 3, 4]
        assert seqs_of_keys(conn, [*keys, *(str(number) for number in range(1200))]) == list(range(5))
        assert seqs_of_keys(conn, []) == []


@pytest.mark.parametrize("table", INSERT_ONLY)
def test_the_database_refuses_to_change_the_log(log: Logbook, table: str) -> None:
    """Promise 2: UPDATE, DELETE and TRUNCATE are refused, by the database, whoever asks."""
    log.grow(3)
    with log.engine.begin() as conn:
        add_cosignature(conn, 3, "witness.example/w1+00000000", "— witness.example/w1 AAAA\n", log.clock())
    place = "seq" if table == "audit_log" else "size"
    changes = [
        f"UPDATE {table} SET {place} = {place} + 100",  # noqa: S608
        f"UPDATE {table} SET {place} = {place}",  # noqa: S608
        f"DELETE FROM {table} WHERE {place} >= 2",  # noqa: S608
        f"DELETE FROM {table}",  # noqa: S608
    ]
    if log.engine.dialect.name == "postgresql":  # SQLite has no TRUNCATE
        changes.append(f"TRUNCATE {table} CASCADE")

    for change in changes:
        with pytest.raises(DBAPIError, match="insert-only"), log.engine.begin() as conn:
            conn.execute(text(change))

    with reading(log.engine) as conn:
        assert (tree_size(conn), latest_checkpoint(conn) is None) == (3, False)


def test_sqlite_does_not_replace_a_row_by_inserting_it(sqlite_log: Logbook) -> None:
    """Promise 2: REPLACE deletes without firing the delete trigger, so the insert itself is refused."""
    sqlite_log.grow(1)
    with sqlite_log.engine.begin() as conn:
        add_cosignature(conn, 1, "witness.example/w1+00000000", "— w AAAA\n", sqlite_log.clock())

    for change in (
        "INSERT OR REPLACE INTO audit_log SELECT seq, 'x', '', leaf_hash, event_type, time FROM audit_log",
        "INSERT OR REPLACE INTO audit_log SELECT 9, id, '', leaf_hash, event_type, time FROM audit_log",
        "REPLACE INTO audit_checkpoints SELECT size, root, '', created_at, peaks FROM audit_checkpoints",
        "REPLACE INTO audit_cosignatures SELECT size, witness, '', created_at FROM audit_cosignatures",
    ):
        with pytest.raises(DBAPIError, match="insert-only"), sqlite_log.engine.begin() as conn:
            conn.execute(text(change))


def test_a_checkpoint_bears_the_cosignatures_that_it_has(log: Logbook) -> None:
    """Whoever reads the newest checkpoint gets the witnesses' lines; the signer, who needs none, does not ask."""
    log.grow(1)
    with log.engine.begin() as conn:
        for witness in ("b", "a"):
            assert add_cosignature(conn, 1, witness, f"— {witness} AAAAAAA=\n", log.clock())
        assert not add_cosignature(conn, 1, "a", "— other AAAAAAA=\n", log.clock())

    with reading(log.engine) as conn:
        plain, cosigned = newest_checkpoint(conn, cosigned=False), newest_checkpoint(conn)
        assert plain is not None
        assert cosigned is not None
        assert cosigned.note == f"{plain.note}— a AAAAAAA=\n— b AAAAAAA=\n" == latest_checkpoint(conn)
        assert (cosignature_lines(conn, 1), cosignature_lines(conn, 2)) == (
            ["— a AAAAAAA=\n", "— b AAAAAAA=\n"],
            [],
        )


def test_the_witnessed_checkpoint_is_the_newest_that_enough_witnesses_cosigned(log: Logbook) -> None:
    """A quorum of two is slower than one of one, and one of three was never met."""
    with reading(log.engine) as conn:
        assert (newest_checkpoint(conn), witnessed_checkpoint(conn, 1), last_cosigned(conn, "a")) == (
            None,
        ) * 3
    for _ in range(3):
        log.grow(1)
    cosigned = ((1, "a"), (1, "b"), (2, "a"), (2, "c"))
    with log.engine.begin() as conn:
        for size, witness in cosigned:
            add_cosignature(conn, size, witness, f"— {witness} AAAAAAA=\n", log.clock())

    with reading(log.engine) as conn:
        witnessed = [witnessed_checkpoint(conn, quorum) for quorum in (1, 2, 3)]
        assert [found and found.size for found in witnessed] == [2, 2, None]
        assert witnessed[0] is not None
        assert witnessed[0].note.endswith("— a AAAAAAA=\n— c AAAAAAA=\n")
        assert [last_cosigned(conn, witness) for witness in ("a", "b", "x")] == [2, 1, None]


def test_the_triggers_may_be_made_twice(log: Logbook) -> None:
    """A migration that ran half-way can run again."""
    with log.engine.begin() as conn:
        for statement in statements(log.engine.dialect.name):
            conn.execute(text(statement))

    log.grow(1)
    with pytest.raises(DBAPIError, match="insert-only"), log.engine.begin() as conn:
        conn.execute(text("DELETE FROM audit_log"))


def test_the_age_of_the_oldest_pending_entry_is_told_in_utc(log: Logbook) -> None:
    """RULES 21: `/ready` is red from 60 s of lag."""
    log.stage(1)
    log.clock.advance(timedelta(seconds=61))

    with reading(log.engine) as conn:
        oldest = oldest_pending(conn)

    assert oldest is not None
    assert log.clock() - oldest == timedelta(seconds=61)


def test_every_column_is_in_the_data_map() -> None:
    """DESIGN, The house: a test fails on a column without its data-map facts."""
    for table in metadata.tables.values():
        for column in table.columns:
            assert set(column.info) == set(FACTS), column
