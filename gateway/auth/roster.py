"""The roster of the clients: who they are, found by id or by name; what names them is opened for who may see it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, func, select

from audit.errors import KeyDestroyed
from audit.reading import reading
from gateway.auth.scopes import Role
from gateway.errors import Conflict, NotFound
from gateway.services import Services
from gateway.tables import clients

_PUBLIC_KEY = select(clients.c.public_key).where(clients.c.client_id == bindparam("id"))


class ClientStatus(StrEnum):
    """Whether a client may come in."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class AuthMethod(StrEnum):
    """How a client proves itself."""

    CLIENT_SECRET = "client_secret"  # noqa: S105 - a method's name
    PRIVATE_KEY_JWT = "private_key_jwt"
    TLS_CLIENT_AUTH = "tls_client_auth"
    SELF_SIGNED_TLS_CLIENT_AUTH = "self_signed_tls_client_auth"
    REGISTRATION = "registration_token"
    OUTSIDE = "outside"


class NameAmbiguous(Conflict):
    """Several clients have this name."""

    code, title = "NAME_AMBIGUOUS", "Several clients have this name: give the client id"


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client as operators see it; what an erasure destroyed is None."""

    client_id: str
    subject_id: str
    role: Role
    status: ClientStatus
    auth_method: AuthMethod
    name: str | None
    platform: str | None
    registered_at: datetime
    last_seen_at: datetime | None
    token_format: str = "opaque"  # noqa: S105 - a format's name
    redirect_uris: tuple[str, ...] = ()


def list_clients(services: Services, *, page: int, per_page: int) -> tuple[list[ClientRecord], int]:
    """One page of the clients, oldest first, and how many there are in all."""
    ordered = select(clients).order_by(clients.c.registered_at, clients.c.client_id)
    with reading(services.engine) as conn:
        total = conn.execute(select(func.count()).select_from(clients)).scalar_one()
        rows = conn.execute(ordered.limit(per_page).offset((page - 1) * per_page)).all()
    return [_record(services, row) for row in rows], total


def count_seen(services: Services, since: datetime) -> int:
    """How many clients that may come in were there since then."""
    active = clients.c.status == ClientStatus.ACTIVE.value
    seen = clients.c.role.in_([role.value for role in Role]) & (clients.c.last_seen_at >= since)
    with reading(services.engine) as conn:
        return int(conn.execute(select(func.count(clients.c.last_seen_at)).where(active, seen)).scalar_one())


def client_record(services: Services, client_id: str) -> ClientRecord:
    """One client.

    Raises:
        NotFound: there is no such client.
    """
    return _record(services, find_row(services, client_id))


def client_id_of(services: Services, wanted: str) -> str:
    """The id of the client with that id or name.

    Raises:
        NotFound: there is none.
        NameAmbiguous: several have this name.
    """
    if is_client_id(wanted):
        return str(find_row(services, wanted).client_id)
    by_name = select(clients.c.client_id).where(clients.c.name_index == name_index(services, wanted))
    with reading(services.engine) as conn:
        found = list(conn.execute(by_name.limit(2)).scalars())
    if not found:
        raise NotFound("There is no such client: `fl-gateway client list` shows them all")
    if len(found) > 1:
        raise NameAmbiguous
    return str(found[0])


def public_key_of(services: Services, client_id: str) -> str | None:
    """The registered Ed25519 key, raw in base64, that must sign the client's updates; None if it has none."""
    with reading(services.engine) as conn:
        sealed = conn.execute(_PUBLIC_KEY, {"id": client_id}).scalar_one_or_none()
    if sealed is None:
        return None
    return str(services.sealer.open_column(sealed, "clients", "public_key", client_id))


def is_client_id(text: str) -> bool:
    """Whether the text has the form of an id, of a client or of an account."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def name_index(services: Services, name: str) -> str:
    """What a client is found by that goes by this name."""
    return services.keystore.index(f"clients.name:{name}")


def find_row(services: Services, client_id: str) -> Row[Any]:
    """The stored row of a client.

    Raises:
        NotFound: there is no such client.
    """
    if not is_client_id(client_id):
        raise NotFound("There is no such client")
    with reading(services.engine) as conn:
        row = conn.execute(select(clients).where(clients.c.client_id == client_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such client")
    return row


def _record(services: Services, row: Row[Any]) -> ClientRecord:
    def opened(column: str, stored: Any) -> Any:
        if stored is None:
            return None
        try:
            return services.sealer.open_column(stored, "clients", column, row.client_id)
        except KeyDestroyed:
            return None

    device = opened("device", row.device) or {}
    return ClientRecord(
        client_id=row.client_id,
        subject_id=row.subject_id,
        role=Role(row.role),
        status=ClientStatus(row.status),
        auth_method=AuthMethod(row.auth_method),
        name=opened("name", row.name),
        platform=device.get("platform"),
        registered_at=row.registered_at,
        last_seen_at=row.last_seen_at,
        token_format=row.token_format or "opaque",
        redirect_uris=tuple(row.redirect_uris or ()),
    )
