"""The keys that speak for a log: the one that was given, and those to which the log's own announcements lead from it.

A new key is taken over from an entry that both keys signed (`audit.key_succession`), if a checkpoint that the old key
signed covers it and is the beginning of this log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from audit.checkpoint import NoteVerifier
from audit.entry import Entry
from audit.errors import Refuted
from audit.key_succession import Announcement, announced

Covers: TypeAlias = Callable[[NoteVerifier, int], bool]
"""Whether a key signed a beginning of this log that goes beyond a seq."""

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

    def followers(self, covers: Covers) -> list[tuple[NoteVerifier, Change]]:
        """The keys that took over from the given one, in order, each with the entry that says so."""
        reached = {self.given.vkey: self.given}
        found = []
        for change in self.changes:
            old_vkey, new_vkey = change.announcement.old_vkey, change.announcement.new_vkey
            old = reached.get(old_vkey)
            if old is not None and new_vkey not in reached and covers(old, change.seq):
                reached[new_vkey] = NoteVerifier.parse(new_vkey)
                found.append((reached[new_vkey], change))
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
