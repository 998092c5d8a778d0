"""The Elastic Common Schema, 8.17: category and type follow from the OCSF class and activity of the event type.

What ECS has no field for stands under `fl_gateway`, with `prev_seq`, by which a hole is found. Persons are
pseudonyms: `user.id`, `related.user`.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit.canonical import JsonValue
from audit.entry import Outcome
from audit.siem.event import UNREADABLE, SiemEvent

ECS_VERSION = "8.17.0"
_SERVICE = {"name": "fl-gateway", "type": "fl-gateway"}

_CATEGORIES: Mapping[int, str] = {
    3002: "authentication",
    3003: "api",  # `authentication` has no type for a denial
    3004: "iam",
    6002: "configuration",
    6003: "api",
    6005: "database",
}
_TYPES: Mapping[int, Mapping[int, str]] = {
    3002: {1: "start", 2: "end"},
    3003: {1: "access", 2: "access"},
    3004: {1: "creation", 3: "change", 4: "deletion", 6: "creation", 7: "deletion"}
    | dict.fromkeys((8, 9, 10, 11, 12, 13), "change"),
    6002: {3: "start", 4: "end", 6: "change", 7: "change", 8: "change"},
    6003: {1: "creation", 2: "access", 3: "change", 4: "deletion"},
    6005: {
        1: "access",
        4: "access",
        8: "access",
        10: "access",
        2: "change",
        5: "change",
        6: "change",
        7: "change",
    },
}
_RUNS = frozenset({"start", "end"})
_DENIABLE = "api"  # the one category whose types know a denial


def ecs(event: SiemEvent) -> dict[str, JsonValue]:
    """The event as a document of the data stream `logs-fl_gateway.audit-…`."""
    return {
        "@timestamp": event.text("time"),
        "ecs": {"version": ECS_VERSION},
        "message": event.sense.meaning,
        "event": _event(event),
        **_people(event),
        **_request(event),
        "service": _SERVICE,
        "fl_gateway": _own(event),
    }


def _event(event: SiemEvent) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {
        "kind": "event",
        **_classified(event),
        "action": event.text("event_type"),
        "outcome": "success" if event.text("outcome") == Outcome.SUCCESS else "failure",
        "sequence": event.seq,
        "provider": "fl-gateway",
        "module": "fl_gateway",
        "dataset": "fl_gateway.audit",
    }
    if event.text("event_type") == UNREADABLE:
        told |= {"kind": "alert", "type": ["error"]}
    if entry_id := event.entry.get("id"):
        told["id"] = entry_id
    reason = event.details.get("reason")
    return {**told, "reason": reason} if isinstance(reason, str) and reason else told


def _classified(event: SiemEvent) -> dict[str, JsonValue]:
    place = event.sense.ocsf
    category = _CATEGORIES[place.class_uid]
    types = [_TYPES[place.class_uid].get(place.activity_id, "info")]
    if category == "configuration" and types[0] in _RUNS:
        category = "process"
    if event.text("outcome") == Outcome.DENIED and category == _DENIABLE:
        types.append("denied")
    return {"category": [category], "type": types, "severity": event.sense.severity.value}


def _people(event: SiemEvent) -> dict[str, JsonValue]:
    """Whoever is left as a pseudonym; nobody and the erased are no field at all."""
    actor, address = event.pseudonym("actor"), event.pseudonym("ip_address")
    found = list(dict.fromkeys(name for name in (actor, address) if name))
    if not found:
        return {}
    user: dict[str, JsonValue] = {"user": {"id": actor}} if actor else {}
    return {**user, "related": {"user": found}}


def _request(event: SiemEvent) -> dict[str, JsonValue]:
    told: dict[str, JsonValue] = {}
    if trace_id := event.entry.get("trace_id"):
        told["trace"] = {"id": trace_id}
    if request_id := event.entry.get("request_id"):
        told["http"] = {"request": {"id": request_id}}
    return told


def _own(event: SiemEvent) -> dict[str, JsonValue]:
    """The details come last: whoever reads the beginning of an event alone, as Splunk does, has the rest."""
    shown = ("action", "resource", "outcome", "prev")
    own: dict[str, JsonValue] = {"prev_seq": event.prev_seq}
    own |= {name: event.entry[name] for name in shown if name in event.entry}
    if address := event.pseudonym("ip_address"):
        own["address_pseudonym"] = address
    return {**own, "details": event.details}


__all__ = ["ECS_VERSION", "ecs"]
