"""Personal fields of one log entry in clear, for who was given `audit:reveal` by name and says why (RULES 27)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response
from pydantic import Field
from pydantic.dataclasses import dataclass

from compliance.revealing import LONGEST_REASON, Revealed, reveal
from gateway.errors import NotFound, ValidationFailed
from gateway.log_entries import log_entry
from gateway.openapi import operation
from gateway.services import Services, current_services
from gateway.wire import WIRE, answer, parse_body

revealing = Blueprint("revealing", __name__, url_prefix="/api/v1/audit")


@dataclass(frozen=True, slots=True, config=WIRE)
class RevealWish:
    """Why the reader must know; it is kept, sealed, in the entry of the revealing."""

    reason: str = Field(min_length=1, max_length=LONGEST_REASON)


@dataclass(frozen=True, slots=True, config=WIRE)
class RevealedView:
    """The sealed fields of an entry: those that were opened, and the names of those that cannot be."""

    seq: int
    fields: dict[str, Any]
    destroyed: list[str]
    damaged: list[str]


@revealing.post("/entries/<int:seq>/reveal")
@operation(
    "Decrypt the personal fields of an entry; who did, and why, is an entry too",
    body=RevealWish,
    answers={200: RevealedView},
    errors=(NotFound, ValidationFailed),
)
def reveal_entry(seq: int) -> Response:
    """A field whose key an erasure destroyed stays what it is: noise."""
    found = revealed(current_services(), seq, parse_body(RevealWish).reason)
    return answer(RevealedView(seq, dict(found.values), [*found.destroyed], [*found.damaged]))


def revealed(services: Services, seq: int, reason: str) -> Revealed:
    """The fields of the entry at a place, opened for the actor of this request. Raises NotFound, ReasonMissing."""
    entry = log_entry(services, seq)
    return reveal(entry, reason, engine=services.engine, journal=services.trail, sealer=services.sealer)
