"""Lifting a restriction or an objection over HTTP (Art. 18(3), 21)."""

from __future__ import annotations

from uuid import UUID

from flask import Blueprint, Response, g
from pydantic import Field
from pydantic.dataclasses import dataclass

from gateway.api.privacy_wire import RequestView, view_of
from gateway.errors import BadRequest, Conflict, NotFound, ValidationFailed
from gateway.openapi import operation
from gateway.privacy import privacy_desk
from gateway.restricting import lift_restriction
from gateway.services import current_services
from gateway.wire import WIRE, answer, parse_body

restrictions = Blueprint("restrictions", __name__, url_prefix="/api/v1/privacy/requests")


@dataclass(frozen=True, slots=True, config=WIRE)
class LiftWish:
    """The body that lifts: what the person was told before."""

    notice: str = Field(max_length=2000, pattern=r"\S")
    version: int | None = None


@restrictions.post("/<uuid:case_id>/lift")
@operation(
    "Lift a restriction, which the person is told before, or end an objection that was withdrawn",
    body=LiftWish,
    answers={200: RequestView},
    errors=(BadRequest, NotFound, ValidationFailed, Conflict),
)
def lift(case_id: UUID) -> Response:
    """From now on the person's data is used again; what was left out of a round stays out."""
    services, wish = current_services(), parse_body(LiftWish)
    lifted = lift_restriction(
        services, str(case_id), by=g.origin.actor, notice=wish.notice, version=wish.version
    )
    return answer(view_of(privacy_desk(services), lifted))
