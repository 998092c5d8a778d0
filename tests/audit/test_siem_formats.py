"""What a SIEM is told, in each form: every event type, checked with what the makers of the forms have published."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
from py_ocsf_models.events.base_event import BaseEvent
from py_ocsf_models.objects.api import API
from py_ocsf_models.objects.metadata import Metadata
from services.clock import FixedClock
from services.ecs import FIELDS, KINDS, OUTCOMES, OWN_FIELDS, TYPES
from services.siem import NOON

from audit.canonical import JsonValue
from audit.entry import FIRST_PREV, Draft, Outcome, Sealed, place
from audit.events import EVENTS, EventType, Kind
from audit.siem.event import SiemEvent, render
from audit.siem.formats import FORMATS
from audit.siem.formats.ocsf import OCSF_VERSION
from audit.store import StoredEntry

EVERY_CASE = [(kind, outcome) for kind in EventType for outcome in Outcome]


VALUES: dict[Kind, JsonValue] = {
    Kind.TEXT: "TOO_LATE",
    Kind.INTEGER: 403,
    Kind.FLAG: True,
    Kind.TIME: "2026-11-24T11:00:00.000000Z",
    Kind.DECIMAL: "0.25",
    Kind.TEXTS: ["audit:read", "model:download"],
}


def stored(kind: EventType, outcome: Outcome = Outcome.SUCCESS, *, address: bool = True) -> StoredEntry:
    """An entry of this type with every detail that the catalogue declares, what is personal sealed."""
    sealed = Sealed("Y2FuYXJ5", "k" * 64)
    fields = EVENTS[kind].fields
    made = Draft(
        id="0198c0de-0000-7000-8000-000000000041",
        time=NOON + timedelta(milliseconds=250),
        event_type=kind,
        actor=sealed,
        action="does",
        resource="round/7",
        outcome=outcome,
        request_id="0198c0de-0000-4000-8000-000000000001",
        trace_id="a" * 32,
        ip_address=sealed if address else None,
        details={name: VALUES[field.kind] if field.is_clear else sealed for name, field in fields.items()},
        subjects=frozenset(),
    )
    entry = place(made.body(), 41, FIRST_PREV)
    return StoredEntry(41, entry.canonical, entry.leaf())


def told(entry: StoredEntry, *, pseudonym: str | None = "p-alice") -> SiemEvent:
    """The event of an entry."""
    return render(entry, 40, lambda _key: pseudonym, NOON)


SPOILT = told(StoredEntry(41, b'{"seq":41', bytes(32)))
LATER = SiemEvent(41, 40, {**told(stored(EventType.SERVER_STARTED)).entry, "event_type": "moon.landed"})


def every_event() -> Iterator[SiemEvent]:
    """Each type with each outcome, somebody erased, nobody's address, a spoilt entry, a type of tomorrow."""
    for kind, outcome in EVERY_CASE:
        yield told(stored(kind, outcome))
        yield told(stored(kind, outcome), pseudonym=None)
        yield told(stored(kind, outcome, address=False))
    yield SPOILT
    yield LATER


@pytest.fixture(scope="module")
def ocsf_schemas() -> Mapping[int, Draft202012Validator]:
    """The published JSON schema of each class that the catalogue names."""
    published = OcsfJsonSchemaEmbedded(get_ocsf_schema(OCSF_VERSION))
    uids = {event.sense.ocsf.class_uid for event in every_event()}
    return {
        uid: Draft202012Validator(published.get_class_schema(published.lookup_class_name_from_uid(uid)))
        for uid in uids
    }


def test_the_catalogue_names_the_classes_of_the_issue(ocsf_schemas: Mapping[int, object]) -> None:
    """OCSF 1.x: 3002, 3003, 3004, 6002, 6003, 6005."""
    assert set(ocsf_schemas) == {3002, 3003, 3004, 6002, 6003, 6005}


def test_every_event_fits_the_published_schema_of_its_class(
    ocsf_schemas: Mapping[int, Draft202012Validator],
) -> None:
    """OCSF: attributes, types, allowed numbers and constraints, with nothing that the class does not have."""
    wrong = set()

    for event in every_event():
        shown = json.loads(json.dumps(FORMATS["ocsf"](event)))
        for error in ocsf_schemas[shown["class_uid"]].iter_errors(shown):
            wrong.add(f"{event.text('event_type')}: {error.json_path}: {error.message}")

    assert wrong == set()


def test_every_caption_is_the_published_one(ocsf_schemas: Mapping[int, Draft202012Validator]) -> None:
    """OCSF: class_name, activity_name, type_name and severity say what their numbers mean."""
    classes = {one["uid"]: one for one in get_ocsf_schema(OCSF_VERSION)["classes"].values()}

    for event in every_event():
        shown = FORMATS["ocsf"](event)
        meant = classes[shown["class_uid"]]

        def caption(name: str, meant: Any = meant, shown: Any = shown) -> str:
            return str(meant["attributes"][name]["enum"][str(shown[name])]["caption"])

        assert (shown["class_name"], shown["category_name"]) == (meant["caption"], meant["category_name"])
        assert shown["activity_name"] == caption("activity_id")
        assert shown["type_name"] == caption("type_uid")
        assert (shown["severity"], shown["status"]) == (caption("severity_id"), caption("status_id"))


def test_every_event_is_read_by_the_published_models() -> None:
    """py-ocsf-models has the event that all classes share and some of their objects; it reads what we wrote."""
    for event in every_event():
        shown = json.loads(json.dumps(FORMATS["ocsf"](event)))

        read = BaseEvent.model_validate(shown)

        assert (read.metadata.sequence, read.unmapped["prev_seq"]) == (41, 40)  # type: ignore[index]
        assert set(shown["metadata"]) <= set(Metadata.model_fields)
        if "api" in shown:
            assert API.model_validate(shown["api"]).operation == event.text("event_type")


def test_an_event_keeps_its_identity_in_every_form() -> None:
    """Promise 6: entry id, time, seq and prev_seq are the same whichever form a sink asked for."""
    event = told(stored(EventType.TOKEN_REFUSED, Outcome.DENIED))

    raw: Any = FORMATS["raw"](event)
    ocsf: Any = FORMATS["ocsf"](event)
    ecs: Any = FORMATS["ecs"](event)

    entry_id, time = raw["entry"]["id"], raw["entry"]["time"]
    assert list(raw) == ["seq", "prev_seq", "entry"]
    assert (raw["seq"], ocsf["metadata"]["sequence"], ecs["event"]["sequence"]) == (41, 41, 41)
    assert (raw["prev_seq"], ocsf["unmapped"]["prev_seq"], ecs["fl_gateway"]["prev_seq"]) == (40, 40, 40)
    assert (ocsf["metadata"]["uid"], ecs["event"]["id"]) == (entry_id, entry_id)
    assert (ocsf["time"], ecs["@timestamp"]) == (int(datetime.fromisoformat(time).timestamp() * 1000), time)


@pytest.mark.parametrize("form", FORMATS)
def test_no_form_tells_what_is_personal(form: str) -> None:
    """RULES 28: no ciphertext and no key id in any event of any type, whichever detail was sealed."""
    for event in every_event():
        text = json.dumps(FORMATS[form](event))

        assert not any(secret in text for secret in ("Y2FuYXJ5", '"enc"', "k" * 64))


@pytest.mark.parametrize("form", FORMATS)
def test_a_pseudonym_stands_where_the_form_wants_a_user(form: str) -> None:
    """The same pseudonym in every form; an erased person has none."""
    event, erased = stored(EventType.TOKEN_ISSUED), told(stored(EventType.TOKEN_ISSUED), pseudonym=None)
    find = {
        "raw": lambda shown: shown["entry"]["actor"]["pseudonym"],
        "ocsf": lambda shown: shown["user"].get("uid"),
        "ecs": lambda shown: shown.get("user", {}).get("id"),
    }[form]

    assert find(FORMATS[form](told(event))) == "p-alice"
    assert find(FORMATS[form](erased)) is None


def test_every_ecs_field_and_value_is_a_published_one() -> None:
    """ECS: names of the reference with their types, allowed kinds, categories with their types, and `fl_gateway`."""
    kinds = {"date": str, "match_only_text": str, "keyword": str, "long": int}

    for event in every_event():
        shown = FORMATS["ecs"](event)
        told_: Any = shown["event"]
        (category,) = told_["category"]
        for name, value in flat(without_details(shown)):
            values = value if isinstance(value, list) else [value]
            assert all(isinstance(one, kinds[(FIELDS | OWN_FIELDS)[name]]) for one in values), name
        assert (told_["kind"] in KINDS, told_["outcome"] in OUTCOMES) == (True, True)
        assert set(told_["type"]) <= set(TYPES[category].split()), event.text("event_type")


@pytest.mark.parametrize(
    ("kind", "outcome", "category", "types"),
    [
        (EventType.SERVER_STARTED, Outcome.SUCCESS, "process", ["start"]),
        (EventType.TOKEN_REFUSED, Outcome.DENIED, "authentication", ["start"]),
        (EventType.ACCESS_REFUSED, Outcome.DENIED, "api", ["access", "denied"]),
        (EventType.CLIENT_ADDED, Outcome.SUCCESS, "iam", ["creation"]),
        (EventType.MODEL_DOWNLOADED, Outcome.SUCCESS, "database", ["access"]),
    ],
)
def test_the_well_known_events_stand_where_an_analyst_looks(
    kind: EventType, outcome: Outcome, category: str, types: list[str]
) -> None:
    """ECS: a refused log-in is an authentication that failed; a refused request is a denied call."""
    shown: Any = FORMATS["ecs"](told(stored(kind, outcome)))["event"]

    assert (shown["category"], shown["type"]) == ([category], types)
    assert shown["outcome"] == ("success" if outcome is Outcome.SUCCESS else "failure")


@pytest.mark.parametrize("form", FORMATS)
def test_a_spoilt_entry_is_an_alarm_of_now(form: str) -> None:
    """Who rewrites an entry in the database causes an event of the highest severity, at the time of its finding."""
    text = json.dumps(FORMATS[form](SPOILT))
    ocsf: Any = FORMATS["ocsf"](SPOILT)
    ecs: Any = FORMATS["ecs"](SPOILT)

    assert "log.unreadable" in text
    assert (ocsf["severity_id"], ocsf["time"]) == (5, int(NOON.astimezone(UTC).timestamp() * 1000))
    assert (ecs["event"]["kind"], ecs["event"]["severity"]) == ("alert", 5)


def test_the_same_entry_gives_the_same_event_again(clock: FixedClock) -> None:
    """At least once: what comes twice is the same to the byte, so that a SIEM can drop the double."""
    entry = stored(EventType.UPDATE_ACCEPTED)

    first = [json.dumps(form(told(entry))) for form in FORMATS.values()]
    clock.advance(timedelta(days=1))
    again = [
        json.dumps(form(render(entry, 40, lambda _key: "p-alice", clock()))) for form in FORMATS.values()
    ]

    assert first == again


def without_details(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document without the details of its event type, which have names of their own."""
    own = {name: value for name, value in document["fl_gateway"].items() if name != "details"}
    return {**document, "fl_gateway": own}


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a document with the dotted name of its field."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
