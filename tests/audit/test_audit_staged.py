"""Staged bodies: whatever is recognised in one pass is what the plain reading finds, and what is malformed is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logbook import Logbook, entries
from sqlalchemy import insert

from audit.entry import FIRST_PREV, MAX_ENTRY_BYTES, Sealed, place
from audit.errors import BadEntry, BadPending, NotCanonical
from audit.reading import reading
from audit.staged import Placed, _recognised, placed
from audit.store import pending_count, stage, tree_size
from audit.tables import audit_pending

SEALED = {"enc": "c2VhbGVk", "key": "0a" * 32}
MEMBERS = {name: value for name, value in entries(2)[1].members.items() if name not in ("seq", "prev")}
MEMBERS["ip_address"] = {"enc": "YWRkcmVzcw==", "key": "0b" * 32}
SCALARS: list[Any] = ["", "a", 'a"b', "a\\b", "é", "\x7f", "{}", ",", 0, -1, 10**15, 2**53, True, False, None]
VALUES = st.sampled_from([*SCALARS, SEALED, {}, [], [1], {"enc": "", "key": ""}, {**SEALED, "more": ""}, 1.5])
NAMES = st.sampled_from(["a", "a_b", "b", "enc", "key", "seq", "prev", "A", "é", "event_type"])
SNIPPETS = ["", " ", ",", ":", '"', "\\", "{", "}", "0", "-", "\n", '"a":1,', ',"a":1', '},"event_type":"x"']


def spelled(members: dict[str, Any]) -> str:
    return json.dumps(members, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


BODY = spelled(MEMBERS)


def with_details(text: str) -> str:
    """The usual body with other details, spelled by hand."""
    return spelled({**MEMBERS, "details": {}}).replace('"details":{}', f'"details":{text}')


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """A usual body with some members and details changed, and perhaps something put in or cut out."""
    members = {**MEMBERS, "details": draw(st.dictionaries(NAMES, VALUES, max_size=4))}
    for name in draw(st.lists(st.sampled_from([*members, "seq", "more"]), max_size=1)):
        members[name] = draw(VALUES)
    text = spelled(members)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(SNIPPETS)) + text[at + draw(st.integers(0, 2)) :]
    return text


def plain(body: str) -> Placed | str:
    """What the plain reading makes of it."""
    try:
        return Placed.of(place(body.encode(), 7, "ab" * 32))
    except (BadEntry, NotCanonical) as error:
        return str(error)


def quick(body: str) -> Placed | str:
    try:
        return placed(body, 7, "ab" * 32)
    except (BadEntry, NotCanonical) as error:
        return str(error)


@settings(max_examples=600)
@given(bodies())
@example(BODY)
@example(BODY + "}")
@example(with_details("{}"))
@example(with_details('{"b":1,"a":1}'))
@example(with_details('{"a":1,"a":1}'))
@example(with_details('{"a":1"b":2}'))
@example(with_details('{"a":1"b":2,,"c":3}'))
@example(with_details('{"a":1,}'))
@example(with_details('{,"a":1}'))
@example(with_details('{"a":-0}'))
@example(with_details('{"a":01}'))
@example(with_details('{"a":9007199254740992}'))
@example(with_details('{"a":1},"event_type":"x"}'))
@example(with_details('{"enc":"a","key":"00"}'))
@example(BODY.replace("success", "succeeded"))
@example(BODY.replace('"time":"2026', '"time":"0000'))
def test_a_body_becomes_what_the_plain_reading_makes_of_it(body: str) -> None:
    """Promise 2: a line that no verifier can read does not join the log, whichever way it is read."""
    expected = plain(body)

    assert quick(body) == expected


@pytest.mark.parametrize("address", [None, SEALED])
def test_what_writers_stage_is_recognised(address: Any) -> None:
    """What is read twice costs twice: the usual body is read once."""
    for details in ({}, {"norm": SEALED, "policy_hash": "00", "round_number": 7, "seen": True, "why": None}):
        body = spelled({**MEMBERS, "ip_address": address, "details": details})

        assert _recognised(body, 0, FIRST_PREV) == plain_at(body)


def plain_at(body: str) -> Placed:
    return Placed.of(place(body.encode(), 0, FIRST_PREV))


@pytest.mark.parametrize("excess", [-1, 0, 1, 200])
def test_an_entry_is_never_longer_than_a_tile_can_hold(excess: int) -> None:
    """C2SP tlog-tiles: the length is that of the entry in its place, whatever its details are."""
    empty = len(place(with_details('{"a":""}').encode(), 7, "ab" * 32).canonical)
    body = with_details(f'{{"a":"{"x" * (MAX_ENTRY_BYTES - empty + excess)}"}}')

    assert isinstance(quick(body), Placed) is (excess <= 0)
    assert quick(body) == plain(body)


@pytest.mark.parametrize("body", ["{}", "no json", '{"seq":1}'])
def test_what_was_written_past_the_staging_does_not_join_the_log(log: Logbook, body: str) -> None:
    """A malformed pending row is named and stays where it is; nothing of its batch is written."""
    log.stage(1)
    with log.engine.begin() as conn:
        conn.execute(insert(audit_pending).values(id="odd", body=body, created_at=log.clock()))

    with pytest.raises(BadPending) as refusal:
        log.sequencer().run_once()

    assert refusal.value.entry_id == "odd"
    with reading(log.engine) as conn:
        assert (tree_size(conn), pending_count(conn)) == (0, 2)


def test_a_staged_blob_is_named_as_what_does_not_join_the_log(sqlite_log: Logbook) -> None:
    """SQLite keeps bytes in a column of texts, too; whoever may write there can put some in."""
    with sqlite_log.engine.begin() as conn:
        conn.exec_driver_sql(
            "INSERT INTO audit_pending VALUES ('odd', x'7b7d', '2026-11-24 12:00:00.000000')"
        )

    with pytest.raises(BadPending) as refusal:
        sqlite_log.sequencer().run_once()

    assert refusal.value.entry_id == "odd"


@pytest.mark.parametrize(
    "odd",
    [
        {"event_type": "x" * 65},
        {"event_type": "update\0"},
        {"ip_address": Sealed("", "0a" * 33)},
        {"actor": Sealed("", "\0")},
    ],
)
def test_what_no_column_of_the_log_can_hold_is_named(log: Logbook, odd: dict[str, Any]) -> None:
    """PostgreSQL would refuse the whole batch, for ever, with an error that names no entry."""
    draft = replace(log.make(), **odd)
    with log.engine.begin() as conn:
        stage(conn, draft)

    with pytest.raises(BadPending) as refusal:
        log.sequencer().run_once()

    assert refusal.value.entry_id == draft.id
