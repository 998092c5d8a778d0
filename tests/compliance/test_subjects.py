"""Subjects: no transaction writes for a person whose erasure has begun (RULES 18)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from audit.draft import SYSTEM, UNPROVEN
from compliance.errors import NeverErasable, SubjectErasing, UnknownSubject
from compliance.subjects import SubjectState, hold, mark_erased, mark_erasing, new_subject, state_of
from compliance.tables import metadata
from gateway.storage.database import open_engine

AT = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url)
    with engine.begin() as conn:
        metadata.create_all(conn)
    yield engine
    engine.dispose()


@pytest.fixture
def subject(engine: Engine) -> str:
    subject = str(uuid4())
    with engine.begin() as conn:
        new_subject(conn, subject, AT)
    return subject


def test_an_active_subject_and_nobody_can_be_held(engine: Engine, subject: str) -> None:
    """Required: `system` and `unproven` need no row."""
    with engine.begin() as conn:
        hold(conn, {subject, SYSTEM, UNPROVEN})
        hold(conn, set())

        assert state_of(conn, subject) is SubjectState.ACTIVE


def test_a_marked_subject_cannot_be_held(engine: Engine, subject: str) -> None:
    """RULES 18: from the mark on, every writer fails, also when the erasure is over."""
    for mark in (mark_erasing, mark_erased):
        with engine.begin() as conn:
            mark(conn, subject)

        with engine.begin() as conn, pytest.raises(SubjectErasing) as refused:
            hold(conn, [subject])
        assert refused.value.subjects == (subject,)


def test_an_erased_subject_is_not_marked_erasing_again(engine: Engine, subject: str) -> None:
    """A repeated erasure does not turn the end back."""
    with engine.begin() as conn:
        mark_erased(conn, subject)
        mark_erasing(conn, subject)

        assert state_of(conn, subject) is SubjectState.ERASED


def test_an_unknown_subject_is_refused(engine: Engine) -> None:
    """A row that is not there cannot be locked: writing for it would escape an erasure."""
    stranger = str(uuid4())

    for refused in (lambda conn: hold(conn, [stranger]), lambda conn: mark_erasing(conn, stranger)):
        with engine.begin() as conn, pytest.raises(UnknownSubject):
            refused(conn)
    with engine.begin() as conn, pytest.raises(NeverErasable):
        mark_erasing(conn, SYSTEM)


def test_an_erasure_waits_for_the_writer_that_holds_its_subject(engine: Engine, subject: str) -> None:
    """RULES 18: the mark comes after the writer's commit, never in the middle of it."""
    order: list[str] = []
    held, asked = threading.Event(), threading.Event()

    def erase() -> None:
        held.wait(10)
        asked.set()
        with engine.begin() as conn:
            mark_erasing(conn, subject)
            order.append("marked")

    eraser = threading.Thread(target=erase)
    eraser.start()
    with engine.begin() as conn:
        hold(conn, [subject])
        held.set()
        asked.wait(10)
        eraser.join(0.3)
        order.append("written")
    eraser.join(10)

    assert order == ["written", "marked"]


def test_writers_do_not_wait_for_each_other(postgresql_url: str) -> None:
    """RULES 18: the lock is shared; a busy silo's uploads run side by side."""
    engine = open_engine(postgresql_url)
    subject = str(uuid4())
    with engine.begin() as conn:
        metadata.create_all(conn)
        new_subject(conn, subject, AT)

    with engine.begin() as one, engine.begin() as other:
        hold(one, [subject])
        other.exec_driver_sql(
            "SET LOCAL lock_timeout = '5s'"
        )  # a wait would be an error, not a test that hangs
        hold(other, [subject])
        seen = {state_of(one, subject), state_of(other, subject)}

    engine.dispose()
    assert seen == {SubjectState.ACTIVE}
