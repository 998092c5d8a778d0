"""The way of an erasure through the places: one after the other, keys last, and then a look at what is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from compliance.errors import NotNow
from compliance.keeping.holds import held_places
from compliance.places import Place


@dataclass(frozen=True, slots=True)
class Look:
    """What one pass over places left behind."""

    left: dict[str, int]
    waits: bool

    @property
    def problem(self) -> str | None:
        """The code of why the erasure is not over, or None if it is."""
        if self.waits:
            return NotNow.code
        return "DATA_LEFT" if any(self.left.values()) else None


def erase_everywhere(subject: str, places: Sequence[Place], held: Collection[str] = ()) -> Look:
    """Erase a person from one place after the other, then look again.

    What comes after a place that must wait, waits too: rows of a later place may be the only way to those of
    an earlier one, and an update in a frozen cohort is read with its keys until its round ends (RULES 5).

    Args:
        subject: whose data.
        places: in the order in which they are erased.
        held: the names of those that a legal hold keeps; they are neither erased nor counted.
    """
    free = [place for place in places if place.name not in held]
    waits = False
    for place in free:
        try:
            place.erase(subject)
        except NotNow:
            waits = True
            break
    return Look({place.name: place.count(subject) for place in free}, waits)


@dataclass(frozen=True, slots=True)
class Grip:
    """What legal holds keep of a person, and what must stay with it.

    Args:
        names: every place, but those that are last.
        leads: places whose rows lead to those of others.
        last: what opens everything: the keys, and what is found by them. It stays as long as anything is held.
    """

    names: tuple[str, ...]
    leads: Mapping[str, frozenset[str]]
    last: tuple[str, ...]

    def held(self, conn: Connection, subject: str) -> frozenset[str]:
        """The names of what must stay now; read in the transaction that relies on it."""
        held = held_places(conn, subject, (*self.names, *self.last))
        if not held:
            return held
        led = {name for name, targets in self.leads.items() if targets & held}
        return held | led | frozenset(self.last)

    def is_whole(self, held: Collection[str]) -> bool:
        """Whether nothing at all may be erased."""
        return set(self.names) <= set(held)
