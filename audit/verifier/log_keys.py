"""The keys that speak for a log: the one that was given, and those to which the log's own announcements lead from it.

A new key is taken over from an entry that both keys signed (`audit.key_succession`), if checkpoints that both of them
signed cover it and are beginnings of this log. From then on the old key speaks no more: it may have been stolen since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from audit.checkpoint import NoteVerifier
from audit.entry import Entry
from audit.errors import Refuted
from audit.key_succession import Announcement, announced

Reach: TypeAlias = Callable[[NoteVerifier], int]
"""How many entries the largest beginning of this log has that a key signed; asked once of each, as it takes long."""

_MAX_CHANGES = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """An announcement, and the entry that makes it."""

    seq: int
    announcement: Announcement


@dataclass(slots=True)
class LogKeys:
    """What is known of a log's keys."""

    given: NoteVerifier
    changes: list[Change] = field(default_factory=list)

    def hear(self, entry: Entry) -> None:
        """Look whether an entry announces a key."""
        if announcement := announced(entry):
            if len(self.changes) == _MAX_CHANGES:
                raise Refuted(f"it announces more than {_MAX_CHANGES} keys, as no log does", entry.seq)
            self.changes.append(Change(entry.seq, announcement))

    def followers(self, reach: Reach) -> list[tuple[NoteVerifier, Change]]:
        """The keys that took over, one from the other, from the given one, each with the entry that says so."""
        newest, found = self.given, list[tuple[NoteVerifier, Change]]()
        reaches: dict[str, int] = {}

        def covers(key: NoteVerifier, seq: int) -> bool:
            if key.vkey not in reaches:
                reaches[key.vkey] = reach(key)
            return reaches[key.vkey] > seq

        for change in self.changes:
            if change.announcement.old_vkey == newest.vkey and covers(newest, change.seq):
                follower = NoteVerifier.parse(change.announcement.new_vkey)
                if covers(follower, change.seq):
                    newest = follower
                    found.append((follower, change))
        return found

    def predecessors(self) -> list[NoteVerifier]:
        """The keys from which the given one took over: good for what is held against the log, and no more."""
        known = {self.given.vkey}
        for change in reversed(self.changes):
            if change.announcement.new_vkey in known:
                known.add(change.announcement.old_vkey)
        return [NoteVerifier.parse(vkey) for vkey in sorted(known - {self.given.vkey})]


def told(followers: Sequence[tuple[NoteVerifier, Change]]) -> list[str]:
    """The findings about keys that took over."""
    return [
        f"the entry {change.seq} announces, under both keys, that {key_name(key.vkey)} follows "
        f"{key_name(change.announcement.old_vkey)}"
        for key, change in followers
    ]


def key_name(vkey: str) -> str:
    """A key's name with its id, as short as that can be told."""
    name, key_id, _ = vkey.split("+", 2)
    return f"{name}+{key_id}"
