"""The log's key changes: notes of several keys, and the announcement that leads from one key to the next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from logbook import ORIGIN, NotebookSealer
from services.clock import FixedClock

from audit.canonical import JsonValue, canonical
from audit.checkpoint import NoteSigner, NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Entry, place
from audit.errors import BadNote, BadSignature
from audit.events import EventType
from audit.key_succession import Announcement, announced, statement, written_time

OLD, NEW, THIEF = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2, 3))
BOTH = NoteSigner(ORIGIN, NEW, OLD)
UNTIL = datetime(2027, 1, 1, tzinfo=UTC)
ROOT = bytes(range(32))


def verifier(key: Ed25519PrivateKey, name: str = ORIGIN) -> NoteVerifier:
    """The verifier of a key."""
    return NoteVerifier.of(name, key.public_key().public_bytes_raw())


def details(signers: NoteSigner = BOTH, until: datetime = UNTIL) -> dict[str, JsonValue]:
    """What the announcement of a change says."""
    new_vkey, old_vkey = signers.vkeys
    return {
        "use": "log",
        "old_kid": "0" * 16,
        "new_kid": "1" * 16,
        "old_vkey": old_vkey,
        "new_vkey": new_vkey,
        "both_until": written_time(until),
        "statement": statement(signers, until),
    }


def entry(told: Mapping[str, JsonValue], event_type: EventType = EventType.KEYS_ROTATED) -> Entry:
    """An entry with these details, as whoever writes past our own checks could make it."""
    drafted = draft(
        EventType.KEYS_ROTATED,
        sealer=NotebookSealer(),
        now=FixedClock()(),
        actor=Personal("system", "console"),
        action="rotated",
        resource="",
        details=details(),
    )
    forged = {**json.loads(drafted.body()), "details": told, "event_type": event_type.value}
    return place(canonical(forged), 0, FIRST_PREV)


def test_a_note_bears_a_line_of_each_key_the_newest_first() -> None:
    """Both keys sign every checkpoint for a set time, in one order."""
    note = BOTH.sign(7, ROOT)

    lines = parse_note(note).signatures
    assert [line.key_id.hex() for line in lines] == [vkey.split("+")[1] for vkey in BOTH.vkeys]
    assert BOTH.vkey == BOTH.vkeys[0] == verifier(NEW).vkey
    for key in (OLD, NEW):
        assert verifier(key).open(note) == SignedTree(ORIGIN, 7, ROOT)


def test_a_verifier_takes_the_signatures_in_any_order() -> None:
    """C2SP signed-note: lines of other keys may stand before or behind."""
    text, _, lines = BOTH.sign(7, ROOT).partition("\n\n")
    newer, older = lines.splitlines(keepends=True)
    turned = f"{text}\n\n{older}{newer}"

    assert verifier(OLD).open(turned) == verifier(NEW).open(turned) == SignedTree(ORIGIN, 7, ROOT)


def test_one_bad_signature_of_a_trusted_key_spoils_the_note() -> None:
    """The other key's good one does not mend it for who trusts this one."""
    text, _, lines = BOTH.sign(7, ROOT).partition("\n\n")
    other = NoteSigner(ORIGIN, OLD).sign(8, ROOT).splitlines()[-1]
    note = f"{text}\n\n{lines.splitlines()[0]}\n{other}\n"

    assert verifier(NEW).open(note).size == 7
    with pytest.raises(BadSignature):
        verifier(OLD).open(note)


def test_an_entry_announces_the_next_key() -> None:
    """From the old key's name one gets to the new one's."""
    old, new = verifier(OLD).vkey, verifier(NEW).vkey

    assert announced(entry(details())) == Announcement(old, new, UNTIL)


def test_who_may_write_entries_cannot_announce_a_key() -> None:
    """A statement that the old key did not sign announces nothing: not under a stolen name, nor alone."""
    stolen = details(NoteSigner(ORIGIN, THIEF, OLD)) | {
        "statement": NoteSigner(ORIGIN, THIEF).sign_text(
            parse_note(statement(NoteSigner(ORIGIN, THIEF, OLD), UNTIL)).text
        )
    }
    unproven = details(BOTH)
    unproven["statement"] = NoteSigner(ORIGIN, OLD).sign_text(parse_note(statement(BOTH, UNTIL)).text)

    assert announced(entry(stolen)) is None
    assert announced(entry(unproven)) is None  # nobody showed that the new key exists


@given(st.data())
def test_a_detail_that_was_changed_announces_nothing(data: st.DataObject) -> None:
    """The statement binds all of it."""
    told = details()
    name = data.draw(st.sampled_from(["old_vkey", "new_vkey", "both_until", "statement"]))
    other: dict[str, JsonValue] = {
        "old_vkey": verifier(THIEF).vkey,
        "new_vkey": verifier(THIEF).vkey,
        "both_until": written_time(
            UNTIL + data.draw(st.timedeltas(timedelta(seconds=1), timedelta(days=9000)))
        ),
        "statement": data.draw(st.text(max_size=40)),
    }

    assert announced(entry(told | {name: other[name]})) is None


def test_what_is_no_announcement_announces_nothing() -> None:
    """Another event, the change of another key, a log of another name, a missing detail, a time of another form."""
    told = details()
    elsewhere = details(NoteSigner("example.com/other", NEW, OLD))

    assert announced(entry(told, EventType.SERVER_STOPPED)) is None
    assert announced(entry(told | {"use": "receipt"})) is None
    assert announced(entry(elsewhere | {"old_vkey": told["old_vkey"]})) is None
    assert announced(entry({name: told[name] for name in told if name != "new_vkey"})) is None
    assert announced(entry(told | {"both_until": "2027-01-01T00:00:00.000000Z"})) is None
    assert announced(entry(told | {"both_until": 5})) is None


def test_a_statement_is_never_a_checkpoint() -> None:
    """What is signed for one purpose does not serve the other."""
    text = verifier(OLD).verify(statement(BOTH, UNTIL))

    with pytest.raises(BadNote):
        parse_checkpoint(text)
    assert announced(entry(details() | {"statement": BOTH.sign(7, ROOT)})) is None


def test_an_announcement_reads_back(clock: FixedClock) -> None:
    """Times have whole seconds."""
    told = announced(entry(details(until=clock())))

    assert told is not None
    assert told == replace(told, both_until=clock())
