"""Events of data protection: what a person asked for, what was done about it, and what forbids it."""

from __future__ import annotations

from collections.abc import Mapping

from audit.vocabulary import Event, EventType, Ocsf, Outcome, Retention, Severity, details

_OPENED, _CHANGED, _ENDED = Ocsf(6003, 1), Ocsf(6003, 3), Ocsf(6003, 4)
_READ, _DELETE = Ocsf(6005, 1), Ocsf(6005, 7)

_INTENT = details(clear="phase case_id intent_id?")
_HOLD = details(clear="hold_id", sealed="subject")


def _desk(meaning: str, severity: Severity, activity: Ocsf, clear: str, sealed: str = "") -> Event:
    return Event(meaning, severity, activity, Retention.ACCOUNTABILITY, details(clear, sealed))


PEOPLE: Mapping[EventType, Event] = {
    EventType.PRIVACY_REQUESTED: _desk(
        "A person used a right under the GDPR.",
        Severity.LOW,
        _OPENED,
        "case_id type due_at:time",
        "subject",
    ),
    EventType.PRIVACY_MOVED: Event(
        "A privacy request went from one state to the next.",
        Severity.INFORMATIONAL,
        _CHANGED,
        Retention.ACCOUNTABILITY,
        details(clear="case_id type from_status to_status transition? due_at?:time"),
        outcomes=(Outcome.SUCCESS, Outcome.DENIED),
    ),
    EventType.PRIVACY_EXPORTED: _desk(
        "A person's data was packed for them.",
        Severity.LOW,
        _READ,
        "case_id files:integer size_bytes:integer",
        "manifest_digest",
    ),
    EventType.PRIVACY_ERASED: _desk(
        "A person's data was erased; the SIEM sinks that hold copies are named.",
        Severity.LOW,
        _DELETE,
        "case_id places:texts left:integer sinks:texts",
        "receipt_digest",
    ),
    EventType.HOLD_PLACED: Event(
        "A legal hold forbids the erasure of a person's data.",
        Severity.LOW,
        _OPENED,
        Retention.ACCOUNTABILITY,
        _HOLD,
    ),
    EventType.HOLD_LIFTED: Event(
        "A legal hold ended.", Severity.LOW, _ENDED, Retention.ACCOUNTABILITY, _HOLD
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
