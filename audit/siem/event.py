"""What a SIEM is told about an entry: what stands in clear, and a pseudonym for each person (RULES 28)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from audit.canonical import JsonValue
from audit.entry import BadEntry, NotCanonical, Sealed, parse_entry
from audit.store import StoredEntry

Pseudonym = Callable[[str], str | None]
"""The random id of the subject whose key this is; None when nobody's or an erased one's."""


_UNREADABLE = {"event_type": "log.unreadable", "outcome": "failure", "time": "-"}


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


def render(stored: StoredEntry, prev_seq: int, pseudonym: Pseudonym) -> SiemEvent:
    """The event of a stored entry: each sealed member gives way to `{"pseudonym": …}`.

    An entry that somebody spoilt in the database is reported as such, so that it cannot stop what follows it.
    """
    try:
        entry = parse_entry(stored.canonical)
    except (BadEntry, NotCanonical):
        return SiemEvent(stored.seq, prev_seq, _UNREADABLE)
    members = {name: _veiled(value, pseudonym) for name, value in entry.members.items()}
    return SiemEvent(stored.seq, prev_seq, members)


def _veiled(value: JsonValue, pseudonym: Pseudonym) -> JsonValue:
    if sealed := Sealed.read(value):
        return {"pseudonym": pseudonym(sealed.key)}
    if isinstance(value, Mapping):
        return {name: _veiled(inner, pseudonym) for name, inner in value.items()}
    if isinstance(value, list):
        return [_veiled(inner, pseudonym) for inner in value]
    return value
