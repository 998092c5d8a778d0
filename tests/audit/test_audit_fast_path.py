"""The verifier is fast, and decides what the plain checks decide: they are spelled out here once more, slowly."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logbook import entries

from audit.canonical import parse
from audit.entry import Entry, parse_entry
from audit.errors import BadEntry, NotCanonical
from audit.verifier.conduct import Conduct

GOOD = entries(2)[1]
_ROOT = Path(__file__).parents[2]


class Refused(Exception):
    """The plain checks refuse it."""


def plain_parse(data: bytes) -> Any:
    """Canonical JSON, each rule on its own: doubles, names, numbers, then the spelling."""

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs) or not all(name.isascii() for name, _ in pairs):
            raise Refused
        return dict(pairs)

    def integer(text: str) -> int:
        if len(text) > 17 or abs(int(text)) >= 2**53:
            raise Refused
        return int(text)

    def refuse(_text: str) -> None:
        raise Refused

    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=members,
            parse_int=integer,
            parse_float=refuse,
            parse_constant=refuse,
        )
        spelled = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        raise Refused from None
    if spelled != data:
        raise Refused
    return value


def plain_check(value: Any) -> None:
    """The shape of an entry, member by member."""
    texts = ("id", "time", "event_type", "action", "resource", "outcome", "request_id", "trace_id")
    if not isinstance(value, dict) or sorted(value) != sorted(
        [*texts, "actor", "ip_address", "details", "seq", "prev"]
    ):
        raise Refused
    sealed = [value["actor"], *([] if value["ip_address"] is None else [value["ip_address"]])]
    sound = (
        all(isinstance(value[name], str) for name in texts)
        and isinstance(value["seq"], int)
        and not isinstance(value["seq"], bool)
        and value["seq"] >= 0
        and isinstance(value["prev"], str)
        and re.fullmatch("[0-9a-f]{64}", value["prev"])
        and re.fullmatch("[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}", value["id"])
        and value["outcome"] in ("success", "denied", "failure")
        and all(isinstance(one, dict) and sorted(one) == ["enc", "key"] for one in sealed)
        and all(isinstance(text, str) for one in sealed for text in one.values())
        and isinstance(value["details"], dict)
        and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", value["time"], re.ASCII)
    )
    if not sound:
        raise Refused
    try:
        datetime.strptime(value["time"], "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007 - its form is what counts
    except ValueError:
        raise Refused from None


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["success", "0" * 64, "é", "2026-02-29T00:00:00.000000Z", "2028-02-29T23:59:59.999999Z", "\x7f", "\u2028"]
)
NUMBERS = st.integers(-(2**54), 2**54) | st.floats() | st.sampled_from([2**53 - 1, 2**53, -(2**53), -0.0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS | st.just({"enc": "", "key": ""}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


SEALED = [
    {"enc": "", "key": ""},
    {"enc": "", "key": "", "more": ""},
    {"enc": "", "key": 1},
    {"enc": ""},
    None,
]
HASHES = ["0" * 63, "0" * 65, "0" * 64 + "\n", "A" * 64, "a" * 64]
IDS = [str(GOOD.members["id"]).upper(), "0" * 36, f"{GOOD.id}\n"]
TIMES = [
    f"{day}T{time}Z"
    for day in ("2026-02-28", "2026-02-29", "2028-02-29", "0000-01-01", "9999-12-31", "2026-13-01")
    for time in (
        "00:00:00.000000",
        "24:00:00.000000",
        "23:59:60.000000",
        "23:59:59.999999",
        "12:00:00.0000000",
    )
]
NEARLY: dict[str, list[Any]] = {
    "seq": [True, False, -1, 2**53 - 1, 2**53, "1", None, 1.0],
    "actor": SEALED,
    "ip_address": SEALED,
    "prev": HASHES,
    "id": IDS,
    "time": TIMES,
    "outcome": ["success", "denied", "failure", "Success", None],
    "details": [{}, [], None, {"é": 1}, {"a": 1.5}, {"a": "é"}],
}


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A good entry with a few members changed, dropped, added or doubled, spelled canonically or nearly so."""
    members: dict[str, Any] = json.loads(GOOD.canonical)
    for name in draw(st.lists(st.sampled_from([*members, "details", "details", "more", "é"]), max_size=2)):
        if draw(st.integers(0, 3)) or name not in members:
            members[name] = draw(st.sampled_from(NEARLY[name]) if name in NEARLY else VALUES)
        else:
            members.pop(name)
    text = json.dumps(members, sort_keys=True, ensure_ascii=draw(st.booleans()), separators=(",", ":"))
    if draw(st.integers(0, 3)) == 0:
        text = text.replace(
            '"outcome":', draw(st.sampled_from(['"outcome":"x","outcome":', '"\\u006futcome":']))
        )
    cut = draw(st.integers(0, len(text)) if draw(st.integers(0, 5)) == 0 else st.just(len(text)))
    return (text[:cut] + draw(TEXTS) * (cut < len(text)) + text[cut:]).encode()


@settings(max_examples=400)
@given(
    st.binary(max_size=60)
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode())
    | lines()
)
@example(b'{"a":1,"a":1}')
@example('{"é":1}'.encode())
@example(b'{"\\u00e9":1}')
@example('{"a":"é","é":1}'.encode())
@example(b"-0")
@example(b"1.5")
@example(b"9007199254740992")
@example(b" {}")
@example(b"{}x")
def test_the_same_bytes_are_canonical(data: bytes) -> None:
    """One byte string a value, whichever way that is found out."""
    try:
        expected = plain_parse(data)
    except Refused:
        with pytest.raises(NotCanonical):
            parse(data)
        return

    assert repr(parse(data)) == repr(expected)  # repr: True is not 1


@settings(max_examples=400)
@given(lines())
@example(GOOD.canonical)
def test_the_same_lines_are_entries(data: bytes) -> None:
    """What is checked less often is not checked less."""
    verdict = fast_verdict(data)

    assert verdict == slow_verdict(data)


@pytest.mark.parametrize("name", NEARLY)
def test_the_same_members_are_those_of_entries(name: str) -> None:
    """Each member with each value that is nearly right."""
    changed = [{**GOOD.members, name: value} for value in NEARLY[name]]
    spelled = [
        json.dumps(members, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
        for members in changed
    ]

    verdicts = [fast_verdict(data) for data in spelled]

    assert verdicts == [slow_verdict(data) for data in spelled]


def fast_verdict(data: bytes) -> str:
    """The entry that the verifier reads, or that it reads none."""
    try:
        return repr(dict(parse_entry(data).members))  # repr: True is not 1
    except (NotCanonical, BadEntry):
        return "refused"


def slow_verdict(data: bytes) -> str:
    """The same by the plain checks."""
    try:
        plain_check(value := plain_parse(data))
    except Refused:
        return "refused"
    return repr(value)


@given(st.lists(st.integers(0, 400), max_size=12))
@example([60, 0])
@example([61, 0])
@example([200, 100, 150, 139, 140])
def test_the_same_times_lag(seconds: list[int]) -> None:
    """RULES 22: times are compared as texts, and give what times themselves would."""
    conduct, times = Conduct(), [datetime(2026, 11, 24, 12, s // 60, s % 60) for s in seconds]  # noqa: DTZ001

    for time in times:
        members = {**GOOD.members, "time": f"{time.isoformat()}.000000Z"}
        conduct.watch(Entry(members, GOOD.canonical))

    lagging = [
        place for place, time in enumerate(times) if (max(times[: place + 1]) - time).total_seconds() > 60
    ]
    assert (conduct.laggards.count if conduct.laggards else 0) == len(lagging)


def peak_kilobytes(bundle: Path, count: int) -> int:
    """The peak memory of a process that verifies a bundle of so many entries."""
    make = (
        "import sys; from pathlib import Path; from bench.verify import write;"
        "write(Path(sys.argv[1]), int(sys.argv[2]))"
    )
    verify = (
        "import sys; from pathlib import Path; from audit.verify import verify_bundle;"
        "assert verify_bundle(sys.argv[1]).ok; lines = Path('/proc/self/status').read_text().splitlines();"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM:')))"
    )  # not ru_maxrss, which begins with that of the process before it: ours

    def run(program: str, *arguments: str) -> str:
        command = [sys.executable, "-c", program, str(bundle), *arguments]
        return subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout

    run(make, str(count))
    return int(run(verify))


def test_a_log_ten_times_as_long_takes_no_more_memory(tmp_path: Path) -> None:
    """Memory grows with the logarithm: of 36,000 entries more, which are 40 MB, nothing is kept."""
    short, long = (peak_kilobytes(tmp_path / f"{count}.zip", count) for count in (4_000, 40_000))

    assert long - short < 1_500
