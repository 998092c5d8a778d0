"""The event types: complete, explained, and documented for auditors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from audit.events import EVENTS, EventType, Retention

# API.md, "Receipts, log, proofs", word for word.
NAMED = (
    "server.started|stopped, config.changed, client.added|registered|suspended|resumed|revoked, user.added, "
    "token.issued|refused|revoked, access.refused, "
    "model.published|promoted|downloaded, "
    "round.created|closed|frozen|completed|failed, update.accepted|refused, "
    "privacy.requested|moved|exported|erased|spent, hold.placed|lifted, "
    "audit.exported|revealed, keys.rotated, log.succeeded, certificate.renewed|failed, siem.down|up"
)
# What came with pauses, selection, the intake switch, backups (decisions 0060 to 0089).
ADDED = "round.selected|paused|resumed|extended, intake.stopped|resumed, backup.created|restored"
DOCUMENT = Path(__file__).parents[2] / "docs" / "audit-log.md"


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
    assert {"intent.erase", "intent.blob", "intent.certificate"} <= {
        event_type.value for event_type in EventType
    }


@pytest.mark.parametrize("event_type", EventType)
def test_every_event_type_says_what_it_means(event_type: EventType) -> None:
    """One sentence, declared details in plain ASCII names, and a phase for intents."""
    event = EVENTS[event_type]

    assert re.fullmatch(r"[A-Z][^.]+\.", event.meaning)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in event.impersonal)
    assert ("phase" in event.impersonal) == event_type.is_intent


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

    assert event.meaning in row
    assert row.endswith(f"| {event.retention} |")
