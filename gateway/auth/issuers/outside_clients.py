"""The clients behind outside tokens: each (issuer, subject) is a client of ours from its first good token on.

Row, subject and entry commit together, once, however many first requests come at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.draft import Personal
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.subjects import new_subject
from gateway.auth.issuers.judging import Judged
from gateway.auth.roster import AuthMethod, ClientStatus, name_index
from gateway.auth.scopes import Role
from gateway.auth.windows import LocalWindows
from gateway.services import Services
from gateway.tables import clients

_BY_INDEX = select(
    clients.c.client_id, clients.c.subject_id, clients.c.role, clients.c.status, clients.c.last_seen_at
).where(clients.c.outside_index == bindparam("index"))


@dataclass(frozen=True, slots=True)
class OutsideClient:
    """Its row, as far as a token needs it."""

    client_id: str
    subject_id: str
    role: str
    status: str
    last_seen_at: datetime | None


def client_behind(
    services: Services, issuer: str, judged: Judged, changes: LocalWindows
) -> OutsideClient | None:
    """The client of ours that a good token is of.

    A client is added at its first token, unless that token allows nothing here; then there is None. When a token
    has another role than the row, the row follows; a suspended or revoked client's row stays as it is.

    Args:
        services: the stores.
        issuer: its name.
        judged: what the token says.
        changes: counts changes of role. One in each window is written: tokens of two roles must not flood the log.
    """
    index = outside_index(services, issuer, judged.subject)
    row = _find(services, index)
    if row is None:
        return _added(services, issuer, judged, index) if judged.scopes else None
    differs = row.role != judged.role and row.status == ClientStatus.ACTIVE
    if differs and changes.count(row.client_id, services.clock().timestamp())[0] == 1:
        _change_role(services, row, judged.role)
        row = _find(services, index)
    return row


def outside_index(services: Services, issuer: str, subject: str) -> str:
    """What a client is found by that goes by this name at this issuer: a keyed HMAC, which tells neither."""
    return services.keystore.index(f"clients.outside:{issuer} {subject}")  # an issuer's name has no blank


def _find(services: Services, index: str) -> OutsideClient | None:
    with reading(services.engine) as conn:
        row = conn.execute(_BY_INDEX, {"index": index}).one_or_none()
    return row and OutsideClient(*row)


def _added(services: Services, issuer: str, judged: Judged, index: str) -> OutsideClient | None:
    client_id, subject_id, now = str(uuid4()), str(uuid4()), services.clock()
    name = f"{issuer}#{judged.subject}"
    row = {
        "client_id": client_id,
        "subject_id": subject_id,
        "role": judged.role.value,
        "name": services.sealer.seal_column(
            subject_id, Retention.PARTICIPATION, "clients", "name", client_id, name, now
        ),
        "name_index": name_index(services, name),
        "auth_method": AuthMethod.OUTSIDE.value,
        "outside_index": index,
        "status": ClientStatus.ACTIVE.value,
        "registered_at": now,
    }
    entry = services.trail.draft(
        EventType.CLIENT_REGISTERED,
        resource="clients",
        details={
            "client_id": Personal(subject_id, client_id),
            "role": judged.role.value,
            "signs": False,
            "auth": AuthMethod.OUTSIDE.value,
        },
        actor=_actor(subject_id, client_id, judged.role),
    )
    try:
        with services.engine.begin() as conn:
            new_subject(conn, subject_id, now)
            conn.execute(insert(clients).values(row))
            services.trail.write(conn, entry)
    except IntegrityError:  # another request of this client came first: both use its row
        if (found := _find(services, index)) is None:
            raise
        return found
    return _find(services, index)


def _change_role(services: Services, row: OutsideClient, role: Role) -> None:
    entry = services.trail.draft(
        EventType.CLIENT_CHANGED,
        resource="clients",
        details={
            "client_id": Personal(row.subject_id, row.client_id),
            "role": role.value,
            "changed": ["role"],
        },
        actor=_actor(row.subject_id, row.client_id, role),
    )
    is_as_read = (clients.c.client_id == row.client_id) & (clients.c.role == row.role)
    with services.engine.begin() as conn:
        if conn.execute(update(clients).where(is_as_read).values(role=role.value)).rowcount:
            services.trail.write(conn, entry)


def _actor(subject_id: str, client_id: str, role: Role) -> Personal:
    return Personal(subject_id, {"client_id": client_id, "role": role.value})
