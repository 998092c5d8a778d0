"""What the entries show as they pass: the order of times, and whether they say what their event types must say.

Nothing of it is a proof of wrongdoing, and a log cannot mend what stands in it: a failure would from then on stand
before every other finding. So these are remarks, each with the first seq.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from audit.entry import Entry, read_time
from audit.events import EVENTS
from audit.schema import problems

_ALLOWED_LAG = timedelta(seconds=60)  # RULES 22
_MOST_KINDS = 50  # a hostile log could hold a kind of its own in each entry
_LONGEST = 200
_OTHERS = "others"
_KNOWN = frozenset(event_type.value for event_type in EVENTS)


@dataclass(slots=True)
class Oddity:
    """How often something odd was seen, and where first."""

    first_seq: int
    count: int = 0


@dataclass(slots=True)
class Conduct:
    """Counts what is odd."""

    laggards: Oddity | None = None
    unknown: dict[str, Oddity] = field(default_factory=dict)
    misfits: dict[str, Oddity] = field(default_factory=dict)
    _latest: str = ""

    def watch(self, entry: Entry) -> None:
        """Look at the next entry."""
        members = entry.members
        time = str(members["time"])  # one spelling, so that texts compare as times do
        if time >= self._latest:
            self._latest = time
        elif read_time(self._latest) - entry.time > _ALLOWED_LAG:
            self.laggards = self.laggards or Oddity(entry.seq)
            self.laggards.count += 1
        if members["event_type"] not in _KNOWN:
            _count(self.unknown, entry.event_type, entry.seq)
            return
        for problem in problems(entry):
            _count(self.misfits, f"{entry.event_type}: {problem}", entry.seq)

    def remarks(self) -> list[str]:
        """What was odd, in sentences."""
        told = []
        if lag := self.laggards:
            told.append(
                f"{lag.count} entries, the first at seq {lag.first_seq}, are dated more than 60 s "
                "before one that precedes them"
            )
        told += [
            f"{seen.count} entries, the first at seq {seen.first_seq}, are of an event type that this verifier "
            f"does not know: {name!r}"
            for name, seen in self.unknown.items()
        ]
        told += [
            f"{seen.count} entries, the first at seq {seen.first_seq}, are not as their event type is: {name}"
            for name, seen in self.misfits.items()
        ]
        return told


def _count(kinds: dict[str, Oddity], name: str, seq: int) -> None:
    name = name[:_LONGEST]
    if name not in kinds and len(kinds) >= _MOST_KINDS:
        name = _OTHERS
    kinds.setdefault(name, Oddity(seq)).count += 1
