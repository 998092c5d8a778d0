"""Who a person's clients are, and what lets them in: told without anything that would let anybody in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Select, Table, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.packages.columns import ExportColumn, Form, text_of
from compliance.places import ExportPart, ExportTable
from gateway.services import Services
from gateway.tables import (
    authorization_codes,
    clients,
    idempotency_keys,
    revoked_tokens,
    tokens,
    used_assertions,
)

_CLIENT = ExportColumn("client_id", Form.ID, "the client")
CLIENTS = (
    ExportColumn("client_id", Form.ID, "names the client, at random", is_portable=True),
    ExportColumn("registration_date", Form.TIME, "since when it takes part", is_portable=True),
    ExportColumn("role", Form.TEXT, "which scopes it may get"),
    ExportColumn("extra_scopes", Form.TEXT, "scopes given by name, beyond the role's", is_optional=True),
    ExportColumn("status", Form.TEXT, "active, suspended or revoked"),
    ExportColumn("auth_method", Form.TEXT, "how it proves itself"),
    ExportColumn("name", Form.TEXT, "what its owner calls it", is_optional=True, is_portable=True),
    ExportColumn("device", Form.ANY, "platform and capabilities", is_optional=True, is_portable=True),
    ExportColumn("public_key", Form.TEXT, "checks its signatures", is_optional=True, is_portable=True),
    ExportColumn("jwks", Form.ANY, "public keys that it proves itself with", is_optional=True),
    ExportColumn("subject_dn", Form.TEXT, "the subject of its certificate", is_optional=True),
    ExportColumn("last_seen_at", Form.TIME, "when it was last here", is_optional=True),
    ExportColumn("last_chosen_at", Form.TIME, "when a round last chose it", is_optional=True),
)
TOKENS = (
    _CLIENT,
    ExportColumn("kind", Form.TEXT, "access, refresh, registration, or revoked"),
    ExportColumn("scope", Form.TEXT, "what it allows", is_optional=True),
    ExportColumn("issued_at", Form.TIME, "when it was issued", is_optional=True),
    ExportColumn("expires_at", Form.TIME, "when it ends"),
    ExportColumn("used_at", Form.TIME, "when it was exchanged", is_optional=True),
    ExportColumn("is_bound_to_a_certificate", Form.FLAG, "whether it needs one", is_optional=True),
)
ASSERTIONS = (_CLIENT, ExportColumn("kept_until", Form.TIME, "until when it is remembered"))
CONSENTS = (
    _CLIENT,
    ExportColumn("scope", Form.TEXT, "what was allowed"),
    ExportColumn("allowed_at", Form.TIME, "when it was allowed"),
    ExportColumn("exchanged_at", Form.TIME, "when the client made use of it", is_optional=True),
)
ANSWERS = (
    _CLIENT,
    ExportColumn("status", Form.INTEGER, "the HTTP status of the answer"),
    ExportColumn("answered_at", Form.TIME, "it is kept for 24 hours from here"),
)


class Identity:
    """Reads who the clients of a person are."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def parts(self, subject: str) -> Iterator[ExportPart]:
        """The clients, and what lets them in; what nobody has is left out."""
        shown = [self._client(row._mapping) for row in self._of(clients, subject)]
        title = "Your clients: devices, silos or programs that act for you"
        yield ExportTable("clients", "Art. 15, Art. 20", title, CLIENTS, shown)
        let_in = [shown_token(row) for row in self._of(tokens, subject)]
        let_in += [_revoked(row) for row in self._of(revoked_tokens, subject)]
        used = [_assertion(row) for row in self._of(used_assertions, subject)]
        allowed = [shown_consent(row) for row in self._of(authorization_codes, subject)]
        answered = [_answer(row) for row in self._of(idempotency_keys, subject)]
        for category, title, columns, rows in (
            ("tokens", "What lets your clients in, without its secrets", TOKENS, let_in),
            (
                "assertions",
                "Proofs that your clients showed, remembered against a second use",
                ASSERTIONS,
                used,
            ),
            ("consents", "What people allowed your clients to do", CONSENTS, allowed),
            ("kept_answers", "Answers kept for repeated requests, without their content", ANSWERS, answered),
        ):
            if rows:
                yield ExportTable(category, "Art. 15", title, columns, rows)

    def _of(self, table: Table, subject: str) -> list[Any]:
        with reading(self._services.engine) as conn:
            return list(conn.execute(_of_clients(table, subject)))

    def _client(self, row: Mapping[str, Any]) -> dict[str, Any]:
        sealed = ("name", "device", "public_key", "jwks", "subject_dn")
        return {
            "client_id": row["client_id"],
            "registration_date": text_of(row["registered_at"]),
            "role": row["role"],
            "extra_scopes": row["extra_scopes"],
            "status": row["status"],
            "auth_method": row["auth_method"],
            "last_seen_at": text_of(row["last_seen_at"]),
            "last_chosen_at": text_of(row["last_chosen_at"]),
            **{column: self._opened(row, column) for column in sealed},
        }

    def _opened(self, row: Mapping[str, Any], column: str) -> Any:
        if row[column] is None:
            return None
        try:
            return self._services.sealer.open_column(row[column], "clients", column, row["client_id"])
        except KeyDestroyed:  # an erasure overtook this export
            return None


def shown_token(row: Any) -> dict[str, Any]:
    """A token as an export tells of it: nothing that lets anybody in."""
    return {
        "client_id": row.client_id,
        "kind": row.kind,
        "scope": row.scope,
        "issued_at": text_of(row.issued_at),
        "expires_at": text_of(row.expires_at),
        "used_at": text_of(row.used_at),
        "is_bound_to_a_certificate": row.thumbprint is not None,
    }


def shown_consent(row: Any) -> dict[str, Any]:
    """A consent; who allowed it is told to that person alone."""
    return {
        "client_id": row.client_id,
        "scope": row.scope,
        "allowed_at": text_of(row.issued_at),
        "exchanged_at": text_of(row.used_at),
    }


def _revoked(row: Any) -> dict[str, Any]:
    unknown: dict[str, datetime | None] = dict.fromkeys(column.name for column in TOKENS)
    return {**unknown, "client_id": row.client_id, "kind": "revoked", "expires_at": text_of(row.expires_at)}


def _assertion(row: Any) -> dict[str, Any]:
    return {"client_id": row.client_id, "kept_until": text_of(row.expires_at)}


def _answer(row: Any) -> dict[str, Any]:
    return {"client_id": row.client_id, "status": row.status, "answered_at": text_of(row.created_at)}


def _of_clients(table: Table, subject: str) -> Select[Any]:
    own = select(clients.c.client_id).where(clients.c.subject_id == subject)
    if table is clients:
        return select(clients).where(clients.c.subject_id == subject).order_by(clients.c.client_id)
    if table is idempotency_keys:  # there may be many, and an answer may be long
        told = (table.c.client_id, table.c.status, table.c.created_at)
        return select(*told).where(table.c.client_id.in_(own)).order_by(table.c.key_hash)
    return select(table).where(table.c.client_id.in_(own)).order_by(*table.primary_key.columns)
