"""The gateway's stores of personal data, as export and erasure see them: clients, their updates, their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, delete, select

from audit.reading import reading
from compliance.places import ErasedCount, ExportPart
from gateway.auth.people.place import PERSON_TABLES
from gateway.auth.roster import is_client_id
from gateway.auth.tokens import shut_out
from gateway.erasing import (
    clients_of,
    count_rows,
    counted,
    keep_from_rounds,
    messages_of,
    remove_rows,
    remove_updates,
)
from gateway.exporting.identity import Identity
from gateway.exporting.participation import Participation
from gateway.services import Services
from gateway.tables import (
    authorization_codes,
    client_updates,
    clients,
    idempotency_keys,
    invitations,
    outbox,
    revoked_tokens,
    tokens,
    used_assertions,
)


def erased_tables() -> set[str]:
    """The tables whose rows these places remove; a test compares them with the data map."""
    of_people = (table.name for table in PERSON_TABLES)
    return {client_updates.name, *(table.name for table, _ in _rows_of("")), *of_people}


LEADS = {
    "client_updates": frozenset({"messages"}),
    "clients": frozenset({"messages", "client_updates"}),
}
"""Whose rows lead to those of other places: what is held there keeps them, too."""


class MessagesPlace:
    """Messages about a person's updates and invitations that wait in the outbox, or that nobody could use."""

    name = "messages"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportPart]:  # noqa: ARG002
        """Nothing: they repeat ids of updates and invitations, which are in the package."""
        return iter(())

    def erase(self, subject: str) -> ErasedCount:
        """Remove them; it must come before their updates and invitations, by which they are found."""
        return ErasedCount(rows=remove_rows(self._services.engine, outbox, messages_of(subject)))

    def count(self, subject: str) -> int:
        """How many there are."""
        return count_rows(self._services.engine, outbox, messages_of(subject))


class UpdatesPlace:
    """A person's updates: rows, and encrypted blobs."""

    name = "client_updates"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportPart]:
        """What the clients sent, the totals, and the updates themselves as far as they are kept."""
        return Participation(self._services).updates(subject)

    def erase(self, subject: str) -> ErasedCount:
        """Remove rows and blobs; while one is in a frozen cohort, all stay until its round has ended (RULES 5).

        Raises:
            NotNow: one of them is in a frozen cohort.
        """
        return remove_updates(self._services, self._of(subject))

    def settle(self, subject: str) -> None:
        """Have no further model learn from them, before anything is said of the models that did.

        Raises:
            NotNow: one of them is in a frozen cohort, which is awaited.
        """
        keep_from_rounds(self._services.engine, self._of(subject))

    def count(self, subject: str) -> int:
        """How many updates there are."""
        return count_rows(self._services.engine, client_updates, self._of(subject))

    def _of(self, subject: str) -> ColumnElement[bool]:
        return client_updates.c.client_id.in_(clients_of(subject))


class ClientsPlace:
    """A person's clients, their tokens, and the answers kept for repeated requests."""

    name = "clients"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportPart]:
        """Who the clients are, what lets them in, without its secrets, and which rounds chose them."""
        yield from Identity(self._services).parts(subject)
        yield from Participation(self._services).invitations(subject)

    def erase(self, subject: str) -> ErasedCount:
        """Remove the clients and all that lets them in: what may be much in batches, the rest in one transaction."""
        engine = self._services.engine
        own = clients_of(subject)  # clients before codes and tokens, as grants lock them
        removed = sum(remove_rows(engine, table, which, hold=own) for table, which in _rows_of(subject)[:-1])
        with engine.begin() as conn:
            conn.execute(own.with_for_update())
            removed += sum(
                conn.execute(delete(table).where(which)).rowcount for table, which in _rows_of(subject)
            )
            shut_out(conn)
        return ErasedCount(rows=removed)

    def count(self, subject: str) -> int:
        """How many rows there are."""
        with reading(self._services.engine) as conn:
            return sum(counted(conn, table, which) for table, which in _rows_of(subject))


class ClientBook:
    """What the database says of one client, for `GDPRCompliantFL`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def subject_of(self, client_id: str) -> str | None:
        """Whose client it is; None also for what is no id."""
        if not is_client_id(client_id):
            return None
        with reading(self._services.engine) as conn:
            query = select(clients.c.subject_id).where(clients.c.client_id == client_id)
            return conn.execute(query).scalar_one_or_none()

    def registration_date(self, client_id: str) -> datetime:
        """When it registered."""
        with reading(self._services.engine) as conn:
            query = select(clients.c.registered_at).where(clients.c.client_id == client_id)
            found: datetime = conn.execute(query).scalar_one()
        return found

    def participation(self, client_id: str) -> list[dict[str, Any]]:
        """The rounds that it sent an update for."""
        told = ("round_number", "submitted_at", "status", "model_version")
        history = Participation(self._services).history(client_id)
        return [{name: row[name] for name in told} for row in history]

    def statistics(self, client_id: str) -> dict[str, Any]:
        """Totals, and what the client itself reported of its training."""
        taken = Participation(self._services)
        reported = [row["training_metrics"] for row in taken.history(client_id)]
        return {**taken.statistics(client_id), "reported": reported}


def _rows_of(subject: str) -> tuple[tuple[Any, ColumnElement[bool]], ...]:
    own = clients_of(subject).scalar_subquery()
    return (
        (idempotency_keys, idempotency_keys.c.client_id.in_(own)),
        (tokens, tokens.c.client_id.in_(own)),
        (authorization_codes, authorization_codes.c.client_id.in_(own)),
        (revoked_tokens, revoked_tokens.c.client_id.in_(own)),
        (used_assertions, used_assertions.c.client_id.in_(own)),
        (invitations, invitations.c.client_id.in_(own)),
        (clients, clients.c.subject_id == subject),
    )
