"""The look-up past SQLAlchemy: the same answer, the same errors, and no connection lost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import bindparam, event, insert, select, text
from sqlalchemy.exc import DBAPIError

from audit.reading import glance
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.services import Services
from gateway.storage.lookup import LookUp
from gateway.tables import tokens

WANTED = select(tokens).where(tokens.c.token_hash == bindparam("digest"))
LOOK = LookUp(WANTED, "digest")


@pytest.fixture
def row(services: Services) -> dict[str, object]:
    """A stored token with every kind of value."""
    new = add_client(services, "bench", Role.OPERATOR)
    at = datetime(2026, 11, 24, 12, 0, 0, 5, UTC)
    row = {
        "token_hash": "0" * 64,
        "client_id": new.client_id,
        "scope": "a",
        "kind": "access",
        "issued_at": at,
        "expires_at": at,
        "is_jwt": True,
    }
    with services.engine.begin() as conn:
        conn.execute(insert(tokens).values(row))
    return row


def test_it_finds_what_sqlalchemy_finds(services: Services, row: dict[str, object]) -> None:
    """Names, values and their types, on both databases; again and again, from one connection."""
    with glance(services.engine) as conn:
        wanted = conn.execute(WANTED, {"digest": "0" * 64}).one()

    for _ in range(10):
        found = LOOK.one(services.engine, "0" * 64)
        assert found is not None
        assert found._asdict() == dict(wanted._mapping)
        assert [type(value) for value in found] == [type(value) for value in wanted]

    assert LOOK.one(services.engine, "1" * 64) is None
    assert {name: getattr(found, name) for name in row} == row
    with services.engine.begin() as conn:  # a transaction, as if nothing had been
        conn.execute(tokens.delete())
        conn.rollback()
    assert LOOK.one(services.engine, "0" * 64) is not None


def test_a_driver_s_error_is_told_as_sqlalchemy_tells_it(services: Services) -> None:
    """The gateway answers 503 to those, and 500 to what it does not know."""
    broken = LookUp(select(text("x")).select_from(text("nowhere")).where(text("x = :digest")), "digest")

    for _ in range(50):  # more often than there are places in the pool
        with pytest.raises(DBAPIError):
            broken.one(services.engine, "a")


def test_a_broken_connection_is_asked_anew(services: Services, row: dict[str, object]) -> None:
    """A server that was restarted between two questions is no error of the second."""
    broken: list[object] = []

    def breaks(dbapi_connection: object, *_: object) -> None:
        if not broken:
            broken.append(dbapi_connection)
            dbapi_connection.close()  # type: ignore[attr-defined]

    event.listen(services.engine, "checkout", breaks)

    assert LOOK.one(services.engine, str(row["token_hash"])) is not None
    assert broken
