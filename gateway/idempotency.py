"""The same request twice gets the first answer again (`Idempotency-Key`), also when both come at once.

The key is stored hashed with client and route, the answer sealed, both in the transaction of the effect itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any

from flask import Response, request
from sqlalchemy import Connection, delete, insert, select

from audit.errors import KeyDestroyed
from audit.events import Retention
from audit.reading import reading
from gateway.auth.admission import current_client
from gateway.errors import IdempotencyKeyReused, ValidationFailed
from gateway.services import Services, current_services
from gateway.tables import idempotency_keys
from gateway.wire import json_response

KEPT = timedelta(hours=24)
MOST_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Remembered:
    """An answer to be stored with its effect; made (and sealed) before the transaction."""

    key_hash: str
    client_id: str
    body_hmac: str
    status: int
    sealed: dict[str, str]


@dataclass(frozen=True, slots=True)
class FirstAnswer:
    """What was answered to the first request with this key."""

    body_hmac: str
    status: int
    value: Any


def key_hash(route: str) -> str | None:
    """The stored form of the request's `Idempotency-Key`, or None if it has none.

    Raises:
        ValidationFailed: the key is empty or too long.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return None
    if not 0 < len(key) <= MOST_CHARACTERS:
        raise ValidationFailed([{"pointer": "Idempotency-Key", "detail": "must have 1 to 255 characters"}])
    return sha256(f"{current_client().client_id}\n{route}\n{key}".encode()).hexdigest()


def find(hashed: str) -> FirstAnswer | None:
    """The first answer of the last 24 hours to a request with this key.

    Raises:
        IdempotencyKeyReused: the answer belonged to a person who was erased since.
    """
    services = current_services()
    with reading(services.engine) as conn:
        query = select(idempotency_keys).where(idempotency_keys.c.key_hash == hashed)
        row = conn.execute(query).one_or_none()
    if row is None or services.clock() - row.created_at > KEPT:
        return None
    try:
        value = services.sealer.open_column(row.answer, "idempotency_keys", "answer", hashed)
    except KeyDestroyed:
        raise IdempotencyKeyReused("The first answer was erased: take a new key") from None
    return FirstAnswer(row.body_hmac, row.status, value)


def replay(hashed: str | None, body_digest: bytes) -> Response | None:
    """The first answer again, or None if this is the first request. Raises as `replayed` does."""
    first = replayed(hashed, body_digest)
    return None if first is None else json_response(first.value, first.status)


def replayed(hashed: str | None, body_digest: bytes) -> FirstAnswer | None:
    """What was kept of the first request, or None if this is the first.

    Args:
        hashed: what `key_hash` gave.
        body_digest: SHA-256 of the body as sent.

    Raises:
        IdempotencyKeyReused: the first request had another body.
    """
    first = find(hashed) if hashed else None
    if first is None:
        return None
    if first.body_hmac != _body_hmac(current_services(), body_digest):
        raise IdempotencyKeyReused("Take a new key for a new request")
    return first


def first_answer(hashed: str, body_digest: bytes) -> Response:
    """The first answer again, where one is known to be there.

    Raises:
        IdempotencyKeyReused: the first request had another body, or its answer was forgotten this very moment.
    """
    first = replay(hashed, body_digest)
    if first is None:
        raise IdempotencyKeyReused("The first answer is no longer kept: take a new key")
    return first


def remembered(
    hashed: str | None, body_digest: bytes, value: Any, *, status: int, subject_id: str
) -> Remembered | None:
    """The answer, sealed under the subject it belongs to; call it before the transaction."""
    if hashed is None:
        return None
    services = current_services()
    sealed = services.sealer.seal_column(
        subject_id, Retention.PARTICIPATION, "idempotency_keys", "answer", hashed, value, services.clock()
    )
    return Remembered(hashed, current_client().client_id, _body_hmac(services, body_digest), status, sealed)


def store(conn: Connection, answer: Remembered | None) -> None:
    """Keep the answer in the effect's own transaction.

    Raises:
        sqlalchemy.exc.IntegrityError: the same key came twice at once and the other was first: answer with `replay`.
    """
    if answer is None:
        return
    now = current_services().clock()
    stale = (idempotency_keys.c.key_hash == answer.key_hash) & (idempotency_keys.c.created_at < now - KEPT)
    conn.execute(delete(idempotency_keys).where(stale))
    conn.execute(
        insert(idempotency_keys).values(
            key_hash=answer.key_hash,
            client_id=answer.client_id,
            body_hmac=answer.body_hmac,
            status=answer.status,
            answer=answer.sealed,
            created_at=now,
        )
    )


def purge(services: Services, *, batch: int = 500) -> int:
    """Forget keys older than 24 hours, a batch a transaction, until none is left; returns how many."""
    old = select(idempotency_keys.c.key_hash).where(idempotency_keys.c.created_at < services.clock() - KEPT)
    gone, last = 0, batch
    while last == batch:
        with services.engine.begin() as conn:
            stale = idempotency_keys.c.key_hash.in_(old.limit(batch))
            last = conn.execute(delete(idempotency_keys).where(stale)).rowcount
        gone += last
    return gone


def _body_hmac(services: Services, body_digest: bytes) -> str:
    return services.keystore.index(f"body:{body_digest.hex()}")
