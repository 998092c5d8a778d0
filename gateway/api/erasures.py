"""Erasure receipts over HTTP: the receipt, the proof that its entry is in the log, and the key for the person."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, g
from pydantic.dataclasses import dataclass

from compliance.erasures.commitment import hand_over
from gateway.errors import NotFound
from gateway.handing_out import receipt_proof
from gateway.openapi import Media, operation
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import current_services
from gateway.wire import WIRE, answer, refuse_long_body

erasures = Blueprint("erasures", __name__, url_prefix="/api/v1/privacy")
erasures.before_request(refuse_long_body)


@dataclass(frozen=True, slots=True, config=WIRE)
class PendingProof:
    """The entry is promised, and not yet in a signed tree."""

    request_id: str
    status: str


@dataclass(frozen=True, slots=True, config=WIRE)
class CommitmentKey:
    """What shows that the receipt's `subject` stands for this person; it is handed out once."""

    algorithm: str
    key: str
    subject_id: str


@erasures.get("/requests/<uuid:case_id>/receipt")
@operation("The signed receipt of a completed erasure", answers={200: Media.TEXT}, errors=(NotFound,))
def show_receipt(case_id: UUID) -> Response:
    """A compact JWS of type `fl-erasure+jwt`."""
    return Response(_receipt(case_id), mimetype=Media.TEXT.value)


@erasures.get("/requests/<uuid:case_id>/receipt/proof")
@operation(
    "The proof that the erasure's entry is in the log",
    answers={200: Media.TEXT, 202: PendingProof},
    errors=(NotFound,),
)
def show_proof(case_id: UUID) -> Response:
    """202 until the entry is sequenced and signed, then a C2SP tlog-proof."""
    proof = receipt_proof(current_services(), _receipt(case_id))
    if proof is None:
        return answer(PendingProof(str(case_id), "pending"), 202)
    return Response(proof.text(), mimetype=Media.TEXT.value)


@erasures.post("/requests/<uuid:case_id>/commitment-key")
@operation(
    "Hand over the key that opens the receipt's commitment, once",
    answers={200: CommitmentKey},
    errors=(NotFound,),
)
def hand_over_key(case_id: UUID) -> Response:
    """For the person; the gateway keeps none of it."""
    given = hand_over(desk_parts(current_services()), str(case_id), by=g.origin.actor)
    return answer(CommitmentKey("HMAC-SHA256", given.key, given.subject_id))


def _receipt(case_id: UUID) -> str:
    case = privacy_desk(current_services()).show(str(case_id))
    if case.receipt is None:
        raise NotFound("The request has no receipt: it is not a completed erasure")
    return case.receipt
