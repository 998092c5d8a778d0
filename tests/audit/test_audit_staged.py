"""Staged bodies read in one pass: whatever is recognised is what the plain reading finds, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logbook import entries

from audit.entry import FIRST_PREV, MAX_ENTRY_BYTES, place
from audit.errors import BadEntry, NotCanonical
from audit.staged import Placed, _recognised, placed

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
