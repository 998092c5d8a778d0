"""Events of data protection: what a person asked for, what was done about it, and what forbids it."""

from __future__ import annotations

from collections.abc import Mapping

from audit.vocabulary import Event, EventType, Ocsf, Outcome, Retention, Severity, details

_OPENED, _CHANGED, _ENDED = Ocsf(6003, 1), Ocsf(6003, 3), Ocsf(6003, 4)
_READ, _DELETE = Ocsf(6005, 1), Ocsf(6005, 7)

_INTENT = details(clear="phase case_id intent_id?")


def _desk(meaning: str, severity: Severity, activity: Ocsf, clear: str, sealed: str = "") -> Event:
    return Event(meaning, severity, activity, Retention.ACCOUNTABILITY, details(clear, sealed))


PEOPLE: Mapping[EventType, Event] = {
    EventType.PRIVACY_REQUESTED: _desk(
        "A person used a right under the GDPR.",
        Severity.LOW,
        _OPENED,
        "case_id type due_at:time received_at?:time is_by_reference?:flag duplicate_of?",
        "subject",
    ),
    EventType.PRIVACY_MOVED: Event(
        "A privacy request went from one state to the next.",
        Severity.INFORMATIONAL,
        _CHANGED,
        Retention.ACCOUNTABILITY,
        details(clear="case_id type from_status to_status transition? due_at?:time refusal? exemption?"),
        outcomes=(Outcome.SUCCESS, Outcome.DENIED),
    ),
    EventType.PRIVACY_EXPORTED: _desk(
        "A person's data was packed for them.",
        Severity.LOW,
        _READ,
        "case_id files:integer size_bytes:integer",
        "manifest_digest",
    ),
    EventType.PRIVACY_ALARMED: _desk(
        "A privacy request is due soon, or nobody has taken it in hand.",
        Severity.MEDIUM,
        _CHANGED,
        "case_id alarm due_at:time",
    ),
    EventType.PRIVACY_STATED: _desk(
        "A silo got the signed statement that is the answer where nobody can be identified.",
        Severity.LOW,
        _READ,
        "case_id type rounds:integer",
        "statement_digest",
    ),
    EventType.PRIVACY_LINKED: _desk(
        "A link was made that opens a person's package once.",
        Severity.LOW,
        _OPENED,
        "case_id expires_at:time",
    ),
    EventType.PRIVACY_FETCHED: _desk(
        "A person's package was handed out; the way is link, token or console.",
        Severity.LOW,
        _READ,
        "case_id way",
    ),
    EventType.PRIVACY_EXPIRED: _desk(
        "A person's package was removed with its links, since its days were over.",
        Severity.INFORMATIONAL,
        _DELETE,
        "case_id",
    ),
    EventType.PRIVACY_ERASED: _desk(
        "A person's data was erased; the SIEM sinks that hold copies are named.",
        Severity.LOW,
        _DELETE,
        "case_id places:texts left:integer sinks:texts",
        "receipt_digest",
    ),
    EventType.PRIVACY_TOLD: _desk(
        "A person is being erased, and whoever got copies under the pseudonym is to erase them.",
        Severity.MEDIUM,
        _DELETE,
        "case_id recipients:texts",
        "subject",
    ),
    EventType.PRIVACY_KEY_GIVEN: _desk(
        "The key that opens an erasure receipt's commitment was handed over, once.",
        Severity.LOW,
        _READ,
        "case_id",
    ),
    EventType.PRIVACY_REVEALED: _desk(
        "What a request keeps sealed (reference, correction, notes) was opened for somebody who decides on it.",
        Severity.LOW,
        _READ,
        "case_id fields:texts",
    ),
    EventType.PRIVACY_LIFTED: _desk(
        "A restriction or an objection ended, and the person was told before.",
        Severity.LOW,
        _ENDED,
        "case_id type",
        "notice",
    ),
    EventType.HOLD_PLACED: _desk(
        "A legal hold forbids the erasure of a person's data.",
        Severity.LOW,
        _OPENED,
        "hold_id scope?:texts basis? review_at?:time",
        "subject",
    ),
    EventType.HOLD_REVIEWED: _desk(
        "The grounds of a legal hold still stand, until its next review.",
        Severity.LOW,
        _CHANGED,
        "hold_id review_at:time",
    ),
    EventType.HOLD_OVERDUE: _desk(
        "Nobody has looked at the grounds of a legal hold in time.",
        Severity.MEDIUM,
        _CHANGED,
        "hold_id review_at:time",
    ),
    EventType.HOLD_RELEASE_ASKED: _desk(
        "Somebody asked to end a legal hold; another person has to agree.",
        Severity.LOW,
        _CHANGED,
        "hold_id",
    ),
    EventType.HOLD_LIFTED: _desk("A legal hold ended.", Severity.LOW, _ENDED, "hold_id", "subject?"),
    EventType.RETENTION_APPLIED: _desk(
        "Data whose time was over was removed.",
        Severity.INFORMATIONAL,
        _DELETE,
        "category rows:integer before:time",
    ),
    EventType.INTENT_ERASE: Event(
        "A person is erased in every place.",
        Severity.INFORMATIONAL,
        _DELETE,
        Retention.ACCOUNTABILITY,
        _INTENT,
        outcomes=(Outcome.SUCCESS, Outcome.FAILURE),
    ),
    EventType.INTENT_EXPORT: Event(
        "A person's data is packed.",
        Severity.INFORMATIONAL,
        _READ,
        Retention.ACCOUNTABILITY,
        _INTENT,
        outcomes=(Outcome.SUCCESS, Outcome.FAILURE),
    ),
}
