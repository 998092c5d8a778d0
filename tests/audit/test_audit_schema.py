"""What an entry has against its event type's declaration: whatever we write passes, and what was spoilt does not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from logbook import ALICE, UPDATE, NotebookSealer

from audit.canonical import JsonValue, canonical
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Entry, parse_entry, place
from audit.errors import BadDraft
from audit.events import EVENTS, EventType, Field, Kind, Outcome, Phase
from audit.schema import problems

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
SEALED: JsonValue = {"enc": "c2VhbGVk", "key": "k"}
TEXTS = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES: Mapping[Kind, st.SearchStrategy[Any]] = {
    Kind.TEXT: TEXTS,
    Kind.TIME: st.just("2026-11-24T12:00:00.000000Z"),
    Kind.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False).map(str),
    Kind.INTEGER: st.integers(-(2**53) + 1, 2**53 - 1),
    Kind.FLAG: st.booleans(),
    Kind.TEXTS: st.lists(TEXTS, max_size=3),
}


def value_of(name: str, field: Field) -> st.SearchStrategy[Any]:
    if name == "phase":
        return st.sampled_from([phase.value for phase in Phase])
    plain = VALUES[field.kind]
    return plain | plain.map(lambda value: Personal(ALICE.subject, value))


@st.composite
def drafts(draw: st.DrawFn) -> tuple[EventType, Outcome | None, dict[str, Any]]:
    """Anything that a caller can hand over: all that must be there, some of the rest, and what nobody declared."""
    event_type = draw(st.sampled_from(EventType))
    event = EVENTS[event_type]
    details = {
        name: draw(value_of(name, field))
        for name, field in event.fields.items()
        if field.is_required or draw(st.booleans())
    }
    undeclared = draw(st.dictionaries(st.from_regex(r"x_[a-z]{1,5}", fullmatch=True), TEXTS, max_size=2))
    return event_type, draw(st.none() | st.sampled_from(event.outcomes)), {**details, **undeclared}


def written(event_type: EventType, details: Mapping[str, Any], outcome: Outcome | None = None) -> Entry:
    made = draft(
        event_type,
        sealer=NotebookSealer(),
        now=NOW,
        actor=ALICE,
        action=event_type.rpartition(".")[2],
        outcome=outcome,
        details=details,
    )
    return parse_entry(place(made.body(), 0, FIRST_PREV).canonical)


def spoilt(entry: Entry, **members: JsonValue) -> Entry:
    """The entry with other members, as somebody who may write rows could place it."""
    return parse_entry(canonical({**entry.members, **members}))


def accepted(**details: JsonValue) -> Entry:
    """An update's entry with other details."""
    entry = written(EventType.UPDATE_ACCEPTED, UPDATE)
    return spoilt(entry, details={**entry.details, **details})


@given(drafts())
@example(
    (EventType.KEYS_ROTATED, None, {"use": "", "phase": "failed"})
)  # a phase of its own: it is no intent
def test_whatever_a_draft_makes_has_no_problems(
    made: tuple[EventType, Outcome | None, dict[str, Any]],
) -> None:
    """Issue 5, 6: the writer refuses what the verifier would find fault with, and nothing else passes it."""
    event_type, outcome, details = made

    entry = written(event_type, details, outcome)

    assert problems(entry) == []


@pytest.mark.parametrize("event_type", EventType)
def test_the_least_and_the_most_that_an_event_can_say_pass(event_type: EventType) -> None:
    """Every declared detail can be written, and every optional one can be left out."""
    examples: dict[Kind, Any] = {
        Kind.TEXT: "x",
        Kind.TIME: "2026-11-24T12:00:00Z",
        Kind.DECIMAL: "1.5",
        Kind.INTEGER: 1,
        Kind.FLAG: True,
        Kind.TEXTS: ["a", "b"],
    }
    fields = EVENTS[event_type].fields
    whole = {name: examples[field.kind] for name, field in fields.items()}
    if event_type.is_intent:
        whole["phase"] = "done"

    for told in (whole, {name: whole[name] for name, field in fields.items() if field.is_required}):
        entry = written(event_type, told)
        assert problems(entry) == []
        assert {name for name, value in entry.details.items() if not isinstance(value, dict)} == {
            name for name in told if fields[name].is_clear
        }


@pytest.mark.parametrize(
    ("details", "named"),
    [
        ({"norm": "1.25"}, "'norm' stands in clear"),
        ({"client_id": "c-1"}, "'client_id' stands in clear"),
        ({"round_number": "7"}, "'round_number' has another type"),
        ({"round_number": True}, "'round_number' has another type"),
        ({"round_number": None}, "'round_number' has another type"),
        ({"policy_hash": ["x"]}, "'policy_hash' has another type"),
        ({"client_id": {"enc": "x", "key": 1}}, "'client_id' stands in clear"),
        ({"client_id": {"enc": "x", "key": "k", "name": "Ada"}}, "'client_id' stands in clear"),
        ({"policy_hash": {"cut": "x", "size_bytes": 9, "sha256": "0", "name": "Ada"}}, "has another type"),
        ({"policy_hash": {"cut": ["Ada"], "size_bytes": 9, "sha256": "0" * 64}}, "has another type"),
        ({"client_id": {"cut": "x", "size_bytes": 9, "sha256": "0" * 64}}, "'client_id' stands in clear"),
    ],
)
def test_a_detail_that_its_event_type_does_not_declare_so_is_named(
    details: dict[str, JsonValue], named: str
) -> None:
    """Promise 5: a person in clear is found; and so is a fact of another type, which a SIEM could not read."""
    found = problems(accepted(**details))

    assert len(found) == 1
    assert named in found[0]


def test_a_list_holds_texts_alone() -> None:
    """The elements of a list are looked at too."""
    entry = written(EventType.CONFIG_CHANGED, {"settings": ["blob_url"]})

    assert problems(spoilt(entry, details={"settings": ["blob_url", 1]})) != []
    assert problems(spoilt(entry, details={"settings": [{"name": "Ada"}]})) != []
    assert problems(spoilt(entry, details={"settings": []})) == []


def test_a_missing_detail_is_named() -> None:
    """What is required is there, sealed or not."""
    entry = written(EventType.UPDATE_ACCEPTED, UPDATE)
    left = {name: value for name, value in entry.details.items() if name not in ("client_id", "size_bytes")}

    found = problems(spoilt(entry, details=left))

    assert found == ["the detail 'client_id' is missing", "the detail 'size_bytes' is missing"]


@pytest.mark.parametrize(
    ("members", "named"),
    [({"outcome": "failure"}, "outcome"), ({"action": ""}, "action"), ({"action": "a b"}, "action")],
)
def test_outcome_and_action_are_looked_at(members: dict[str, JsonValue], named: str) -> None:
    """An update that was accepted did not fail; an action is a word."""
    entry = spoilt(written(EventType.UPDATE_ACCEPTED, UPDATE), **members)

    assert named in problems(entry)[0]


def test_what_is_sealed_or_cut_passes() -> None:
    """A sealed value is nobody's fault, declared or not; a detail too long for an entry is cut to a beginning."""
    cut: JsonValue = {"cut": "x" * 512, "size_bytes": 70_000, "sha256": "0" * 64}

    assert problems(accepted(policy_hash=SEALED, whatever=SEALED)) == []
    assert problems(accepted(policy_hash=cut, round_number=cut)) == []
    assert problems(written(EventType.UPDATE_ACCEPTED, {**UPDATE, "policy_hash": "x" * 70_000})) == []


def test_an_event_of_a_later_version_has_no_problems() -> None:
    """Contract of the verifier: it remarks on an unknown event type by itself."""
    entry = spoilt(accepted(name="Ada"), event_type="round.dreamt")

    assert problems(entry) == []


@pytest.mark.parametrize(
    ("event_type", "outcome", "details"),
    [
        ("certificate.failed", "success", {"domains": ["gateway.example"], "reason": "CERTBOT_FAILED"}),
        ("siem.down", "success", {"sink": "splunk"}),
        ("server.started", "success", {"mode": "all"}),
        (
            "round.created",
            "success",
            {
                "round_number": 1,
                "model_id": "m",
                "model_version": "1.0.0",
                "policy_hash": "h",
                "policy": "{}",
            },
        ),
        (
            "privacy.spent",
            "success",
            {
                "round_number": 1,
                "model_id": "m",
                "state": "spent",
                "epsilon_spent": "1.5",
                "delta": "0.00001",
                "unit": "client",
                "mechanism": "gaussian",
                "noise_multiplier": "4",
                "sampling_rate": "1",
                "adjacency": SEALED,
            },
        ),
    ],
)
def test_entries_of_earlier_versions_pass(
    event_type: str, outcome: str, details: dict[str, JsonValue]
) -> None:
    """A log is kept for ever: what was written before the catalogue was made exact stays right."""
    entry = spoilt(accepted(), event_type=event_type, outcome=outcome, details=details)

    assert problems(entry) == []


@pytest.mark.parametrize(
    ("details", "named"),
    [
        ({**UPDATE, "round_number": "7"}, "round_number"),
        ({**UPDATE, "round_number": True}, "round_number"),
        ({name: UPDATE[name] for name in UPDATE if name != "update_mac"}, "update_mac"),
    ],
)
def test_a_wrong_entry_is_refused_before_it_is_written(details: dict[str, Any], named: str) -> None:
    """Nobody could mend it in the log: the effect fails with its entry."""
    with pytest.raises(BadDraft, match=named):
        written(EventType.UPDATE_ACCEPTED, details)
    with pytest.raises(BadDraft, match="outcome"):
        written(EventType.UPDATE_ACCEPTED, UPDATE, Outcome.DENIED)
