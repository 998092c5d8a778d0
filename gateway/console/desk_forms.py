"""The forms of the privacy desk: what somebody filled in becomes a move of the desk's, or a word on what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from audit.canonical import JsonValue
from compliance.errors import BadHold, ComplianceError
from compliance.requests.cases import Case, RequestType
from compliance.requests.desk import PrivacyDesk
from compliance.requests.reasons import Exemption, Refusal
from gateway.auth.people.person import Person
from gateway.auth.roster import is_client_id
from gateway.auth.scopes import Scope
from gateway.errors import GatewayError, NotFound
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.restricting import lift_restriction
from gateway.services import Services, current_services
from gateway.translations import say

_LONGEST, _LONGEST_REFERENCE = 2000, 200
_FIELDS = {"BAD_RECEIPT_DAY": "received", "CORRECTION_NEEDED": "correction", "BAD_REFUSAL": "exemption"}
OPENS = {
    RequestType.ACCESS: Scope.PRIVACY_EXPORT,
    RequestType.PORTABILITY: Scope.PRIVACY_EXPORT,
    RequestType.ERASURE: Scope.PRIVACY_ERASE,
    RequestType.RESTRICTION: Scope.PRIVACY_MANAGE,
    RequestType.OBJECTION: Scope.PRIVACY_MANAGE,
    RequestType.RECTIFICATION: Scope.PRIVACY_MANAGE,
}


class FormWrong(GatewayError):
    """A field of a form that must be filled otherwise."""

    status, code, title = 422, "FORM_WRONG", say("Something in the form must be filled otherwise")

    def __init__(self, detail: str, field: str) -> None:
        super().__init__(detail)
        self.field = field


@dataclass(frozen=True, slots=True)
class Told:
    """A refusal as a page tells it beside the form; `field` is the one to be filled otherwise, if it is one."""

    status: int
    title: str
    detail: str
    field: str = ""


def told(error: FormWrong | ComplianceError) -> Told:
    """A refusal as a page tells it; the log keeps it as it keeps the others."""
    from gateway.problems import refused  # the answers to errors know the console's pages

    found = refused(error)
    if isinstance(error, BadHold):
        return Told(found.status, found.title, error.problem, error.field.removesuffix("_at"))
    field = error.field if isinstance(error, FormWrong) else _FIELDS.get(error.code, "")
    return Told(found.status, found.title, found.detail, field)


def opened_by(services: Services, person: Person, form: Mapping[str, str]) -> Case:
    desk, kind = privacy_desk(services), form.get("type", "")
    if kind not in set(RequestType) or OPENS[RequestType(kind)] not in person.scopes:
        raise FormWrong(say("Choose what is asked for"), "type")
    reference = _reference(form.get("reference", "").strip())
    is_to_correct = kind == RequestType.RECTIFICATION and not reference
    correction = _correction(form.get("correction", "")) if is_to_correct else None
    return desk.open(
        kind,
        subject_of(services, form.get("client", "").strip()),
        requested_by=person.acting(),
        received_at=_received(desk, services.clock(), form.get("received", "").strip()),
        may_approve_alone=Scope.PRIVACY_MANAGE in person.scopes,
        reference=reference,
        correction=correction,
    )


def subject_of(services: Services, client_id: str) -> str:
    """The person behind a client, or the silo that knows one."""
    found = ClientBook(services).subject_of(client_id) if is_client_id(client_id) else None
    if found is None:
        raise FormWrong(say("There is no client of this id, or it was erased"), "client")
    return found


def _reference(text: str) -> str | None:
    if len(text) > _LONGEST_REFERENCE or not text.isprintable():
        raise FormWrong(say("A reference has at most 200 characters, all of them visible"), "reference")
    return text or None


def _received(desk: PrivacyDesk, now: datetime, text: str) -> datetime | None:
    """When a letter came, by its local day; today is now."""
    try:
        day = date.fromisoformat(text) if text else desk.calendar.day_of(now)
    except ValueError:
        raise FormWrong(say("Write the day as 2026-12-31"), "received") from None
    if day == desk.calendar.day_of(now):
        return None
    if day > desk.calendar.day_of(now):
        raise FormWrong(say("A request cannot have come in the future"), "received")
    return desk.calendar.start_of(day) + timedelta(hours=12)


def _correction(text: str) -> dict[str, JsonValue]:
    """Lines like `name: Hospital of Ulm` or `device.platform: linux`."""
    pairs = [line.partition(":") for line in text.splitlines() if line.strip()]
    if not pairs or not all(colon and name.strip() and value.strip() for name, colon, value in pairs):
        raise FormWrong(
            say("Say what is to be put right, a line each, such as name: Hospital of Ulm"), "correction"
        )
    right: dict[str, JsonValue] = {}
    for name, _, value in pairs:
        first, dot, rest = name.strip().partition(".")
        if not dot:
            right[first] = value.strip()
            continue
        inner = right.setdefault(first, {})
        if not isinstance(inner, dict):
            raise FormWrong(say("Write a part of the device as device.platform: linux"), "correction")
        inner[rest] = value.strip()
    return right


def moved_by(desk: PrivacyDesk, case_id: str, move: str, person: Person, form: Mapping[str, str]) -> Case:
    by, version = person.acting(), _version(form)
    match move:
        case "take" | "identify" | "review" | "withdraw" | "resume" | "approve":
            plain: Mapping[str, Any] = {
                "take": desk.take,
                "identify": desk.identify,
                "review": desk.review,
                "withdraw": desk.withdraw,
                "resume": desk.resume,
                "approve": desk.approve,
            }
            moved: Case = plain[move](case_id, by=by, version=version)
            return moved
        case "hold":
            reason = _needed(form, "reason", say("Say why it rests"))
            return desk.hold(case_id, by=by, reason=reason, version=version)
        case "extend":
            reason = _needed(form, "reason", say("Say why it takes so long"))
            notice = _needed(form, "notice", say("Say how and when the person was told"))
            return desk.extend(case_id, by=by, reason=reason, notice=notice, version=version)
        case "refuse":
            return _refused(desk, case_id, person, form, version)
        case "lift":
            notice = _needed(form, "notice", say("Say how and when the person was told"))
            return lift_restriction(current_services(), case_id, by=by, notice=notice, version=version)
    raise NotFound("There is no such move")


def _refused(desk: PrivacyDesk, case_id: str, person: Person, form: Mapping[str, str], version: int) -> Case:
    ground, letter, note = form.get("ground", ""), form.get("exemption", ""), form.get("note", "").strip()
    if len(note) > _LONGEST:
        raise FormWrong(say("A note has at most 2000 characters"), "note")
    if ground not in set(Refusal):
        raise FormWrong(say("Choose the ground of the refusal: it is owed to the person"), "ground")
    return desk.refuse(
        case_id,
        by=person.acting(),
        reason=Refusal(ground),
        exemption=Exemption(letter) if letter in set(Exemption) and ground == Refusal.EXEMPT else None,
        note=note,
        version=version,
    )


def _needed(form: Mapping[str, str], name: str, detail: str) -> str:
    found = form.get(name, "").strip()
    if not 0 < len(found) <= _LONGEST:
        raise FormWrong(detail, name)
    return found


def _version(form: Mapping[str, str]) -> int:
    """What the page showed; a form that does not say it was sent from none that is current."""
    text = form.get("version", "")
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
