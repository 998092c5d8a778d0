"""Walking the log from its first entry: order, chain, canonical form, signed root, in O(log n) memory.

Where the chain breaks, the entries around the break tell which of them was touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from audit.checkpoint import SignedTree
from audit.entry import FIRST_PREV, MAX_ENTRY_BYTES, Entry, parse_entry
from audit.errors import AuditError, BadBundle, BadEntry
from audit.merkle import CompactRange

Visit: TypeAlias = Callable[[Entry, CompactRange], None]

_MAX_DROPPED = 16  # how many dropped neighbours the blame looks for


class ChainBroken(AuditError):
    """The entries are not those of the signed tree; `seq` is the first bad place."""

    code = "CHAIN_BROKEN"

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(problem)
        self.seq = seq
        self.problem = problem


def walk(lines: Iterator[bytes], signed: SignedTree, visit: Visit) -> None:
    """Check every line against the signed tree; `visit` sees each good entry and the tree up to it.

    Raises ChainBroken at the first bad place.
    """
    tree, size, link = CompactRange(), 0, FIRST_PREV
    before: Entry | None = None
    while (line := _next(lines, size)) is not None:
        if size == signed.size:
            _check_root(tree, signed)
            raise ChainBroken(size, "the checkpoint does not cover it: appended, or not signed yet")
        entry = _read(line, size)
        if entry.seq != size:
            raise _misplaced(before, entry, lines, size)
        if entry.prev != link:
            raise _blame(before, entry, _next_entry(lines, size + 1), tree, signed)
        leaf = entry.leaf()
        tree.append(leaf)
        visit(entry, tree)
        before, link, size = entry, leaf.hex(), size + 1
    if size < signed.size:
        raise ChainBroken(size, f"it is missing: the checkpoint covers {signed.size} entries")
    _check_root(tree, signed)


def _check_root(tree: CompactRange, signed: SignedTree) -> None:
    if tree.root() != signed.root:
        raise ChainBroken(
            max(signed.size - 1, 0),
            "the entries hang together but do not give the signed root: this one was altered, "
            "or everything from an earlier one on was written anew",
        )


def _next(lines: Iterator[bytes], seq: int) -> bytes | None:
    try:
        return next(lines, None)
    except BadBundle as error:
        raise ChainBroken(seq, f"it cannot be read: {error}") from None


def _read(line: bytes, seq: int) -> Entry:
    try:
        if len(line) <= MAX_ENTRY_BYTES and not line.endswith(b"\n"):
            raise BadEntry("its line does not end")
        return parse_entry(line.removesuffix(b"\n"))
    except AuditError as error:
        raise ChainBroken(seq, f"the line is no entry: {error}") from None


def _next_entry(lines: Iterator[bytes], seq: int) -> Entry | None:
    """The entry behind a break, if it can be read: a witness of what stood before it."""
    try:
        line = _next(lines, seq)
        return _read(line, seq) if line is not None else None
    except ChainBroken:
        return None


def _misplaced(before: Entry | None, entry: Entry, lines: Iterator[bytes], seq: int) -> ChainBroken:
    """A line with another number: if it is the true owner of the place before, that line was inserted."""
    if before is not None and entry.seq == before.seq and entry.canonical != before.canonical:
        following = _next_entry(lines, seq + 1)
        if following is not None and following.prev == entry.leaf().hex():
            return ChainBroken(before.seq, "it was inserted: the next line holds the entry of this place")
    return ChainBroken(seq, f"entry {entry.seq} stands in its place: dropped, moved or inserted lines")


def _blame(
    before: Entry | None, entry: Entry, following: Entry | None, tree: CompactRange, signed: SignedTree
) -> ChainBroken:
    """Which side of a break was touched. What the following entry (or the root) vouches for was not."""
    seq = entry.seq
    if before is None:
        return ChainBroken(seq, "its prev is not 64 zeros, though it is the first")

    def is_vouched(candidate: Entry) -> bool:
        leaf = candidate.leaf()
        if following is not None:
            return following.prev == leaf.hex()
        return signed.size == tree.size + 1 and tree.root_with(leaf) == signed.root

    link = before.leaf().hex()
    if is_vouched(entry):
        return ChainBroken(before.seq, "its content was altered: the next entry bears another hash of it")
    if is_vouched(entry.placed(seq, link)):
        return ChainBroken(seq, "its prev is not the hash of the entry before it")
    if following is not None and following.prev == link:
        return ChainBroken(seq, "it was put between its neighbours, which name each other")
    if any(is_vouched(entry.placed(seq + gone, entry.prev)) for gone in range(1, _MAX_DROPPED + 1)):
        return ChainBroken(seq, "the entry of this place was dropped and later ones were numbered anew")
    return ChainBroken(before.seq, "it was altered or inserted: the next entry bears another hash")
