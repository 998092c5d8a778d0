"""Erasure receipts over HTTP."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response

from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.privacy import privacy_desk
from gateway.services import current_services

erasures = Blueprint("erasures", __name__, url_prefix="/api/v1/privacy")


@erasures.get("/requests/<uuid:case_id>/receipt")
@operation(
    "The signed receipt of a completed erasure",
    answers={200: Media.TEXT},
    errors=(NotFound,),
)
def show_receipt(case_id: UUID) -> Response:
    """A compact JWS of type `fl-erasure+jwt`."""
    case = privacy_desk(current_services()).show(str(case_id))
    if case.receipt is None:
        raise NotFound("The request has no receipt: it is not a completed erasure")
    return Response(case.receipt, mimetype=Media.TEXT.value)
