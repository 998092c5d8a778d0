"""Legal holds for people: placed with a matter and a ground, reviewed in time, ended by two persons (Art. 17(3))."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import cast
from uuid import UUID

from flask import Response, redirect, request, url_for

from compliance.errors import ComplianceError
from compliance.keeping.hold import EVERYWHERE, Hold
from compliance.keeping.holds import Holds
from compliance.requests.reasons import Exemption
from gateway.auth.people.person import Person
from gateway.console.blueprint import page_blueprint
from gateway.console.desk_forms import FormWrong, Told, subject_of, told
from gateway.console.desk_names import EXEMPTIONS
from gateway.console.door import page_person
from gateway.console.pages import render_page
from gateway.console.paging import PER_PAGE, Pages, page_number
from gateway.errors import NotFound
from gateway.openapi import Media, operation
from gateway.privacy import privacy_desk
from gateway.services import current_services
from gateway.translations import say

holds = page_blueprint("console_holds", "/holds")
_REVIEW_IN = timedelta(days=180)
_LONGEST = 2000
_PAGE = {200: Media.HTML}


@holds.get("")
@operation("Legal holds, for people", answers=_PAGE)
def show_holds() -> Response:
    """Those in force, the next to be reviewed first; or those that were lifted."""
    desk, number = _holds(), page_number()
    is_active = request.args.get("state") != "lifted"
    found = desk.list(is_active=is_active, limit=PER_PAGE, offset=(number - 1) * PER_PAGE)
    total = desk.total(is_active=is_active)
    return render_page(
        "holds.html",
        holds=found,
        total=total,
        pages=Pages(number, total),
        is_active=is_active,
        exemptions=EXEMPTIONS,
        now=current_services().clock(),
        everywhere=EVERYWHERE,
    )


@holds.get("/new")
@operation("The form of a new legal hold", answers=_PAGE)
def show_new() -> Response:
    """Whose data must stay, and why; `client` or `request` in the address says whose, and fills in no more."""
    return _new_page({name: request.args.get(name, "") for name in ("client", "request")})


@holds.post("/new")
@operation(
    "Place a legal hold by a form", body=Media.FORM, answers={303: None, 409: Media.HTML, 422: Media.HTML}
)
def send_new() -> Response:
    """Place it; a person whose erasure has begun gets none."""
    try:
        placed = _placed(_holds(), page_person(), request.form)
    except (FormWrong, ComplianceError) as error:
        return _new_page(request.form, told(error))
    return _to(placed.id)


@holds.get("/<uuid:hold_id>")
@operation("One legal hold, with its matter, for people", answers={**_PAGE, 404: Media.HTML})
def show_hold(hold_id: UUID) -> Response:
    """What it covers, and what can be done."""
    return _hold_page(str(hold_id))


@holds.post("/<uuid:hold_id>/<move>")
@operation(
    "Review a legal hold, ask for its end, or agree to it, by a form",
    body=Media.FORM,
    answers={303: None, 404: Media.HTML, 409: Media.HTML, 422: Media.HTML},
)
def send_move(hold_id: UUID, move: str) -> Response:
    """`review`, `ask`, or `release`, which takes a second person."""
    try:
        _moved(_holds(), str(hold_id), move, page_person(), request.form)
    except (FormWrong, ComplianceError) as error:
        return _hold_page(str(hold_id), told(error))
    return _to(str(hold_id))


def _moved(desk: Holds, hold_id: str, move: str, person: Person, form: Mapping[str, str]) -> Hold:
    by = person.acting()
    match move:
        case "review":
            return desk.review(hold_id, review_at=_review_day(form), by=by)
        case "ask":
            return desk.ask_release(hold_id, by=by)
        case "release":
            return desk.release(hold_id, by=by)
    raise NotFound("A hold can be reviewed, asked to end, and released")


def _placed(desk: Holds, person: Person, form: Mapping[str, str]) -> Hold:
    basis, matter = form.get("basis", ""), form.get("matter", "").strip()
    if not 0 < len(matter) <= _LONGEST:
        raise FormWrong(say("Say which case or claim the data is needed for"), "matter")
    if basis not in set(Exemption):
        raise FormWrong(say("Choose the ground that it rests on"), "basis")
    return desk.place(
        _subject(form),
        matter=matter,
        scope=_scope(desk),
        basis=Exemption(basis),
        review_at=_review_day(form),
        by=person.acting(),
    )


def _scope(desk: Holds) -> list[str]:
    chosen = [name for name in request.form.getlist("scope") if name in (*desk.names, EVERYWHERE)]
    if not chosen:
        raise FormWrong(say("Choose at least one place, or everywhere"), "scope")
    return [EVERYWHERE] if EVERYWHERE in chosen else chosen


def _subject(form: Mapping[str, str]) -> str:
    """The person by one of their clients, or the one that a request is about."""
    case_id, client_id = form.get("request", "").strip(), form.get("client", "").strip()
    if case_id:
        try:
            return privacy_desk(current_services()).show(str(UUID(case_id))).subject_id
        except ValueError:
            raise FormWrong(say("There is no such request"), "client") from None
    return subject_of(current_services(), client_id)


def _review_day(form: Mapping[str, str]) -> datetime:
    """The end of the local day on which its grounds are looked at again."""
    try:
        day = date.fromisoformat(form.get("review", ""))
    except ValueError:
        raise FormWrong(say("Say when its grounds are looked at again"), "review") from None
    if day.year > 9000:
        raise FormWrong(say("That day is too far ahead"), "review")
    return privacy_desk(current_services()).calendar.end_of(day)


def _new_page(form: Mapping[str, str], error: Told | None = None) -> Response:
    return render_page(
        "hold_new.html",
        error.status if error else 200,
        form=form,
        scope=request.form.getlist("scope") or [EVERYWHERE],
        error=error,
        wrong=error.field if error else "",
        places=_holds().names,
        exemptions=EXEMPTIONS,
        everywhere=EVERYWHERE,
        review=form.get("review") or _proposed(),
    )


def _hold_page(hold_id: str, error: Told | None = None) -> Response:
    desk, person = _holds(), page_person()
    hold = desk.show(hold_id)
    return render_page(
        "hold.html",
        error.status if error else 200,
        hold=hold,
        matter=desk.matter(hold_id),
        has_asked=desk.has_asked(hold_id, person.acting()),
        exemptions=EXEMPTIONS,
        everywhere=EVERYWHERE,
        error=error,
        wrong=error.field if error else "",
        now=current_services().clock(),
        review=_proposed(),
    )


def _proposed() -> str:
    """A day for the next review."""
    services = current_services()
    return privacy_desk(services).calendar.day_of(services.clock() + _REVIEW_IN).isoformat()


def _holds() -> Holds:
    return privacy_desk(current_services()).holds


def _to(hold_id: str) -> Response:
    return cast(Response, redirect(url_for("console_holds.show_hold", hold_id=hold_id), 303))
