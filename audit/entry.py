"""One thing that happened, in the exact form the log keeps for ever.

The canonical entry is RFC 8785 JSON of thirteen members; its leaf is the RFC 6962 leaf hash of those bytes.
What says something about a person is ciphertext (`Sealed`), so that hashes survive the destruction of keys.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from operator import itemgetter
from types import MappingProxyType
from typing import Never, TypeGuard

from audit.canonical import JsonValue, canonical, parse
from audit.errors import BadEntry, NotCanonical
from audit.events import EventType, Outcome
from audit.merkle import leaf_hash

MAX_ENTRY_BYTES = 65_535  # what an entry bundle of C2SP tlog-tiles can hold
FIRST_PREV = "0" * 64

_TEXTS = ("id", "time", "event_type", "action", "resource", "outcome", "request_id", "trace_id")
_MEMBERS = frozenset({*_TEXTS, "actor", "ip_address", "details", "seq", "prev"})
_OUTCOMES = frozenset(outcome.value for outcome in Outcome)
_texts = itemgetter(*_TEXTS)
_HEX_HASH = re.compile(r"[0-9a-f]{64}")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The ciphertext of a personal field: base64, and the id of the key that opens it."""

    enc: str
    key: str

    def public(self) -> dict[str, str]:
        """The field as it stands in an entry."""
        return {"enc": self.enc, "key": self.key}

    @classmethod
    def read(cls, value: JsonValue) -> Sealed | None:
        """The sealed field that a JSON value spells, if it spells one."""
        if not isinstance(value, Mapping) or len(value) != 2:
            return None
        enc, key = value.get("enc"), value.get("key")
        return cls(enc, key) if isinstance(enc, str) and isinstance(key, str) else None


def is_sealed(value: JsonValue) -> TypeGuard[dict[str, str]]:
    """Whether a value that was parsed from JSON spells a sealed field: `Sealed.read` for millions of them."""
    return (
        type(value) is dict
        and len(value) == 2
        and type(value.get("enc")) is str
        and type(value.get("key")) is str
    )


@dataclass(frozen=True, slots=True)
class Draft:
    """An entry without its place in the log (`seq`, `prev`), as staged in `audit_pending`."""

    id: str
    time: datetime
    event_type: EventType
    actor: Sealed
    action: str
    resource: str
    outcome: Outcome
    request_id: str
    trace_id: str
    ip_address: Sealed | None
    details: Mapping[str, JsonValue | Sealed]
    subjects: frozenset[str]
    """Whom it was sealed under: the writer locks them (RULES 18). It is not stored."""
    _body: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Spell it once: before any transaction, and so that what is staged is what the receipt tells of."""
        object.__setattr__(self, "_body", self._spelled())

    def body(self) -> bytes:
        """The canonical JSON without `seq` and `prev`."""
        return self._body

    def digest(self) -> bytes:
        """The `entry_digest` of a receipt: SHA-256 of the body (RULES 21)."""
        return sha256(self._body).digest()

    def _spelled(self) -> bytes:
        return canonical(
            {
                "id": self.id,
                "time": time_text(self.time),
                "event_type": self.event_type,
                "actor": self.actor.public(),
                "action": self.action,
                "resource": self.resource,
                "outcome": self.outcome,
                "request_id": self.request_id,
                "trace_id": self.trace_id,
                "ip_address": self.ip_address.public() if self.ip_address else None,
                "details": {
                    name: value.public() if isinstance(value, Sealed) else value
                    for name, value in self.details.items()
                },
            }
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry in its place in the log, read from its canonical bytes."""

    members: Mapping[str, JsonValue]
    canonical: bytes

    @property
    def seq(self) -> int:
        """Its place: the index of its leaf, from 0."""
        seq = self.members["seq"]
        assert isinstance(seq, int)  # noqa: S101 - parse_entry checked it
        return seq

    @property
    def prev(self) -> str:
        """The hex leaf hash of the entry before it."""
        return str(self.members["prev"])

    @property
    def id(self) -> str:
        """Its UUIDv7."""
        return str(self.members["id"])

    @property
    def event_type(self) -> str:
        """What happened; a later version of the gateway may know types that this one does not."""
        return str(self.members["event_type"])

    @property
    def time(self) -> datetime:
        """When it happened."""
        return read_time(str(self.members["time"]))

    @property
    def details(self) -> Mapping[str, JsonValue]:
        """The facts of this event type; a sealed one is `{"enc", "key"}`."""
        details = self.members["details"]
        assert isinstance(details, Mapping)  # noqa: S101 - parse_entry checked it
        return details

    def leaf(self) -> bytes:
        """Its RFC 6962 leaf hash."""
        return leaf_hash(self.canonical)

    def digest(self) -> bytes:
        """The `entry_digest` that its receipt must bear: SHA-256 without `seq` and `prev`."""
        return sha256(canonical(self._body())).digest()

    def placed(self, seq: int, prev: str) -> Entry:
        """The same content in another place."""
        members = {**self.members, "seq": seq, "prev": prev}
        return Entry(MappingProxyType(members), canonical(members))

    def key_ids(self) -> list[str]:
        """The ids of the keys that it is sealed under, in order (RULES 26)."""
        values = (self.members["actor"], self.members["ip_address"], *self.details.values())
        return sorted({value["key"] for value in values if is_sealed(value)})

    def sealed(self) -> Iterator[Sealed]:
        """Every sealed field: the actor, the address, and the sealed details."""
        for value in (self.members["actor"], self.members["ip_address"], *self.details.values()):
            if is_sealed(value):
                yield Sealed(value["enc"], value["key"])

    def _body(self) -> dict[str, JsonValue]:
        return {name: value for name, value in self.members.items() if name not in ("seq", "prev")}


def parse_entry(data: bytes) -> Entry:
    """The entry of canonical bytes; raises NotCanonical or BadEntry with what is wrong."""
    if len(data) > MAX_ENTRY_BYTES:
        raise BadEntry(f"longer than {MAX_ENTRY_BYTES} bytes")
    members = parse(data)
    if not isinstance(members, dict):
        raise BadEntry("not a JSON object")
    _check(members)
    return Entry(MappingProxyType(members), data)


def place(body: bytes, seq: int, prev: str) -> Entry:
    """The entry that a staged body becomes at its place in the log."""
    members = parse(body)
    if not isinstance(members, dict) or "seq" in members or "prev" in members:
        raise BadEntry("not the body of an entry")
    members |= {"seq": seq, "prev": prev}
    _check(members)
    data = with_place(body, seq, prev)
    if len(data) > MAX_ENTRY_BYTES:
        raise BadEntry(f"longer than {MAX_ENTRY_BYTES} bytes")
    return Entry(MappingProxyType(members), data)


def with_place(body: bytes, seq: int, prev: str) -> bytes:
    """A canonical body with `prev` and `seq` where their names stand in order: the rest was spelled once already.

    Behind `request_id` only texts follow, and a quote inside of a text has a backslash before it.
    """
    prev_at, seq_at = body.rindex(b'"request_id":"'), body.rindex(b'"time":"')
    between = body[prev_at:seq_at]
    return b'%b"prev":"%b",%b"seq":%d,%b' % (body[:prev_at], prev.encode(), between, seq, body[seq_at:])


def time_text(time: datetime) -> str:
    """RFC 3339 in UTC with six decimals: the one spelling of a time in the log."""
    if time.tzinfo is None:
        raise BadEntry("a time without a zone names no instant: pass an aware datetime")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read_time(text: str) -> datetime:
    """The time that `time_text` spelled."""
    if not _TIME.fullmatch(text):
        raise BadEntry("its time is not RFC 3339 in UTC with microseconds")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise BadEntry("its time is no date of the calendar") from None


def _check(members: Mapping[str, JsonValue]) -> None:
    """The shape every entry has, whatever its event type; `members` were parsed from JSON."""
    if members.keys() != _MEMBERS:
        _refuse_members(members.keys())
    if {*map(type, _texts(members))} != {str}:
        name = next(name for name in _TEXTS if not isinstance(members[name], str))
        raise BadEntry(f"the member {name!r} is not a text")
    seq, prev = members["seq"], members["prev"]
    if type(seq) is not int or seq < 0:  # a bool is another type
        raise BadEntry("its seq is not a position")
    if not isinstance(prev, str) or not _HEX_HASH.fullmatch(prev):
        raise BadEntry("its prev is not a SHA-256 hash in lower-case hex")
    if not _UUID.fullmatch(str(members["id"])):
        raise BadEntry("its id is not a UUID")
    if members["outcome"] not in _OUTCOMES:
        raise BadEntry("its outcome is none of success, denied, failure")
    if not is_sealed(members["actor"]):
        raise BadEntry("its actor is not sealed")
    if members["ip_address"] is not None and not is_sealed(members["ip_address"]):
        raise BadEntry("its ip_address is not sealed")
    if not isinstance(members["details"], dict):
        raise BadEntry("its details are not an object")
    read_time(str(members["time"]))


def _refuse_members(names: Collection[str]) -> Never:
    if missing := _MEMBERS - {*names}:
        raise BadEntry(f"the member {min(missing)!r} is missing")
    raise BadEntry("it has a member that no entry has")


__all__ = [
    "FIRST_PREV",
    "MAX_ENTRY_BYTES",
    "BadEntry",
    "Draft",
    "Entry",
    "NotCanonical",
    "Outcome",
    "Sealed",
    "parse_entry",
    "place",
    "read_time",
    "time_text",
    "with_place",
]
