"""The clients of the federation: added by hand, or registered by one that may; suspended, resumed, revoked.

A client is a subject of its own under a random id; what names it is sealed (RULES 16). Row, subject and entry
commit together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, insert, select, update

from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType, Retention
from compliance.subjects import new_subject
from gateway.auth.proof.terms import Terms, TokenFormat, checked_terms, terms_columns
from gateway.auth.roster import AuthMethod, ClientStatus, find_row, name_index
from gateway.auth.scopes import API_KEY_ROLES, BUNDLES, Role, given_by_name, scope_text
from gateway.auth.secrets import SecretKind, digest, new_secret
from gateway.auth.tokens import TokenKind, end_tokens_of_client, insert_token, shut_out
from gateway.errors import Conflict, NotFound
from gateway.services import Services
from gateway.tables import clients


class Move(StrEnum):
    """What an operator does to a client."""

    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"


@dataclass(frozen=True, slots=True)
class NewClient:
    """A client just added, with its secrets, which are shown this once."""

    client_id: str
    subject_id: str
    client_secret: str = field(repr=False)  # empty where a key or a certificate is the proof
    api_key: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Device:
    """What a registering device says of itself."""

    name: str | None = None
    device_id: str | None = None
    platform: str | None = None
    capabilities: Any = None
    public_key: str | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """A client about to be registered: sealed and ready to be saved."""

    client_id: str
    subject_id: str
    registration_token: str = field(repr=False)
    registered_at: datetime
    expires_at: datetime
    row: dict[str, Any] = field(repr=False)
    entry: Draft = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a move does."""

    allowed_from: frozenset[ClientStatus]
    to: ClientStatus
    event_type: EventType


_CHANGES = {
    Move.SUSPEND: _Change(
        frozenset({ClientStatus.ACTIVE}), ClientStatus.SUSPENDED, EventType.CLIENT_SUSPENDED
    ),
    Move.RESUME: _Change(frozenset({ClientStatus.SUSPENDED}), ClientStatus.ACTIVE, EventType.CLIENT_RESUMED),
    Move.REVOKE: _Change(
        frozenset({ClientStatus.ACTIVE, ClientStatus.SUSPENDED}),
        ClientStatus.REVOKED,
        EventType.CLIENT_REVOKED,
    ),
}


def add_client(
    services: Services,
    name: str,
    role: Role,
    *,
    auth: AuthMethod = AuthMethod.CLIENT_SECRET,
    jwks: Any = None,
    subject_dn: str | None = None,
    token_format: str = TokenFormat.OPAQUE,
    redirect_uris: Sequence[str] = (),
    extra: Sequence[str] = (),
) -> NewClient:
    """Add a client.

    Args:
        services: the stores.
        name: what its owner calls it; sealed.
        role: its bundle of scopes; participant, edge and operator get an API key to register devices with.
        auth: how it proves itself.
        jwks: its public keys; sealed.
        subject_dn: the subject of its certificate; sealed.
        token_format: `opaque` or `jwt`.
        redirect_uris: where codes of people may be sent.
        extra: scopes that it gets by name, beyond the bundle.

    Raises:
        TermsRefused, KeySetRefused, SubjectDnRefused: this does not go together, or cannot be taken.
        ScopeRefused: a scope is not given by name, or not to this role.
    """
    given = given_by_name(role, extra)
    terms = checked_terms(
        Terms(auth, jwks, subject_dn, TokenFormat(token_format), tuple(redirect_uris)),
    )
    api_key = new_secret(SecretKind.API_KEY) if role in API_KEY_ROLES else None
    secret = new_secret(SecretKind.CLIENT_SECRET) if auth is AuthMethod.CLIENT_SECRET else ""
    new = NewClient(str(uuid4()), str(uuid4()), secret, api_key)
    now = services.clock()
    row = _row(services, new.client_id, new.subject_id, role, Device(name=name), now)
    row |= {
        "secret_hash": digest(secret) if secret else None,
        "api_key_hash": digest(api_key) if api_key else None,
        "extra_scopes": scope_text(given) or None,
        **terms_columns(services, terms, new.client_id, new.subject_id),
    }
    entry = services.trail.draft(
        EventType.CLIENT_ADDED,
        resource="clients",
        details={
            "client_id": Personal(new.subject_id, new.client_id),
            "role": role.value,
            "auth": terms.auth.value,
            **({"extra_scopes": [*given]} if given else {}),
        },
    )
    with services.engine.begin() as conn:
        new_subject(conn, new.subject_id, now)
        conn.execute(insert(clients).values(row))
        services.trail.write(conn, entry)
    return new


def new_registration(services: Services, device: Device) -> Registration:
    """Seal a registering device as a client and a subject of its own; nothing is stored yet."""
    client_id, subject_id, now = str(uuid4()), str(uuid4()), services.clock()
    row = _row(services, client_id, subject_id, Role.PARTICIPANT, device, now)
    entry = services.trail.draft(
        EventType.CLIENT_REGISTERED,
        resource="clients",
        details={
            "client_id": Personal(subject_id, client_id),
            "role": Role.PARTICIPANT.value,
            "signs": device.public_key is not None,
        },
    )
    return Registration(
        client_id=client_id,
        subject_id=subject_id,
        registration_token=new_secret(SecretKind.REGISTRATION_TOKEN),
        registered_at=now,
        expires_at=now + timedelta(seconds=services.config.registration_ttl_s),
        row=row | {"auth_method": AuthMethod.REGISTRATION.value},
        entry=entry,
    )


def register_client(
    services: Services,
    registration: Registration,
    *,
    beside: Callable[[Connection], None] | None = None,
) -> None:
    """Save a registration: subject, client, token and entry, in one transaction.

    Args:
        services: the stores.
        registration: what `new_registration` made.
        beside: writes what else must commit with it, such as the answer kept for an idempotency key.
    """
    with services.engine.begin() as conn:
        new_subject(conn, registration.subject_id, registration.registered_at)
        conn.execute(insert(clients).values(registration.row))
        insert_token(
            conn,
            registration.registration_token,
            client_id=registration.client_id,
            scopes=BUNDLES[Role.PARTICIPANT],
            kind=TokenKind.REGISTRATION,
            now=registration.registered_at,
            ttl=registration.expires_at - registration.registered_at,
        )
        services.trail.write(conn, registration.entry)
        if beside is not None:
            beside(conn)


def move_client(services: Services, client_id: str, move: Move) -> ClientStatus:
    """Suspend, resume or revoke a client; its tokens fail from the commit on. What is so already stays so.

    Raises:
        NotFound: there is no such client.
        Conflict: a revoked client cannot be suspended or resumed.
    """
    change, found = _CHANGES[move], find_row(services, client_id)
    entry = services.trail.draft(
        change.event_type,
        resource="clients",
        details={"client_id": Personal(found.subject_id, client_id), "role": found.role},
    )
    with services.engine.begin() as conn:
        lock = select(clients.c.status).where(clients.c.client_id == client_id).with_for_update()
        status = conn.execute(lock).scalar_one_or_none()
        if status is None:
            raise NotFound("There is no such client")
        if status == change.to:
            return change.to
        if status not in change.allowed_from:
            raise Conflict(f"A client that is {status} cannot be moved by {move}")
        conn.execute(update(clients).where(clients.c.client_id == client_id).values(status=change.to.value))
        if move is Move.REVOKE:
            end_tokens_of_client(conn, client_id)
        shut_out(conn)
        services.trail.write(conn, entry)
    return change.to


def _row(
    services: Services, client_id: str, subject_id: str, role: Role, device: Device, now: datetime
) -> dict[str, Any]:
    def sealed(column: str, value: Any) -> dict[str, str] | None:
        if value is None:
            return None
        return services.sealer.seal_column(
            subject_id, Retention.PARTICIPATION, "clients", column, client_id, value, now
        )

    name = device.name or device.device_id
    about = {"device_id": device.device_id, "platform": device.platform, "capabilities": device.capabilities}
    return {
        "client_id": client_id,
        "subject_id": subject_id,
        "role": role.value,
        "name": sealed("name", name),
        "name_index": name_index(services, name) if name else None,
        "device": sealed("device", about if any(value is not None for value in about.values()) else None),
        "public_key": sealed("public_key", device.public_key),
        "status": ClientStatus.ACTIVE.value,
        "registered_at": now,
    }
