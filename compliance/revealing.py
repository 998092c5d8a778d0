"""Decrypts the sealed fields of one log entry for a reader who says why; each time is an entry of its own (RULES 27).

The entry of the revealing is committed before anything is opened: what was seen, the log knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Engine

from audit.canonical import JsonValue
from audit.entry import Entry, Sealed
from audit.errors import KeyDestroyed
from audit.events import EventType
from compliance.errors import CannotOpen, ReasonMissing
from compliance.journal import Journal
from compliance.keyring.sealing import SubjectSealer

LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class Revealed:
    """The sealed fields of an entry, opened.

    Args:
        values: each field that could be opened, by its name: `actor`, `ip_address`, `details.NAME`.
        destroyed: fields whose key was destroyed, as an erasure does: nobody can open them.
        damaged: fields that their key does not open.
    """

    values: Mapping[str, JsonValue] = field(repr=False)
    destroyed: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()


def reveal(entry: Entry, reason: str, *, engine: Engine, journal: Journal, sealer: SubjectSealer) -> Revealed:
    """Open the sealed fields of an entry, once it is written down who asks, and why.

    Args:
        entry: the entry.
        reason: why the reader must know; sealed under the reader.
        engine: the main database.
        journal: writes the entry, under the reader as its actor.
        sealer: opens the fields.

    Raises:
        ReasonMissing: the reason is empty or too long.
    """
    if not 0 < len(reason := reason.strip()) <= LONGEST_REASON:
        raise ReasonMissing(LONGEST_REASON)
    fields = sealed_fields(entry)
    told: dict[str, JsonValue] = {"seq": entry.seq, "fields": [*fields], "reason": reason}
    written = journal.draft(EventType.AUDIT_REVEALED, resource="audit_log", details=told)
    with engine.begin() as conn:
        journal.write(conn, written)
    return _opened(entry.id, fields, sealer)


def sealed_fields(entry: Entry) -> dict[str, Sealed]:
    """The sealed fields of an entry by their names, in the order in which an entry has them."""
    places = {name: entry.members[name] for name in ("actor", "ip_address")}
    places |= {f"details.{name}": value for name, value in entry.details.items()}
    found = ((name, Sealed.read(value)) for name, value in places.items())
    return {name: sealed for name, sealed in found if sealed is not None}


def _opened(entry_id: str, fields: Mapping[str, Sealed], sealer: SubjectSealer) -> Revealed:
    values, destroyed, damaged = dict[str, JsonValue](), list[str](), list[str]()
    for name, sealed in fields.items():
        try:
            values[name] = sealer.open(sealed, f"{entry_id}.{name}")
        except KeyDestroyed:
            destroyed.append(name)
        except CannotOpen:
            damaged.append(name)
    return Revealed(values, tuple(destroyed), tuple(damaged))
