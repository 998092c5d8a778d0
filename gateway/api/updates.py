"""Updates over HTTP: the body is streamed, checked and kept; the answer is a signed receipt."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flask import Blueprint, Response, request
from pydantic.dataclasses import dataclass
from sqlalchemy import Connection, select

from audit.reading import reading
from audit.store import entry_by_id
from audit.tree import prove
from gateway import idempotency
from gateway.api.bodies import TruncatedBody, body_chunks, body_digest, stated_checksum, upload_place
from gateway.auth.admission import current_client
from gateway.errors import (
    BadRequest,
    Busy,
    ChecksumMismatch,
    ChecksumMissing,
    DuplicateUpdate,
    GatewayError,
    IdempotencyKeyReused,
    IntakeStopped,
    InvalidModelFormat,
    NotFound,
    NotInvited,
    PayloadTooLarge,
    ProcessingRestricted,
    RoundExpired,
    RoundPaused,
    SignatureInvalid,
    StorageFull,
    ValidationFailed,
)
from gateway.openapi import Media, operation
from gateway.paths import insist_number
from gateway.rounds.intake import Accepted, Wish, commit, open_for, prepare, receive
from gateway.rounds.record import Round
from gateway.services import current_services
from gateway.tables import client_updates, rounds
from gateway.wire import WIRE, answer, dump, parse_json

updates = Blueprint("updates", __name__, url_prefix="/api/v1")
LONGEST_METADATA = 16_384


@dataclass(frozen=True, slots=True, config=WIRE)
class AcceptedUpdate:
    """The answer to an accepted update."""

    update_id: str
    status: str
    receipt: str
    estimated_aggregation_time: datetime


@dataclass(frozen=True, slots=True, config=WIRE)
class UpdateView:
    """An update as its sender sees it."""

    update_id: str
    round_number: int
    status: str
    submitted_at: datetime
    size_bytes: int
    receipt: str


@dataclass(frozen=True, slots=True, config=WIRE)
class PendingReceipt:
    """The entry is promised, and not yet in a signed tree."""

    update_id: str
    status: str


@updates.post("/rounds/<int:round_number>/updates")
@operation(
    "Send the client's update for a round",
    body=Media.BINARY,
    answers={202: AcceptedUpdate},
    errors=(
        ChecksumMissing,
        TruncatedBody,
        NotFound,
        RoundExpired,
        RoundPaused,
        IntakeStopped,
        NotInvited,
        ProcessingRestricted,
        DuplicateUpdate,
        PayloadTooLarge,
        ChecksumMismatch,
        InvalidModelFormat,
        SignatureInvalid,
        ValidationFailed,
        IdempotencyKeyReused,
        Busy,
        StorageFull,
    ),
    headers=("X-Update-Checksum", "X-Client-Signature", "X-Update-Metadata", "Idempotency-Key"),
)
def send_update(round_number: int) -> Response:
    """Stream, check, keep, promise."""
    services, client = current_services(), current_client()
    wish = Wish(stated_checksum("X-Update-Checksum"), request.headers.get("X-Client-Signature"), _metadata())
    hashed = idempotency.key_hash(f"rounds/{round_number}/updates")
    if first := _first_answer(hashed):
        return first
    try:
        found, schema = open_for(services, client, insist_number(round_number))
    except GatewayError:
        # The same request at the same moment may have been faster: then this one is not late, but answered.
        if first := _first_answer(hashed):
            return first
        raise
    with upload_place():
        services.blobs.insist_room(request.content_length or 0)
        arrived = receive(services, client, schema, body_chunks(), wish)
    with arrived.blob:  # whatever fails from here on, nothing of the body is left
        try:
            accepted = prepare(services, client, found, arrived, wish)
            said = _accepted(accepted, found)
            kept = idempotency.remembered(
                hashed, arrived.sha256, dump(said), status=202, subject_id=client.subject_id
            )
            commit(services, arrived, accepted, remember=lambda conn: idempotency.store(conn, kept))
        except GatewayError:
            if first := idempotency.replay(hashed, arrived.sha256):
                return first
            raise
    return answer(said, 202, {"Location": f"/api/v1/updates/{accepted.update_id}"})


@updates.get("/updates/<uuid:update_id>")
@operation("The client's own update", answers={200: UpdateView}, errors=(NotFound,))
def show_update(update_id: UUID) -> Response:
    """Another client's update is not found."""
    with reading(current_services().engine) as conn:
        row = _own(conn, update_id)
        number = conn.execute(
            select(rounds.c.round_number).where(rounds.c.round_id == row.round_id)
        ).scalar_one()
    return answer(
        UpdateView(
            update_id=row.update_id,
            round_number=number,
            status=row.status,
            submitted_at=row.submitted_at,
            size_bytes=row.update_size_bytes,
            receipt=_receipt(row),
        )
    )


@updates.get("/updates/<uuid:update_id>/receipt")
@operation(
    "The proof that the update's entry is in the log",
    answers={200: Media.TEXT, 202: PendingReceipt},
    errors=(NotFound,),
)
def show_receipt(update_id: UUID) -> Response:
    """202 until the entry is sequenced and signed, then a C2SP tlog-proof."""
    with reading(current_services().engine) as conn:
        row = _own(conn, update_id)
        proof = _proof(conn, row.entry_id)
    if proof is None:
        return answer(PendingReceipt(row.update_id, "pending"), 202)
    return Response(proof, mimetype=Media.TEXT.value)


def _first_answer(hashed: str | None) -> Response | None:
    """The answer that the same request got before, if it came before."""
    if hashed is None or idempotency.find(hashed) is None:
        return None
    return idempotency.first_answer(hashed, body_digest())


def _metadata() -> dict[str, Any]:
    text = request.headers.get("X-Update-Metadata", "{}")
    wrong = [
        {
            "pointer": "X-Update-Metadata",
            "detail": f"must be a JSON object of at most {LONGEST_METADATA} bytes",
        }
    ]
    if len(text) > LONGEST_METADATA:
        raise ValidationFailed(wrong)
    try:
        return parse_json(dict[str, Any], text)
    except (BadRequest, ValidationFailed):
        raise ValidationFailed(wrong) from None


def _accepted(accepted: Accepted, found: Round) -> AcceptedUpdate:
    return AcceptedUpdate(accepted.update_id, "accepted", accepted.receipt, found.deadline.astimezone(UTC))


def _own(conn: Connection, update_id: UUID) -> Any:
    query = select(client_updates).where(
        client_updates.c.update_id == str(update_id),
        client_updates.c.client_id == current_client().client_id,
    )
    row = conn.execute(query).one_or_none()
    if row is None:
        raise NotFound("There is no such update of yours")
    return row


def _receipt(row: Any) -> str:
    opened = current_services().sealer.open_column(row.receipt, "client_updates", "receipt", row.update_id)
    return str(opened)


def _proof(conn: Connection, entry_id: str) -> str | None:
    entry = entry_by_id(conn, entry_id)
    proof = None if entry is None else prove(conn, entry.seq, current_services().config.quorum_shown)
    return None if proof is None else proof.text()
