"""How an update comes in: one pass while it arrives, then one transaction, and nothing left of a refused one.

The body is hashed, checked and encrypted block by block; row, audit entry, outbox message and the answer to an
idempotent repetition commit together (promises 1, 3 and 7).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from aggregation.reader import Summary, UpdateReader
from aggregation.wire import Schema, schema_from_json
from audit.canonical import JsonValue
from audit.draft import Personal
from audit.entry import Draft
from audit.events import EventType, Retention
from audit.reading import reading
from audit.writing import writing
from compliance.errors import ComplianceError
from gateway.auth.client_keys import check_signature
from gateway.auth.roster import public_key_of
from gateway.auth.tokens import AuthenticatedClient
from gateway.errors import (
    BlobsAway,
    Busy,
    ChecksumMismatch,
    Conflict,
    DuplicateUpdate,
    GatewayError,
    PayloadTooLarge,
    RoundExpired,
    RoundPaused,
    ValidationFailed,
)
from gateway.messaging.outbox import QueueName, post
from gateway.restricted import insist_unrestricted
from gateway.rounds.arrival import arrive, as_safetensors
from gateway.rounds.intake_switch import insist_intake
from gateway.rounds.invitations import insist_invited
from gateway.rounds.lineage import find_lineage
from gateway.rounds.portable import WHAT, is_portable
from gateway.rounds.receipts import sign_receipt
from gateway.rounds.record import Round, RoundStatus, UpdateStatus, find_round, lock_round
from gateway.services import Services
from gateway.storage.blobs import Incoming
from gateway.storage.database import lacks_room
from gateway.tables import client_updates

_OWN = select(client_updates.c.update_id).where(
    client_updates.c.round_id == bindparam("round"), client_updates.c.client_id == bindparam("client")
)


@dataclass(frozen=True, slots=True)
class Wish:
    """What came with the body: the stated checksum, and what the client reports."""

    checksum: str
    signature: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arrived:
    """A body that passed every check and lies, unnamed, in the blob store."""

    update_id: str
    blob_id: str
    blob_key_id: str
    sha256: bytes
    size_bytes: int
    summary: Summary
    blob: Incoming


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is to be committed for an update: its row and its entry, sealed and signed beforehand."""

    update_id: str
    round_number: int
    receipt: str
    received_at: datetime
    row: Mapping[str, Any]
    entry: Draft


def open_for(services: Services, client: AuthenticatedClient, round_number: int) -> tuple[Round, Schema]:
    """The round and its schema, if this client may send an update to it now.

    Raises:
        NotFound: no such round.
        RoundExpired: it takes no more updates.
        RoundPaused: it takes none for a while.
        IntakeStopped: no round takes any.
        NotInvited: it chose its clients, and not this one.
        DuplicateUpdate: the client's update is there already.
        ProcessingRestricted: a restriction or an objection of its person stands.
    """
    with reading(services.engine) as conn:
        insist_intake(conn)
        insist_unrestricted(conn, client.client_id)
        found = find_round(conn, round_number)
        _insist_open(found, services.clock())
        insist_invited(conn, found, client.client_id)
        _insist_first(conn, found, client)
        schema = schema_from_json(find_lineage(conn, found.model_id).schema)
    return found, schema


def receive(
    services: Services, client: AuthenticatedClient, schema: Schema, chunks: Iterator[bytes], wish: Wish
) -> Arrived:
    """Take the body in, one pass; on any refusal nothing of it is left.

    Raises:
        BadFormat: it is no update of this schema; the tensor is named.
        ChecksumMismatch: it is not what `X-Update-Checksum` says.
        SignatureInvalid: the client registered a key, and this is not its signature.
        PayloadTooLarge: a body without a length passes the limit.
        ValidationFailed: what the client reports cannot be kept.
    """
    if not is_portable(wish.metadata):
        raise ValidationFailed([{"pointer": "X-Update-Metadata", "detail": WHAT}])
    update_id, blob_id = str(uuid4()), uuid4().hex
    key_id, key = services.sealer.new_blob_key(
        client.subject_id, Retention.PARTICIPATION, blob_id, services.clock()
    )
    blob = services.blobs.incoming(blob_id, key)
    try:
        digest, size_bytes, summary = _check(services, schema, chunks, blob)
        if not hmac.compare_digest(digest.hex(), wish.checksum.lower()):
            raise ChecksumMismatch("The body's SHA-256 is not the one in X-Update-Checksum: send it again")
        _check_signature(services, client, digest, wish.signature)
    except BaseException:
        blob.discard()
        raise
    return Arrived(update_id, blob_id, key_id, digest, size_bytes, summary, blob)


def prepare(
    services: Services, client: AuthenticatedClient, found: Round, arrived: Arrived, wish: Wish
) -> Accepted:
    """Seal and sign what will be committed; nothing is written yet. The body is the caller's to discard."""
    now = services.clock()
    entry = services.trail.draft(
        EventType.UPDATE_ACCEPTED,
        resource=f"round/{found.round_number}",
        details=_details(services, client, found, arrived),
    )
    receipt = sign_receipt(services, entry, arrived.sha256, now)
    sealed = _sealer(services, client, arrived.update_id, now)
    row = {
        "update_id": arrived.update_id,
        "round_id": found.round_id,
        "client_id": client.client_id,
        "submitted_at": now,
        "update_size_bytes": arrived.size_bytes,
        "training_metrics": sealed("training_metrics", wish.metadata),
        "status": UpdateStatus.ACCEPTED.value,
        "blob_id": arrived.blob_id,
        "blob_key": arrived.blob_key_id,
        "norm": sealed("norm", repr(arrived.summary.norm)),
        "receipt": sealed("receipt", receipt),
        "entry_id": entry.id,
    }
    return Accepted(arrived.update_id, found.round_number, receipt, now, row, entry)


def commit(
    services: Services, arrived: Arrived, accepted: Accepted, *, remember: Callable[[Connection], None]
) -> None:
    """Name the blob and commit the update in ONE transaction; if that fails, the blob goes too.

    Args:
        services: where to.
        arrived: the body.
        accepted: what `prepare` made.
        remember: stores the answer for an idempotent repetition, in the same transaction.

    Raises:
        RoundExpired, RoundPaused, IntakeStopped: the round closed or was halted meanwhile.
        NotInvited: the client's invitation was withdrawn meanwhile.
        DuplicateUpdate: another update of this client was faster.
        Busy: this took so long that the blob may have been swept.
    """
    try:
        arrived.blob.keep()
        services.crash("update.blob")
        writing(services.engine, lambda conn: _write(conn, services, accepted, remember))
    except BaseException as error:
        arrived.blob.discard()
        if _has_not_committed(error):
            services.blobs.delete(arrived.blob_id)  # after any other it may have committed: the sweep decides
        if isinstance(error, IntegrityError):
            raise DuplicateUpdate from error
        raise
    services.crash("update.committed")


def _write(
    conn: Connection, services: Services, accepted: Accepted, remember: Callable[[Connection], None]
) -> None:
    locked = lock_round(conn, accepted.row["round_id"], shared=True)
    insist_intake(conn)
    _insist_open(locked, services.clock())
    insist_invited(conn, locked, accepted.row["client_id"])
    _insist_fresh(services, accepted)
    remember(conn)
    conn.execute(insert(client_updates), dict(accepted.row))
    body: dict[str, str | int] = {"update_id": accepted.update_id, "round_number": accepted.round_number}
    post(conn, QueueName.MODEL_UPDATES, body, accepted.received_at)
    services.trail.write(conn, accepted.entry)
    insist_unrestricted(
        conn, accepted.row["client_id"]
    )  # the entry has its person locked: none comes in between


def _insist_fresh(services: Services, accepted: Accepted) -> None:
    """Whoever was halted since the blob got its name may find that the janitor has removed it."""
    waited_s = (services.clock() - accepted.received_at).total_seconds()
    if waited_s > services.config.blob_grace_s / 2 > 0:
        raise Busy


def _has_not_committed(error: BaseException) -> bool:
    if isinstance(error, BlobsAway):  # it would not delete either
        return False
    return isinstance(error, GatewayError | ComplianceError | IntegrityError) or lacks_room(error)


def _check(
    services: Services, schema: Schema, chunks: Iterator[bytes], blob: Incoming
) -> tuple[bytes, int, Summary]:
    reader = UpdateReader(schema)

    def take(piece: bytes) -> None:
        reader.feed(piece)
        blob.write(piece)

    body = _limited(chunks, services.config.max_update_bytes)
    digest, size_bytes = arrive(body, take, convert=lambda passing: as_safetensors(passing, schema))
    return digest, size_bytes, reader.close()


def _limited(chunks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    size_bytes = 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > limit:
            raise PayloadTooLarge(f"An update may have {limit} bytes", max_bytes=limit)
        yield chunk


def _check_signature(
    services: Services, client: AuthenticatedClient, digest: bytes, signature: str | None
) -> None:
    public_key = public_key_of(services, client.client_id)
    if public_key is not None:
        check_signature(public_key, digest, signature)


def _details(
    services: Services, client: AuthenticatedClient, found: Round, arrived: Arrived
) -> dict[str, JsonValue | Personal]:
    # A bare hash would let a reader of the log test guesses of an update, also after an erasure.
    _, update_mac = services.sealer.hmac(
        client.subject_id, Retention.PARTICIPATION, arrived.sha256, services.clock()
    )
    return {
        "round_number": found.round_number,
        "size_bytes": arrived.size_bytes,
        "policy_hash": found.policy_hash,
        "update_mac": update_mac,
        "update_id": Personal(client.subject_id, arrived.update_id),
        "client_id": Personal(client.subject_id, client.client_id),
    }


def _sealer(
    services: Services, client: AuthenticatedClient, update_id: str, now: datetime
) -> Callable[[str, JsonValue], dict[str, str]]:
    def seal(column: str, value: JsonValue) -> dict[str, str]:
        return services.sealer.seal_column(
            client.subject_id, Retention.PARTICIPATION, "client_updates", column, update_id, value, now
        )

    return seal


def _insist_open(found: Round, now: datetime) -> None:
    match found.status:
        case RoundStatus.ACTIVE if found.paused_at and not found.closing:
            raise RoundPaused
        case RoundStatus.ACTIVE if not found.closing and now < found.deadline:
            return
        case RoundStatus.INITIALIZED | RoundStatus.SELECTING:
            raise Conflict("The round has not begun to take updates")
        case _:
            raise RoundExpired("The round takes no more updates: ask for the current round")


def _insist_first(conn: Connection, found: Round, client: AuthenticatedClient) -> None:
    if conn.execute(_OWN, {"round": found.round_id, "client": client.client_id}).first() is not None:
        raise DuplicateUpdate
