"""What an operator orders over HTTP while rounds run: pause, resume, extend; and the switch of all intake."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import AwareDatetime, Field
from pydantic.dataclasses import dataclass

from audit.reading import reading
from gateway.api.rounds import RoundView, shown_round
from gateway.errors import Conflict, NotFound, RoundExpired, RoundPaused, ValidationFailed
from gateway.openapi import operation
from gateway.paths import insist_number
from gateway.rounds.deadlines import END_OF_TIME, put_off
from gateway.rounds.intake_switch import Intake, intake_of, resume_intake, stop_intake
from gateway.rounds.pausing import pause, resume
from gateway.rounds.record import Round
from gateway.services import current_services
from gateway.wire import WIRE, answer, parse_body

round_control = Blueprint("round_control", __name__, url_prefix="/api/v1")


@dataclass(frozen=True, slots=True, config=WIRE)
class ExtendWish:
    """The deadline that a round shall have."""

    deadline: Annotated[AwareDatetime, Field(lt=END_OF_TIME)]


@dataclass(frozen=True, slots=True, config=WIRE)
class IntakeView:
    """Whether updates and new rounds are taken, and since when; null if that never changed."""

    status: Literal["open", "stopped"]
    since: datetime | None


@round_control.post("/rounds/<int:round_number>/pause")
@operation(
    "Take no updates for a round until it is resumed",
    answers={200: RoundView},
    errors=(NotFound, RoundExpired, RoundPaused, Conflict),
)
def pause_round(round_number: int) -> Response:
    """It is neither frozen nor failed meanwhile."""
    return _shown(pause(current_services(), insist_number(round_number)))


@round_control.post("/rounds/<int:round_number>/resume")
@operation(
    "Let a paused round go on",
    answers={200: RoundView},
    errors=(NotFound, RoundExpired, Conflict),
)
def resume_round(round_number: int) -> Response:
    """Its deadline moves by the time that it was paused."""
    return _shown(resume(current_services(), insist_number(round_number)))


@round_control.post("/rounds/<int:round_number>/extend")
@operation(
    "Set a later deadline for a round",
    body=ExtendWish,
    answers={200: RoundView},
    errors=(NotFound, RoundExpired, Conflict, ValidationFailed),
)
def extend_round(round_number: int) -> Response:
    """Not for a Poisson round, whose sample must not depend on who came."""
    wish = parse_body(ExtendWish)
    return _shown(put_off(current_services(), insist_number(round_number), wish.deadline))


@round_control.get("/intake")
@operation("Whether updates and new rounds are taken", answers={200: IntakeView})
def show_intake() -> Response:
    """The switch as it stands."""
    with reading(current_services().engine) as conn:
        return answer(_intake(intake_of(conn)))


@round_control.post("/intake/stop")
@operation("Take no updates and open no rounds", answers={200: IntakeView})
def stop() -> Response:
    """Once this has answered, none is committed any more."""
    return answer(_intake(stop_intake(current_services())))


@round_control.post("/intake/resume")
@operation("Take updates and open rounds again", answers={200: IntakeView})
def start_again() -> Response:
    """Deadlines have not moved meanwhile."""
    return answer(_intake(resume_intake(current_services())))


def _shown(found: Round) -> Response:
    with reading(current_services().engine) as conn:
        return answer(shown_round(conn, found))


def _intake(found: Intake) -> IntakeView:
    return IntakeView("open" if found.is_open else "stopped", found.since)
