"""The audit entry: its members, its canonical bytes, its leaf, the digest that a receipt bears."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from logbook import NotebookSealer, entries, make_draft
from services.clock import FixedClock

from audit.entry import FIRST_PREV, Sealed, parse_entry, place, read_time, time_text
from audit.errors import AuditError, BadEntry, NotCanonical

MEMBERS = [
    "seq",
    "id",
    "time",
    "event_type",
    "actor",
    "action",
    "resource",
    "outcome",
    "request_id",
    "trace_id",
    "ip_address",
    "details",
    "prev",
]


def an_entry() -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(entries(1)[0].canonical)
    return entry


def test_an_entry_has_the_members_of_the_design() -> None:
    """DESIGN, Audit entry."""
    first, second = entries(2)

    told = json.loads(second.canonical)

    assert sorted(told) == sorted(MEMBERS)
    assert second.canonical == rfc8785.dumps(told)
    assert told["prev"] == first.leaf().hex() == sha256(b"\x00" + first.canonical).hexdigest()
    assert (told["seq"], told["time"]) == (1, "2026-11-24T12:00:00.002000Z")
    assert json.loads(first.canonical)["prev"] == "0" * 64 == FIRST_PREV
    assert json.loads(first.canonical)["seq"] == 0


def test_the_digest_of_a_draft_is_that_of_its_entry_wherever_it_stands() -> None:
    """RULES 21: the verifier recomputes the receipt's entry_digest from the entry without seq and prev."""
    draft = make_draft(NotebookSealer(), FixedClock(), 1)

    digests = {place(draft.body(), seq, prev).digest() for seq, prev in ((0, FIRST_PREV), (17, "a" * 64))}

    assert digests == {draft.digest()} == {sha256(draft.body()).digest()}
    assert "seq" not in json.loads(draft.body())


def test_a_placed_entry_is_read_back_from_its_bytes() -> None:
    """What the sequencer writes is what the verifier reads."""
    entry = entries(3)[2]

    read = parse_entry(entry.canonical)

    assert read == entry
    assert {sealed.key for sealed in read.sealed()} == {Sealed.read(read.members["actor"]).key}  # type: ignore[union-attr]
    assert len(list(read.sealed())) == 5  # actor, address, two ids, norm


def test_times_are_told_in_utc_with_six_decimals() -> None:
    """DESIGN, Audit entry: RFC 3339 UTC, microseconds."""
    east = datetime(2026, 1, 1, 0, 30, 0, 5, tzinfo=timezone(timedelta(hours=1)))

    assert time_text(east) == "2025-12-31T23:30:00.000005Z"
    assert read_time(time_text(east)) == east
    with pytest.raises(BadEntry):
        time_text(datetime(2026, 1, 1))  # noqa: DTZ001


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a missing member": lambda entry: entry.pop("trace_id"),
    "an added member": lambda entry: entry.update(note="x"),
    "a number for a text": lambda entry: entry.update(action=1),
    "a negative seq": lambda entry: entry.update(seq=-1),
    "a truth for a seq": lambda entry: entry.update(seq=True),
    "a text for a seq": lambda entry: entry.update(seq="0"),
    "a short prev": lambda entry: entry.update(prev="ab"),
    "an upper-case prev": lambda entry: entry.update(prev="A" * 64),
    "an unknown outcome": lambda entry: entry.update(outcome="maybe"),
    "an actor in clear": lambda entry: entry.update(actor="alice"),
    "an address in clear": lambda entry: entry.update(ip_address="192.0.2.1"),
    "an actor with more members": lambda entry: entry["actor"].update(name="alice"),
    "an actor of numbers": lambda entry: entry.update(actor={"enc": 1, "key": 2}),
    "details as a list": lambda entry: entry.update(details=[]),
    "an id that is none": lambda entry: entry.update(id="1"),
    "a local time": lambda entry: entry.update(time="2026-11-24T12:00:00.000000+01:00"),
    "a day that is none": lambda entry: entry.update(time="2026-02-30T12:00:00.000000Z"),
    "time without decimals": lambda entry: entry.update(time="2026-11-24T12:00:00Z"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_has_not_the_shape_of_an_entry_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    """DESIGN, Audit entry: the shape is fixed, whatever the event type."""
    entry = an_entry()
    change(entry)

    with pytest.raises(BadEntry):
        parse_entry(rfc8785.dumps(entry))


def test_an_event_type_of_a_later_version_is_read() -> None:
    """An old verifier checks a new log."""
    entry = an_entry() | {"event_type": "round.invented_later"}

    assert parse_entry(rfc8785.dumps(entry)).event_type == "round.invented_later"


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b"{}"])
def test_json_that_is_no_entry_is_refused(data: bytes) -> None:
    """Hostile bundles."""
    with pytest.raises(BadEntry):
        parse_entry(data)


def test_an_entry_of_more_than_65535_bytes_is_refused() -> None:
    """API: tiles hold entries of at most 65,535 bytes."""
    long = an_entry() | {"resource": "x" * 65_536}

    with pytest.raises(BadEntry):
        parse_entry(rfc8785.dumps(long))
    body = {name: value for name, value in long.items() if name not in ("seq", "prev")}
    with pytest.raises(BadEntry):
        place(rfc8785.dumps(body), 0, FIRST_PREV)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"seq":0}', b'{"prev":""}'])
def test_a_staged_body_that_is_none_gets_no_place(body: bytes) -> None:
    """Whoever writes to audit_pending by hand does not get into the log."""
    with pytest.raises(AuditError):
        place(body, 0, FIRST_PREV)
    assert issubclass(NotCanonical, AuditError)
