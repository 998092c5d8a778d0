"""What requests, their states, moves, grounds and holds are called on pages; a test sees that each has its words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from compliance.erasures.erasure import rests_under_hold
from compliance.requests.cases import MOVES, Case, Move, RequestType, Status
from compliance.requests.reasons import Exemption, Refusal
from gateway.console.names import Named, Tone
from gateway.translations import say


@dataclass(frozen=True, slots=True)
class Kind:
    """A right that people have: its name, its article, and what carrying it out does."""

    name: str
    article: str
    effect: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a request's way, as its page shows it."""

    name: str
    is_done: bool = False
    is_now: bool = False


TYPES: Mapping[RequestType, Kind] = {
    RequestType.ACCESS: Kind(
        say("Access"), "Art. 15", say("Writes a signed package of all that is kept about the person.")
    ),
    RequestType.PORTABILITY: Kind(
        say("Portability"), "Art. 20", say("Writes a signed package of what the person gave, for machines.")
    ),
    RequestType.ERASURE: Kind(
        say("Erasure"),
        "Art. 17",
        say("Erases the person's data place by place, and destroys its keys for good."),
    ),
    RequestType.RESTRICTION: Kind(
        say("Restriction"), "Art. 18", say("Keeps the person's data, and takes it out of every use.")
    ),
    RequestType.OBJECTION: Kind(
        say("Objection"), "Art. 21", say("Ends the use of the person's data in training.")
    ),
    RequestType.RECTIFICATION: Kind(
        say("Rectification"), "Art. 16", say("Puts right what is wrong in the person's data.")
    ),
}
STATUSES: Mapping[Status, Named] = {
    Status.RECEIVED: Named(say("Received"), Tone.WARN),
    Status.AWAITING_IDENTITY: Named(say("Awaits proof of identity"), Tone.WARN),
    Status.IN_REVIEW: Named(say("In review"), Tone.WARN),
    Status.APPROVED: Named(say("Approved")),
    Status.RUNNING: Named(say("Being carried out")),
    Status.ON_HOLD: Named(say("On hold"), Tone.BAD),
    Status.COMPLETED: Named(say("Completed"), Tone.GOOD),
    Status.REFUSED: Named(say("Refused")),
    Status.WITHDRAWN: Named(say("Withdrawn")),
}
REFUSALS: Mapping[Refusal, str] = {
    Refusal.NOT_IDENTIFIED: say("Not identified: the person did not show who they are (Art. 12(6))"),
    Refusal.NOT_IDENTIFIABLE: say("Not identifiable: we cannot tell whose data it is (Art. 11(2))"),
    Refusal.MANIFESTLY_UNFOUNDED: say("Manifestly unfounded (Art. 12(5))"),
    Refusal.EXCESSIVE: say("Excessive: repeated without reason (Art. 12(5))"),
    Refusal.EXEMPT: say("Exempt: the data must be kept (Art. 17(3))"),
    Refusal.THIRD_PARTY_RIGHTS: say("The rights of others (Art. 15(4), 20(4))"),
    Refusal.NOT_COVERED: say("The right does not reach this data"),
}
EXEMPTIONS: Mapping[Exemption, str] = {
    Exemption.EXPRESSION: say("(a) freedom of expression and information"),
    Exemption.LEGAL_DUTY: say("(b) a legal obligation, or a public task"),
    Exemption.PUBLIC_HEALTH: say("(c) public health"),
    Exemption.ARCHIVE: say("(d) archiving, research, statistics"),
    Exemption.LEGAL_CLAIMS: say("(e) legal claims"),
}
SEALED_FIELDS: Mapping[str, str] = {
    "reference": say("Reference"),
    "correction": say("To be put right"),
    "extension_reason": say("Extension"),
    "reason": say("Note"),
}
_FIRST, _LAST = say("Received"), say("Answered")
_WAY = {
    Status.RECEIVED: 1,
    Status.AWAITING_IDENTITY: 1,
    Status.IN_REVIEW: 2,
    Status.ON_HOLD: 2,
    Status.APPROVED: 3,
    Status.RUNNING: 3,
}
_CARRIED_OUT = 3
_STEPS = (_FIRST, say("Person known"), say("Decided"), say("Carried out"), _LAST)
_ENDINGS = {Status.REFUSED: say("Refused"), Status.WITHDRAWN: say("Withdrawn")}


def steps_of(case: Case) -> list[Step]:
    """The way of a request: what is behind it, and where it stands."""
    if case.status in _ENDINGS:
        return [Step(_FIRST, is_done=True), Step(_ENDINGS[case.status], is_done=True)]
    at = _CARRIED_OUT if rests_under_hold(case) else _WAY.get(case.status, len(_STEPS))
    return [Step(name, is_done=number < at, is_now=number == at) for number, name in enumerate(_STEPS)]


def moves_of(case: Case) -> frozenset[str]:
    """What a person can do with a request as it stands."""
    found = set() if case.is_begun else {move.value for move in Move if case.status in MOVES[move][0]}
    if case.is_open:
        found |= {"take"} | (set() if case.extended_at else {"extend"})
    return frozenset(found)


def urgency(days_left: int | None) -> Tone:
    """How a deadline is to be taken: at ten days and at five there is an alarm."""
    if days_left is None or days_left > 10:
        return Tone.CALM
    return Tone.WARN if days_left > 5 else Tone.BAD
