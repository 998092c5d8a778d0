"""The privacy desk for people: requests with their deadlines, and each on one page with all that can be done about it.

Every move is the desk's own, with its rules, its entry and its compare-and-set; a page that is no longer current moves
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from flask import Response, redirect, request, url_for

from compliance.erasures.erasure import rests_under_hold
from compliance.errors import ComplianceError
from compliance.requests.cases import Case, RequestType, Status
from compliance.requests.desk import PrivacyDesk
from compliance.requests.listing import CaseFilter
from compliance.requests.reasons import Refusal
from compliance.requests.showing import sealed_of, show_sealed
from gateway.auth.people.person import Person
from gateway.auth.scopes import Scope
from gateway.console.blueprint import page_blueprint
from gateway.console.desk_forms import OPENS, FormWrong, Told, moved_by, opened_by, told
from gateway.console.desk_names import (
    EXEMPTIONS,
    REFUSALS,
    SEALED_FIELDS,
    STATUSES,
    TYPES,
    Kind,
    Step,
    moves_of,
    steps_of,
    urgency,
)
from gateway.console.door import page_person
from gateway.console.names import Named, Tone
from gateway.console.pages import render_page
from gateway.console.paging import PER_PAGE, Pages, page_number
from gateway.openapi import Media, operation
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import Services, current_services

requests = page_blueprint("console_requests", "/requests")
_PATIENCE_S = 5.0
_PAGE = {200: Media.HTML}


@dataclass(frozen=True, slots=True)
class CaseShown:
    """A request with the words and figures that its page shows."""

    case: Case
    kind: Kind
    state: Named
    steps: list[Step]
    moves: frozenset[str]
    days_left: int | None
    tone: Tone
    approvals: tuple[int, int]
    has_approved: bool
    owner: str
    is_held: bool


@requests.get("")
@operation("The privacy requests, for people", answers=_PAGE)
def show_requests() -> Response:
    """The open ones, those due first first; or those that the filter asks for."""
    services, number, asked = current_services(), page_number(), _asked()
    desk, person = privacy_desk(services), page_person()
    found, total = desk.page(_filter(asked), limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
    return render_page(
        "requests.html",
        cases=[shown(services, desk, case, person) for case in found],
        total=total,
        pages=Pages(number, total),
        asked=asked,
        types=TYPES,
        statuses=STATUSES,
    )


@requests.get("/new")
@operation("The form of a new privacy request", answers=_PAGE)
def show_new() -> Response:
    """Who asks for what, and when it came."""
    return _new_page({})


@requests.post("/new")
@operation("Open a privacy request by a form", body=Media.FORM, answers={303: None, 422: Media.HTML})
def send_new() -> Response:
    """Take it down; nothing is carried out before somebody approves it."""
    services, person = current_services(), page_person()
    try:
        case = opened_by(services, person, request.form)
    except (FormWrong, ComplianceError) as error:
        return _new_page(request.form, told(error))
    return to_case(case.id)


@requests.get("/<uuid:case_id>")
@operation("One privacy request, for people", answers={**_PAGE, 404: Media.HTML})
def show_request(case_id: UUID) -> Response:
    """Where it stands, what can be done, and its answer."""
    return case_page(str(case_id))


@requests.post("/<uuid:case_id>/reveal")
@operation("Show what a request keeps sealed, by a form", body=Media.FORM, answers={**_PAGE, 404: Media.HTML})
def send_reveal(case_id: UUID) -> Response:
    """The page with reference, correction and notes opened, this once; who looked is an entry."""
    parts = desk_parts(current_services())
    return case_page(str(case_id), opened=show_sealed(parts, str(case_id), by=page_person().acting()))


@requests.post("/<uuid:case_id>/<move>")
@operation(
    "Move a privacy request by a form",
    body=Media.FORM,
    answers={303: None, 404: Media.HTML, 409: Media.HTML, 422: Media.HTML},
)
def send_move(case_id: UUID, move: str) -> Response:
    """One move; approving it for the last time has it carried out."""
    desk, person = privacy_desk(current_services()), page_person()
    try:
        case = moved_by(desk, str(case_id), move, person, request.form)
        if case.status is Status.APPROVED:
            desk.run(case.id, patience_s=_PATIENCE_S)
    except (FormWrong, ComplianceError) as error:
        return case_page(str(case_id), told(error), sent=move)
    return to_case(str(case_id))


def case_page(case_id: str, error: Told | None = None, *, sent: str = "", **once: Any) -> Response:
    """The page of a request.

    Args:
        case_id: the request.
        error: what was wrong with the form that was sent from it.
        sent: the move of that form.
        once: what is shown this once, such as a link that was just made.
    """
    services, person = current_services(), page_person()
    desk = privacy_desk(services)
    case = desk.show(case_id)
    return render_page(
        "request.html",
        error.status if error else 200,
        shown=shown(services, desk, case, person),
        case=case,
        holds=desk.holds.active(case.subject_id),
        may_move=Scope.PRIVACY_MANAGE in person.scopes,
        refusals={code: text for code, text in REFUSALS.items() if _fits(code, case)},
        exemptions=EXEMPTIONS,
        error=error,
        sent=sent,
        form=request.form,
        sealed={name: SEALED_FIELDS[name] for name in sealed_of(case)},
        is_in_force=case.is_in_force,
        has_package=case.has_package(services.clock()),
        once=once,
    )


def shown(services: Services, desk: PrivacyDesk, case: Case, person: Person) -> CaseShown:
    """A request with its words and figures."""
    left, needed, is_held = desk.days_left(case), desk.approvals_needed(case), rests_under_hold(case)
    return CaseShown(
        case=case,
        kind=TYPES[case.type],
        state=STATUSES[case.status],
        steps=steps_of(case),
        moves=moves_of(case),
        days_left=left,
        tone=urgency(left),
        approvals=(needed if is_held else desk.approvals_given(case), needed),
        has_approved=desk.has_approved(case, person.subject_id),
        owner=_owner(services, case, person),
        is_held=is_held,
    )


def to_case(case_id: str) -> Response:
    """Go on to the page of a request."""
    response: Response = redirect(url_for("console_requests.show_request", case_id=case_id), 303)  # type: ignore[assignment]
    return response


def _owner(services: Services, case: Case, person: Person) -> str:
    """Whose hands it is in: `nobody`, `you`, or `another`."""
    if case.owner is None:
        return "nobody"
    return "you" if services.keystore.subject_of(case.owner["key"]) == person.subject_id else "another"


def _fits(code: Refusal, case: Case) -> bool:
    return code is not Refusal.EXEMPT or case.type is RequestType.ERASURE


def _asked() -> Mapping[str, str]:
    return {name: request.args.get(name, "") for name in ("status", "type", "owned")}


def _filter(asked: Mapping[str, str]) -> CaseFilter:
    status, kind = asked["status"], asked["type"]
    return CaseFilter(
        status=Status(status) if status in set(Status) else None,
        type=RequestType(kind) if kind in set(RequestType) else None,
        is_owned={"yes": True, "no": False}.get(asked["owned"]),
        is_open=not status,
    )


def _new_page(form: Mapping[str, str], error: Told | None = None) -> Response:
    person, today = (
        page_person(),
        privacy_desk(current_services()).calendar.day_of(current_services().clock()),
    )
    types = {kind: named for kind, named in TYPES.items() if OPENS[kind] in person.scopes}
    return render_page(
        "request_new.html",
        error.status if error else 200,
        types=types,
        form=form,
        error=error,
        today=today.isoformat(),
        wrong=error.field if error else "",
    )
