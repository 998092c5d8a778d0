"""Finds entries in the log without reading it: by type over an index, by time by halving, by outcome by type.

Every page is a bounded amount of work, whatever is looked for and however long the log is: one that has looked at
enough without finding enough says so, and where to go on (docs/decisions/0159-find-entries-by-place-and-type.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, Select, select, union_all

from audit.entry import Entry, parse_entry
from audit.errors import AuditError
from audit.events import EVENTS, Outcome
from audit.store import tree_size
from audit.tables import audit_log

LAG = timedelta(seconds=60)
"""How far an entry's time may be behind that of the entry before it (RULES 22)."""
MOST_LOOKED_AT = 2_000
_MOST_TYPES = 40  # beyond, the log itself is the shortest way through


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries are looked for; what is None or empty does not matter.

    Args:
        types: any of these event types.
        outcome: how it ended.
        since: not before this time.
        until: before this time.
        first: not before this place.
        last: not behind this place.
    """

    types: frozenset[str] = frozenset()
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None
    first: int | None = None
    last: int | None = None

    def holds(self, entry: Entry) -> bool:
        """Whether an entry is one of them."""
        return (
            (not self.types or entry.event_type in self.types)
            and (self.outcome is None or entry.members["outcome"] == self.outcome)
            and (self.since is None or entry.time >= self.since)
            and (self.until is None or entry.time < self.until)
        )


@dataclass(frozen=True, slots=True)
class Found:
    """A page of entries, the newest first.

    Args:
        entries: those that were found.
        older: go on with the entries before this place; None: there are no more.
        newer: go on with the entries behind this place; None: there are no more.
        is_cut: it stopped looking before the page was full: what is older may hold more.
        unreadable: places on the way whose bytes are no entry any more: somebody has overwritten them.
    """

    entries: tuple[Entry, ...]
    older: int | None
    newer: int | None
    is_cut: bool = False
    unreadable: tuple[int, ...] = ()


def find_entries(
    conn: Connection,
    wanted: Wanted,
    *,
    before: int | None = None,
    after: int | None = None,
    limit: int = 50,
    looked_at: int = MOST_LOOKED_AT,
) -> Found:
    """A page of what is wanted: the newest, or those next before or behind a place.

    Args:
        conn: reads.
        wanted: what is looked for.
        before: only what is older than this place.
        after: only what is newer than this place, the nearest; counts if `before` is None.
        limit: how many fill a page.
        looked_at: how many entries are read at most.
    """
    is_backward = before is not None or after is None
    low, high = _places(conn, wanted)
    if before is not None:
        high = min(high, before - 1)
    elif after is not None:
        low = max(low, after + 1)
    candidates = _candidates(conn, wanted, low, high, looked_at + 1, is_backward=is_backward)
    found, unreadable, last = list[Entry](), list[int](), None
    for seq, entry in _read(conn, candidates[:looked_at], at_once=max(limit, 100)):
        last = seq
        if entry is None:
            unreadable.append(seq)
        elif wanted.holds(entry):
            found.append(entry)
        if len(found) == limit:
            break
    on = last if last is not None and last != candidates[-1] else None
    is_cut = on is not None and len(found) < limit
    if is_backward:
        return Found(tuple(found), on, None if before is None else before - 1, is_cut, tuple(unreadable))
    back = None if after is None else after + 1
    return Found(tuple(reversed(found)), back, on, is_cut, tuple(reversed(unreadable)))


def types_of_outcome(outcome: Outcome) -> frozenset[str]:
    """The event types that can end so."""
    return frozenset(kind.value for kind, event in EVENTS.items() if outcome in event.outcomes)


def place_of_time(conn: Connection, moment: datetime) -> int:
    """The first place whose entry is not older than a moment, by halving: times go up, but for `LAG` (RULES 22)."""
    low, high = 0, tree_size(conn)
    while low < high:
        middle = (low + high) // 2
        time = conn.scalar(select(audit_log.c.time).where(audit_log.c.seq == middle))
        if time is not None and time < moment:
            low = middle + 1
        else:
            high = middle
    return low


def _places(conn: Connection, wanted: Wanted) -> tuple[int, int]:
    """The first and the last place where it can be."""
    low, high = wanted.first or 0, tree_size(conn) - 1
    if wanted.last is not None:
        high = min(high, wanted.last)
    if wanted.since is not None:
        low = max(low, place_of_time(conn, wanted.since - LAG))
    if wanted.until is not None:
        high = min(high, place_of_time(conn, wanted.until + LAG) - 1)
    return low, high


def _candidates(
    conn: Connection, wanted: Wanted, low: int, high: int, most: int, *, is_backward: bool
) -> Sequence[int]:
    """Where to look, in order, `most` places at the most: those of the types, or one after the other."""
    if low > high:
        return ()
    types = wanted.types
    if not types and wanted.outcome in (Outcome.DENIED, Outcome.FAILURE):
        types = types_of_outcome(wanted.outcome)
    if types and len(types) <= _MOST_TYPES:
        query = _of_types(sorted(types), low, high, most, is_backward=is_backward)
        return list(conn.execute(query).scalars())
    if is_backward:
        return range(high, max(low, high - most + 1) - 1, -1)
    return range(low, min(high, low + most - 1) + 1)


def _of_types(types: Sequence[str], low: int, high: int, most: int, *, is_backward: bool) -> Select[int]:
    """The places of entries of these types: the first of each from its own part of the index, then merged."""
    seq = audit_log.c.seq
    each = [
        select(seq)
        .where(audit_log.c.event_type == kind, seq.between(low, high))
        .order_by(seq.desc() if is_backward else seq)
        .limit(most)
        .subquery()
        for kind in types
    ]
    merged = union_all(*(select(one.c.seq) for one in each)).subquery()
    return select(merged.c.seq).order_by(merged.c.seq.desc() if is_backward else merged.c.seq).limit(most)


def _read(conn: Connection, seqs: Sequence[int], at_once: int) -> Iterator[tuple[int, Entry | None]]:
    """The entries at these places, in their order, read as they are asked for; None where one cannot be read."""
    for start in range(0, len(seqs), at_once):
        some = seqs[start : start + at_once]
        query = select(audit_log.c.seq, audit_log.c.canonical).where(audit_log.c.seq.in_(some))
        rows = {row.seq: row.canonical for row in conn.execute(query)}
        for seq in some:
            yield seq, _parsed(rows.get(seq))


def _parsed(canonical: str | bytes | None) -> Entry | None:
    if canonical is None:
        return None
    try:
        return parse_entry(canonical if isinstance(canonical, bytes) else canonical.encode())
    except AuditError:
        return None
