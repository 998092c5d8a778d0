"""What a SIEM is told about an entry: what stands in clear, and a pseudonym for each person (RULES 28)."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from audit.canonical import JsonValue
from audit.entry import BadEntry, NotCanonical, Outcome, Sealed, parse_entry, read_time, time_text
from audit.events import EVENTS, EventType, Ocsf, Severity
from audit.store import StoredEntry

Pseudonym = Callable[[str], str | None]
"""The random id of the subject whose key this is; None when nobody's or an erased one's."""


UNREADABLE = "log.unreadable"
"""The event type that stands for an entry which somebody spoilt in the database; no entry of the log bears it."""


@dataclass(frozen=True, slots=True)
class Sense:
    """What an event means to who watches: a sentence, how soon to look, and its place in OCSF."""

    meaning: str
    severity: Severity
    ocsf: Ocsf


_KEY_ID = re.compile(r"[!-~]{1,255}")  # no key store is asked for anything else
_ANY_ACTIVITY = Ocsf(6003, 99)
_SPOILT = Sense("An entry of the log cannot be read: verify the log.", Severity.CRITICAL, Ocsf(6005, 2))


@dataclass(frozen=True, slots=True)
class SiemEvent:
    """An entry on its way to one sink; `prev_seq` is what the sink was sent before it, -1 at the first."""

    seq: int
    prev_seq: int
    entry: Mapping[str, JsonValue]

    def json(self) -> bytes:
        """The raw form `{seq, prev_seq, entry}`, on one line."""
        event = {"seq": self.seq, "prev_seq": self.prev_seq, "entry": self.entry}
        return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()

    def text(self, member: str) -> str:
        """A member of the entry that is text in every entry: time, event_type, outcome."""
        return str(self.entry[member])

    @property
    def time(self) -> datetime:
        """When it happened; of a spoilt entry, when that was found."""
        return read_time(self.text("time"))

    @property
    def sense(self) -> Sense:
        """What its event type means; of a type that a later version wrote, no more than its name."""
        name = self.text("event_type")
        if name == UNREADABLE:
            return _SPOILT
        if name not in tuple(EventType):
            return Sense(name, Severity.LOW, _ANY_ACTIVITY)
        kind = EVENTS[EventType(name)]
        return Sense(kind.meaning, kind.severity, kind.ocsf)

    @property
    def details(self) -> Mapping[str, JsonValue]:
        """The facts of the event type; none of a spoilt entry."""
        details = self.entry.get("details")
        return details if isinstance(details, Mapping) else {}

    def pseudonym(self, member: str) -> str | None:
        """Whose the sealed member is; None for nobody, an erased person, or an entry without that member."""
        veiled = self.entry.get(member)
        found = veiled.get("pseudonym") if isinstance(veiled, Mapping) else None
        return None if found is None else str(found)


def render(stored: StoredEntry, prev_seq: int, pseudonym: Pseudonym, now: datetime) -> SiemEvent:
    """The event of a stored entry: each sealed member gives way to `{"pseudonym": …}`.

    An entry that somebody spoilt in the database is reported as such, so that it cannot stop what follows it;
    it bears the time of its finding, under which a SIEM shows it.
    """
    try:
        entry = parse_entry(stored.canonical)
    except (BadEntry, NotCanonical):
        spoilt = {"event_type": UNREADABLE, "outcome": Outcome.FAILURE.value, "time": time_text(now)}
        return SiemEvent(stored.seq, prev_seq, spoilt)
    members = {name: _veiled(value, pseudonym) for name, value in entry.members.items()}
    return SiemEvent(stored.seq, prev_seq, members)


def _veiled(value: JsonValue, pseudonym: Pseudonym) -> JsonValue:
    if sealed := Sealed.read(value):
        return {"pseudonym": pseudonym(sealed.key) if _KEY_ID.fullmatch(sealed.key) else None}
    if isinstance(value, Mapping):
        return {name: _veiled(inner, pseudonym) for name, inner in value.items()}
    if isinstance(value, list):
        return [_veiled(inner, pseudonym) for inner in value]
    return value
