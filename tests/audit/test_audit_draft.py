"""From an effect to its entry: what is sealed, what stands in clear, what is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from logbook import ALICE, BOB, UPDATE, NotebookSealer

from audit.canonical import canonical
from audit.draft import SYSTEM, UNPROVEN, Personal, draft
from audit.entry import FIRST_PREV, MAX_ENTRY_BYTES, Draft, Outcome, Sealed, place
from audit.errors import BadDraft, EntryTooLong, KeyDestroyed
from audit.events import EventType, Retention

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def write(sealer: NotebookSealer, event_type: EventType = EventType.UPDATE_ACCEPTED, **members: Any) -> Draft:
    given = {"actor": ALICE, "action": "accepted", "now": NOW} | members
    if event_type is EventType.UPDATE_ACCEPTED:
        given["details"] = {**UPDATE, **given.get("details", {})}
    return draft(event_type, sealer=sealer, **given)


def opened(sealer: NotebookSealer, made: Draft, name: str) -> Any:
    value = made.details[name]
    assert isinstance(value, Sealed)
    return sealer.open(value, f"{made.id}.details.{name}")


def test_what_is_not_declared_impersonal_is_sealed_under_the_actor() -> None:
    """DESIGN, Audit entry: everything else in `details` is `{"enc", "key"}`."""
    sealer = NotebookSealer()

    made = write(sealer, details={"round_number": 7, "device_name": "pump-3"})

    assert made.details["round_number"] == 7
    assert opened(sealer, made, "device_name") == "pump-3"
    assert b"pump-3" not in made.body()
    assert made.details["device_name"].key == sealer.key(ALICE.subject, Retention.PARTICIPATION)  # type: ignore[union-attr]


def test_a_personal_detail_is_sealed_under_its_owner_even_if_its_name_is_declared() -> None:
    """The caller knows best whose a value is."""
    sealer = NotebookSealer()

    made = write(sealer, details={"reason": Personal(BOB.subject, "bob said so")})

    assert opened(sealer, made, "reason") == "bob said so"
    assert made.subjects == {ALICE.subject, BOB.subject}


def test_what_is_staged_is_what_was_drafted_whatever_becomes_of_its_details() -> None:
    """RULES 21: receipt and row tell of the same bytes, which are spelled once."""
    flags = ["a"]
    made = Draft(
        id="018f0000-0000-7000-8000-000000000000",
        time=NOW,
        event_type=EventType.SERVER_STARTED,
        actor=Sealed("", ""),
        action="started",
        resource="",
        outcome=Outcome.SUCCESS,
        request_id="",
        trace_id="",
        ip_address=None,
        details={"flags": flags},
        subjects=frozenset(),
    )

    flags.append("b")

    assert json.loads(made.body())["details"] == {"flags": ["a"]}
    assert made.digest() == sha256(made.body()).digest()
    assert json.loads(replace(made, details={"flags": flags}).body())["details"] == {"flags": ["a", "b"]}


def test_actor_and_address_are_sealed_for_their_own_field() -> None:
    """RULES 15: entry id and field are associated data, so that no ciphertext can be moved."""
    sealer = NotebookSealer()

    made = write(sealer, ip_address=Personal(ALICE.subject, "192.0.2.1"))

    assert sealer.open(made.actor, f"{made.id}.actor") == "alice"
    assert made.ip_address is not None
    assert sealer.open(made.ip_address, f"{made.id}.ip_address") == "192.0.2.1"
    sealer.destroyed.add(made.actor.key)
    with pytest.raises(KeyDestroyed):
        sealer.open(made.actor, f"{made.id}.actor")


def test_staff_actions_are_sealed_for_accountability() -> None:
    """RULES 19: an operator cannot erase its own trail."""
    sealer = NotebookSealer()

    made = write(sealer, EventType.CLIENT_SUSPENDED, details={"client_id": BOB, "role": "edge"})

    assert made.actor.key == sealer.key(ALICE.subject, Retention.ACCOUNTABILITY)


def test_nobody_is_locked_for_the_system_and_the_unproven() -> None:
    """RULES 18 locks persons; the system is none, and who showed no proof has no subject."""
    sealer = NotebookSealer()

    made = write(
        sealer,
        EventType.INTAKE_STOPPED,
        actor=Personal(SYSTEM, "console"),
        ip_address=Personal(UNPROVEN, "192.0.2.1"),
    )

    assert made.subjects == frozenset()


@pytest.mark.parametrize("phase", [None, "begun", 1])
def test_an_intent_says_where_it_stands(phase: object) -> None:
    """RULES 2: intended before, done or failed after."""
    told = {"intent_id": "i-1", "target": "gateway.example"}

    with pytest.raises(BadDraft):
        write(NotebookSealer(), EventType.INTENT_CERTIFICATE, details={**told, "phase": phase})
    made = write(NotebookSealer(), EventType.INTENT_CERTIFICATE, details={**told, "phase": "intended"})

    assert made.details["phase"] == "intended"


def test_a_plain_detail_must_not_look_like_a_sealed_one() -> None:
    """What reads as ciphertext is ciphertext, for the index and for an erasure."""
    with pytest.raises(BadDraft):
        write(NotebookSealer(), details={"reason": {"enc": "x", "key": "y"}})


@pytest.mark.parametrize("name", ["policy_hash", "user_agent"])
def test_a_long_detail_is_cut_with_its_hash(name: str) -> None:
    """API: longer details are cut with their hash; a personal one's stays inside the ciphertext."""
    sealer, long = NotebookSealer(), "ü" * 100_000
    whole = canonical(long)

    made = write(sealer, details={name: long, "round_number": 7})

    cut: Any = made.details[name] if name == "policy_hash" else opened(sealer, made, name)
    assert cut["sha256"] == sha256(whole).hexdigest()
    assert cut["size_bytes"] == len(whole)
    assert whole.decode().startswith(cut["cut"])
    assert made.details["round_number"] == 7
    assert (sha256(whole).hexdigest().encode() in made.body()) == (name == "policy_hash")


def test_no_more_is_cut_than_must_be() -> None:
    """The longest detail goes first, a short one stays whole."""
    sealer = NotebookSealer()

    made = write(sealer, details={"note": "n" * 20_000, "trace": "t" * 60_000})

    assert opened(sealer, made, "note") == "n" * 20_000
    assert set(opened(sealer, made, "trace")) == {"cut", "size_bytes", "sha256"}


def test_a_cut_entry_fits_wherever_it_is_placed() -> None:
    """API: a canonical entry is at most 65,535 bytes, seq and prev included."""
    longest = 0
    for length in range(64_000, 66_000, 50):
        made = write(NotebookSealer(), details={"policy_hash": "x" * length})
        longest = max(longest, len(place(made.body(), 2**53 - 1, FIRST_PREV).canonical))

    assert MAX_ENTRY_BYTES - 60 < longest <= MAX_ENTRY_BYTES


def test_an_entry_that_stays_too_long_is_refused() -> None:
    """Only details are cut: a resource is ours and short."""
    with pytest.raises(EntryTooLong):
        write(NotebookSealer(), resource="x" * 70_000)


def test_the_body_is_the_entry_without_its_place() -> None:
    """RULES 21: what the digest covers."""
    made = write(
        NotebookSealer(),
        resource="rounds/7",
        request_id="r",
        trace_id="t",
        event_type=EventType.INTAKE_STOPPED,
    )

    told = json.loads(made.body())

    assert (told["resource"], told["request_id"], told["trace_id"]) == ("rounds/7", "r", "t")
    assert (told["outcome"], told["ip_address"], told["details"]) == ("success", None, {})
