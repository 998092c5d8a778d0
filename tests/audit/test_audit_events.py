"""The event catalogue: complete, exact, explained, and documented for auditors and SIEM engineers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit.events import EVENTS, EventType, Kind, Outcome, Retention, Severity

# API.md, "Receipts, log, proofs", word for word.
NAMED = (
    "server.started|stopped, config.changed, client.added|registered|suspended|resumed|revoked, user.added, "
    "token.issued|refused|revoked, access.refused, "
    "model.published|promoted|downloaded, "
    "round.created|closed|frozen|completed|failed, update.accepted|refused, "
    "privacy.requested|moved|exported|erased|spent, hold.placed|lifted, "
    "audit.exported|revealed, keys.rotated, log.succeeded, certificate.renewed|failed, siem.down|up"
)
# What came with pauses, selection, the intake switch, backups (decisions 0060 to 0089), dead letters, the hammer,
# witnesses.
ADDED = (
    "round.selected|paused|resumed|extended, intake.stopped|resumed, backup.created|restored, "
    "siem.refused|replayed, notice.failed, audit.rebuilt|tried, witness.refused, client.changed, "
    "user.changed|signed_in|signed_out|refused, access.granted, token.reused, "
    "hold.reviewed|overdue|release_asked, retention.applied, privacy.lifted, "
    "privacy.alarmed|stated|linked|fetched|expired, privacy.told|key_given|revealed"
)
DOCUMENT = Path(__file__).parents[2] / "docs" / "events.md"

# Activities of the classes in version 1.3.0 of the schema, and 99 for what it has no word for.
OCSF = {
    3002: {1, 2, 3, 4, 5, 6, 99},
    3003: {1, 2, 99},
    3004: {*range(1, 14), 99},
    6002: {*range(1, 9), 99},
    6003: {1, 2, 3, 4, 99},
    6005: {*range(1, 11), 99},
}


def named() -> set[str]:
    names = set[str]()
    for group in f"{NAMED}, {ADDED}".split(", "):
        kind, _, verbs = group.partition(".")
        names |= {f"{kind}.{verb}" for verb in verbs.split("|")}
    return names


def test_every_event_type_of_the_api_exists() -> None:
    """API: the event types; `intent.*` are ours to choose."""
    ours = {event_type.value for event_type in EventType if not event_type.is_intent}

    assert ours == named()
    assert {"intent.erase", "intent.export", "intent.certificate"} <= set(EventType)


@pytest.mark.parametrize("event_type", EventType)
def test_every_event_type_says_what_it_means(event_type: EventType) -> None:
    """One sentence, declared details in plain ASCII names, and a phase for intents."""
    event = EVENTS[event_type]

    assert re.fullmatch(r"[A-Z][^.]+\.", event.meaning)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in event.fields)
    assert not event_type.is_intent or event.fields["phase"].is_required


@pytest.mark.parametrize("event_type", EventType)
def test_every_event_type_has_a_place_in_ocsf(event_type: EventType) -> None:
    """Issue 5, 6: its class is one of six, and the class has the activity."""
    place = EVENTS[event_type].ocsf

    assert place.activity_id in OCSF[place.class_uid]


def test_what_somebody_must_look_at_stands_out() -> None:
    """A SIEM rule on severity finds outages, thieves, expiring certificates, changes of the log; the rest is quiet."""
    urgent = {event_type for event_type, event in EVENTS.items() if event.severity >= Severity.HIGH}
    quiet = {event_type for event_type, event in EVENTS.items() if event.severity is Severity.INFORMATIONAL}

    alarms = {
        "siem.down",
        "siem.refused",
        "witness.refused",
        "certificate.failed",
        "token.reused",
        "notice.failed",
    }
    assert urgent == alarms | {"log.succeeded", "backup.restored"}
    assert {"token.issued", "update.accepted", "model.downloaded", "round.completed"} < quiet
    assert not any(event_type.endswith((".refused", ".failed", ".down")) for event_type in quiet)


def test_a_refusal_is_denied_and_a_failure_a_failure() -> None:
    """`outcome` tells what became of it; without one the usual outcome of the event type is written."""
    for event_type, event in EVENTS.items():
        usual = event.outcomes[0]
        if event_type in ("access.refused", "token.refused", "update.refused", "user.refused"):
            assert event.outcomes == (Outcome.DENIED,)
        else:
            assert (usual is Outcome.FAILURE) == event_type.endswith((".failed", ".down", ".refused"))


def test_no_event_allows_what_it_never_has() -> None:
    """A catalogue that allows everything everywhere checks nothing: no detail is in clear in half of all events."""
    declared = [name for event in EVENTS.values() for name in event.impersonal]

    assert all(declared.count(name) < len(EVENTS) / 2 for name in declared)


@pytest.mark.parametrize("event_type", EventType)
def test_nothing_that_names_a_person_is_declared_impersonal(event_type: EventType) -> None:
    """DESIGN, promise 5: what names a person never stands in clear in `details`."""
    names = {
        "client_id",
        "subject",
        "subject_id",
        "name",
        "device_name",
        "email",
        "ip_address",
        "user_agent",
        "actor",
    }

    assert not names & EVENTS[event_type].impersonal


def test_staff_actions_and_refusals_are_kept_for_accountability() -> None:
    """RULES 19."""
    for event_type in EventType:
        if event_type.value.endswith(
            (".refused", ".suspended", ".resumed", ".added", ".revealed", ".rotated")
        ):
            assert EVENTS[event_type].retention is Retention.ACCOUNTABILITY
    assert EVENTS[EventType.UPDATE_ACCEPTED].retention is Retention.PARTICIPATION


@pytest.mark.parametrize("event_type", EventType)
def test_every_event_type_is_documented(event_type: EventType) -> None:
    """STYLE: a test fails when an event type is undocumented."""
    event = EVENTS[event_type]

    row = next(
        line for line in DOCUMENT.read_text("utf-8").splitlines() if line.startswith(f"| `{event_type}` |")
    )

    cells = [cell.strip() for cell in row.strip("|").split(" | ")]
    assert event.meaning in cells[1]
    assert cells[2] == event.severity.name.lower()
    for cell, is_clear in ((cells[3], True), (cells[4], False)):
        told = {name.strip("?") for name in re.findall(r"`([a-z0-9_?]+)", cell)}
        assert told == {name for name, field in event.fields.items() if field.is_clear is is_clear}
    assert cells[5:] == [event.retention.value, f"{event.ocsf.class_uid}, {event.ocsf.activity_id}"]


def test_the_page_explains_each_kind() -> None:
    """A text needs no word; every other kind is on the page."""
    page = DOCUMENT.read_text("utf-8")

    assert all(f"`{kind}`" in page for kind in Kind if kind is not Kind.TEXT)


def test_every_event_type_that_is_not_reserved_is_written_somewhere() -> None:
    """Issue 5, 6: none is declared and never written; one that a later version writes says that it is reserved."""
    root = Path(__file__).parents[2]
    only_read = {
        root / "gateway" / "backup" / "beyond.py",
        *(root / "audit" / "siem" / "formats").glob("*.py"),
    }
    catalogue = {root / "audit" / "vocabulary.py", *(root / "audit" / "catalogue").glob("*.py")}
    code = "".join(
        path.read_text("utf-8")
        for package in ("audit", "compliance", "gateway")
        for path in (root / package).rglob("*.py")
        if path not in catalogue | only_read
    )

    for event_type, event in EVENTS.items():
        is_written = re.search(rf"EventType\.{event_type.name}\b|\"{event_type}\"", code) is not None
        assert is_written is not event.is_reserved, event_type
