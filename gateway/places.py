"""The gateway's stores of personal data, as export and erasure see them: clients, their updates, their tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Table, delete, func, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.errors import NotNow
from compliance.places import ErasedCount, ExportFile
from gateway.auth.people.place import PERSON_TABLES, shown_token
from gateway.auth.tokens import shut_out
from gateway.rounds.record import RoundStatus, UpdateStatus
from gateway.services import Services
from gateway.tables import (
    authorization_codes,
    client_updates,
    clients,
    idempotency_keys,
    invitations,
    revoked_tokens,
    rounds,
    tokens,
    used_assertions,
)


def erased_tables() -> set[str]:
    """The tables whose rows these places remove; a test compares them with the data map."""
    of_people = (table.name for table in PERSON_TABLES)
    return {client_updates.name, *(table.name for table, _ in _rows_of("")), *of_people}


def _clients_of(subject: str) -> Select[tuple[Any]]:
    return select(clients.c.client_id).where(clients.c.subject_id == subject)


class UpdatesPlace:
    """A person's updates: rows, and encrypted blobs."""

    name = "client_updates"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportFile]:
        """One line an update with what the client reported, and the updates themselves as they are kept."""
        rows = self._rows(subject)
        yield ExportFile("updates/updates.jsonl", "Art. 15, Art. 20", rows=(self._shown(row) for row in rows))
        for row in rows:
            path = f"updates/{row['update_id']}.safetensors"
            yield ExportFile(path, "Art. 20", chunks=self._content(row))

    def erase(self, subject: str) -> ErasedCount:
        """Remove rows and blobs; an update in a frozen cohort stays until its round has ended (RULES 5).

        Raises:
            NotNow: one of them is in a frozen cohort.
        """
        rows = blobs = 0
        for row in self._rows(subject):
            rows += self._remove_row(row)
            blobs += self._services.blobs.delete(row["blob_id"])
        return ErasedCount(rows, blobs)

    def count(self, subject: str) -> int:
        """How many updates there are."""
        return len(self._rows(subject))

    def _rows(self, subject: str) -> list[Mapping[str, Any]]:
        query = (
            select(client_updates, rounds.c.round_number, rounds.c.result_version)
            .join(rounds, rounds.c.round_id == client_updates.c.round_id)
            .where(client_updates.c.client_id.in_(_clients_of(subject)))
            .order_by(client_updates.c.submitted_at)
        )
        with reading(self._services.engine) as conn:
            return [row._mapping for row in conn.execute(query)]  # type: ignore[misc]

    def _remove_row(self, row: Mapping[str, Any]) -> bool:
        with self._services.engine.begin() as conn:
            status = conn.execute(
                select(rounds.c.status).where(rounds.c.round_id == row["round_id"]).with_for_update()
            ).scalar_one()
            if status == RoundStatus.AGGREGATING.value:
                raise NotNow("an update is in a frozen cohort: its round must end first")
            chosen = client_updates.c.update_id == row["update_id"]
            return conn.execute(delete(client_updates).where(chosen)).rowcount > 0

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "update_id": row["update_id"],
            "client_id": row["client_id"],
            "round_number": row["round_number"],
            "submitted_at": _text(row["submitted_at"]),
            "status": row["status"],
            "size_bytes": row["update_size_bytes"],
            "training_metrics": self._opened(row, "training_metrics"),
            "norm": self._opened(row, "norm"),
            "receipt": self._opened(row, "receipt"),
            "model_version": row["result_version"],
        }

    def _opened(self, row: Mapping[str, Any], column: str) -> Any:
        try:
            return self._services.sealer.open_column(row[column], "client_updates", column, row["update_id"])
        except KeyDestroyed:
            return None

    def _content(self, row: Mapping[str, Any]) -> Iterator[bytes]:
        services = self._services
        with services.blobs.reader(
            row["blob_id"], services.sealer.blob_key(row["blob_key"], row["blob_id"])
        ) as blob:
            for start in range(0, blob.size_bytes, 1 << 20):
                yield blob.read_at(start, min(1 << 20, blob.size_bytes - start))


class ClientsPlace:
    """A person's clients, their tokens, and the answers kept for repeated requests."""

    name = "clients"

    def __init__(self, services: Services) -> None:
        self._services = services

    def export(self, subject: str) -> Iterator[ExportFile]:
        """Who the clients are and since when, which rounds chose them, and what lets them in, without its secrets."""
        with reading(self._services.engine) as conn:
            found = list(conn.execute(select(clients).where(clients.c.subject_id == subject)))
            chosen = list(conn.execute(_invitations_of(subject)))
            shown_once = list(conn.execute(_of_clients(used_assertions, subject)))
            consents = list(conn.execute(_of_clients(authorization_codes, subject)))
            let_in = [shown_token(row) for row in conn.execute(_of_clients(tokens, subject))]
            let_in += [_revoked(row) for row in conn.execute(_of_clients(revoked_tokens, subject))]
        shown = [self._shown(dict(row._mapping)) for row in found]
        yield ExportFile("clients/clients.jsonl", "Art. 15, Art. 20", rows=shown)
        yield ExportFile("clients/invitations.jsonl", "Art. 15", rows=[_invitation(row) for row in chosen])
        if let_in:
            yield ExportFile("clients/tokens.jsonl", "Art. 15", rows=let_in)
        if shown_once:
            rows = [_assertion(row) for row in shown_once]
            yield ExportFile("clients/assertions.jsonl", "Art. 15", rows=rows)
        if consents:
            allowed = [_consent(row) for row in consents]
            yield ExportFile("clients/consents.jsonl", "Art. 15", rows=allowed)

    def erase(self, subject: str) -> ErasedCount:
        """Remove the clients and all that lets them in."""
        with self._services.engine.begin() as conn:
            conn.execute(_clients_of(subject).with_for_update())  # clients before codes and tokens
            removed = sum(
                conn.execute(delete(table).where(which)).rowcount for table, which in _rows_of(subject)
            )
            shut_out(conn)
        return ErasedCount(rows=removed)

    def count(self, subject: str) -> int:
        """How many rows there are."""
        with reading(self._services.engine) as conn:
            return sum(_counted(conn, table, which) for table, which in _rows_of(subject))

    def _shown(self, row: Mapping[str, Any]) -> dict[str, Any]:
        opened = {
            column: self._services.sealer.open_column(row[column], "clients", column, row["client_id"])
            for column in ("name", "device", "public_key", "jwks", "subject_dn")
            if row[column] is not None
        }
        return {
            "client_id": row["client_id"],
            "role": row["role"],
            "status": row["status"],
            "registered_at": _text(row["registered_at"]),
            "last_seen_at": _text(row["last_seen_at"]),
            "last_chosen_at": _text(row["last_chosen_at"]),
            "auth_method": row["auth_method"],
            **opened,
        }


class ClientBook:
    """What the database says of one client, for `GDPRCompliantFL`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def subject_of(self, client_id: str) -> str | None:
        """Whose client it is."""
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
        with reading(self._services.engine) as conn:
            rows = conn.execute(_history(client_id)).all()
        return [
            {
                "round_number": row.round_number,
                "submitted_at": _text(row.submitted_at),
                "status": row.status,
                "model_version": row.result_version,
            }
            for row in rows
        ]

    def statistics(self, client_id: str) -> dict[str, Any]:
        """Totals, and what the client itself reported of its training."""
        place = UpdatesPlace(self._services)
        with reading(self._services.engine) as conn:
            rows = [row._mapping for row in conn.execute(_history(client_id))]
        return {
            "updates": len(rows),
            "updates_counted": sum(row["status"] == UpdateStatus.COUNTED.value for row in rows),
            "bytes_sent": sum(row["update_size_bytes"] for row in rows),
            "reported": [place._opened(row, "training_metrics") for row in rows],  # type: ignore[arg-type]
        }


def _invitations_of(subject: str) -> Select[Any]:
    return (
        select(invitations, rounds.c.round_number)
        .join(rounds, rounds.c.round_id == invitations.c.round_id)
        .where(invitations.c.client_id.in_(_clients_of(subject)))
        .order_by(rounds.c.round_number)
    )


def _invitation(row: Any) -> dict[str, Any]:
    return {
        "invitation_id": row.invitation_id,
        "client_id": row.client_id,
        "round_number": row.round_number,
        "rank": row.rank,
        "status": row.status,
        "created_at": _text(row.created_at),
        "invited_at": _text(row.invited_at),
        "delivered_at": _text(row.delivered_at),
    }


def _of_clients(table: Table, subject: str) -> Select[Any]:
    return select(table).where(table.c.client_id.in_(_clients_of(subject)))


def _assertion(row: Any) -> dict[str, Any]:
    return {"client_id": row.client_id, "kept_until": _text(row.expires_at)}


def _revoked(row: Any) -> dict[str, Any]:
    return {"client_id": row.client_id, "kind": "revoked", "expires_at": _text(row.expires_at)}


def _consent(row: Any) -> dict[str, Any]:
    """Who allowed it is another person's business, and not told."""
    return {
        "client_id": row.client_id,
        "scope": row.scope,
        "allowed_at": _text(row.issued_at),
        "exchanged_at": _text(row.used_at),
    }


def _history(client_id: str) -> Select[Any]:
    return (
        select(client_updates, rounds.c.round_number, rounds.c.result_version)
        .join(rounds, rounds.c.round_id == client_updates.c.round_id)
        .where(client_updates.c.client_id == client_id)
        .order_by(rounds.c.round_number)
    )


def _rows_of(subject: str) -> tuple[tuple[Any, ColumnElement[bool]], ...]:
    own = _clients_of(subject).scalar_subquery()
    return (
        (idempotency_keys, idempotency_keys.c.client_id.in_(own)),
        (tokens, tokens.c.client_id.in_(own)),
        (authorization_codes, authorization_codes.c.client_id.in_(own)),
        (revoked_tokens, revoked_tokens.c.client_id.in_(own)),
        (used_assertions, used_assertions.c.client_id.in_(own)),
        (invitations, invitations.c.client_id.in_(own)),
        (clients, clients.c.subject_id == subject),
    )


def _counted(conn: Connection, table: Any, which: ColumnElement[bool]) -> int:
    return int(conn.execute(select(func.count()).select_from(table).where(which)).scalar_one())


def _text(at: datetime | None) -> str | None:
    return at.isoformat().replace("+00:00", "Z") if at else None
