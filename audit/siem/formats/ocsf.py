"""The Open Cybersecurity Schema Framework, 1.5.0: each event type in the class that the catalogue names for it.

What the schema has no attribute for stands in `unmapped`, with `prev_seq`, by which a hole is found. Persons and
addresses are pseudonyms: `user.uid` and `src_endpoint.uid`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from audit.canonical import JsonValue
from audit.entry import Outcome
from audit.events import Ocsf
from audit.siem.event import SiemEvent

OCSF_VERSION = "1.5.0"
_Json = dict[str, JsonValue]
_PRODUCT: _Json = {"name": "fl-gateway", "vendor_name": "fl-gateway"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY = "unknown"  # no key, or an erased person's: nobody can say whose it was
_FAILURE: _Json = {"status_id": 2, "status": "Failure"}
_STATUS: Mapping[Outcome, _Json] = {Outcome.SUCCESS: {"status_id": 1, "status": "Success"}}
_OAUTH: _Json = {"auth_protocol_id": 6, "auth_protocol": "OAUTH 2.0"}

_CATEGORIES = {3: "Identity & Access Management", 6: "Application Activity"}
_CLASSES: Mapping[int, tuple[str, str]] = {
    3002: ("Authentication", "Unknown,Logon,Logoff"),
    3003: ("Authorize Session", "Unknown,Assign Privileges,Assign Groups"),
    3004: (
        "Entity Management",
        "Unknown,Create,Read,Update,Delete,Move,Enroll,Unenroll,Enable,Disable,Activate,Deactivate,Suspend,Resume",
    ),
    6002: ("Application Lifecycle", "Unknown,Install,Remove,Start,Stop,Restart,Enable,Disable,Update"),
    6003: ("API Activity", "Unknown,Create,Read,Update,Delete"),
    6005: (
        "Datastore Activity",
        "Unknown,Read,Update,Connect,Query,Write,Create,Delete,List,Encrypt,Decrypt",
    ),
}
"""By class, its caption and the captions of its activities, from 0; 99 is Other everywhere."""


def ocsf(event: SiemEvent) -> dict[str, JsonValue]:
    """The event in its OCSF class."""
    sense = event.sense
    return {
        "metadata": _metadata(event),
        "time": (event.time - _EPOCH) // timedelta(milliseconds=1),
        **_classified(sense.ocsf),
        "severity_id": sense.severity.value,
        "severity": sense.severity.name.capitalize(),
        **_STATUS.get(Outcome(event.text("outcome")), _FAILURE),
        **_reason(event),
        "message": sense.meaning,
        **_ATTRIBUTES[sense.ocsf.class_uid](event),
        "unmapped": _unmapped(event),
    }


def _metadata(event: SiemEvent) -> _Json:
    told: _Json = {
        "version": OCSF_VERSION,
        "product": _PRODUCT,
        "log_name": "audit",
        "log_provider": "fl-gateway",
        "event_code": event.text("event_type"),
        "sequence": event.seq,
        "original_time": event.text("time"),
    }
    for attribute, member in (("uid", "id"), ("correlation_uid", "trace_id")):
        if value := event.entry.get(member):
            told[attribute] = value
    return told


def _classified(place: Ocsf) -> _Json:
    """The numbers of category, class, activity and type, each with its caption."""
    category = place.class_uid // 1000
    caption, captions = _CLASSES[place.class_uid]
    activities = captions.split(",")
    activity = activities[place.activity_id] if place.activity_id < len(activities) else "Other"
    return {
        "category_uid": category,
        "category_name": _CATEGORIES[category],
        "class_uid": place.class_uid,
        "class_name": caption,
        "activity_id": place.activity_id,
        "activity_name": activity,
        "type_uid": place.class_uid * 100 + place.activity_id,
        "type_name": f"{caption}: {activity}",
    }


def _reason(event: SiemEvent) -> _Json:
    reason = event.details.get("reason")
    return {"status_detail": reason} if isinstance(reason, str) and reason else {}


def _unmapped(event: SiemEvent) -> _Json:
    shown = ("action", "resource", "request_id", "prev", "details")
    rest = {name: event.entry[name] for name in shown if name in event.entry}
    return {
        "prev_seq": event.prev_seq,
        "outcome": event.text("outcome"),
        "actor_pseudonym": event.pseudonym("actor"),  # not every class has an actor
        **rest,
    }


def _user(event: SiemEvent) -> _Json:
    uid = event.pseudonym("actor")
    return {"uid": uid} if uid else {"name": _NOBODY, "type_id": 0}


def _source(event: SiemEvent) -> _Json:
    if event.entry.get("ip_address") is None:
        return {"svc_name": "fl-gateway"}  # the gateway itself, or somebody at its console
    uid = event.pseudonym("ip_address")
    return {"uid": uid} if uid else {"name": _NOBODY}


def _resource(event: SiemEvent) -> str:
    """What it was done to, or its kind where the entry names none: `certificate`, `keys`."""
    return str(event.entry.get("resource") or event.text("event_type").partition(".")[0])


def _people(event: SiemEvent) -> _Json:
    return {"actor": {"user": _user(event)}, "src_endpoint": _source(event)}


def _authentication(event: SiemEvent) -> _Json:
    return {
        **_people(event),
        "user": _user(event),
        "service": {"name": "fl-gateway"},
        **_OAUTH,
        "is_remote": True,
    }


def _authorize_session(event: SiemEvent) -> _Json:
    scope = event.details.get("scope")
    return {
        **_people(event),
        "user": _user(event),
        "privileges": scope.split() if isinstance(scope, str) else [],
    }


def _entity_management(event: SiemEvent) -> _Json:
    kind = event.text("event_type").partition(".")[0]
    return {**_people(event), "entity": {"name": _resource(event), "type_id": 99, "type": kind}}


def _application_lifecycle(_event: SiemEvent) -> _Json:
    return {"app": _PRODUCT}


def _api_activity(event: SiemEvent) -> _Json:
    api: _Json = {"operation": event.text("event_type")}
    return {**_people(event), "api": api, "resources": [{"name": _resource(event)}]}


def _datastore_activity(event: SiemEvent) -> _Json:
    bucket: _Json = {"name": _resource(event), "type_id": 99, "type": "fl-gateway"}
    return {**_people(event), "type_id": 2, "type": "Databucket", "databucket": bucket}


_ATTRIBUTES: Mapping[int, Callable[[SiemEvent], _Json]] = MappingProxyType(
    {
        3002: _authentication,
        3003: _authorize_session,
        3004: _entity_management,
        6002: _application_lifecycle,
        6003: _api_activity,
        6005: _datastore_activity,
    }
)
