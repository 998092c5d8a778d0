"""The tree made again from the entries and compared with what is stored: everything above the leaves is derived.

The entries are read once, in order. What is kept meanwhile is one open tile a level and the tiles that differ (8 KiB
for each 65,536 entries at most). `audit_log` is never changed: a wrong leaf hash there is a finding, not a repair.
Of tiles of leaves, which are many, a digest is kept, and their entries are read once more. Where one is lacking
nothing is amiss: proofs take the leaves themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update

from audit.checkpoint import SignedTree
from audit.merkle import HASH_BYTES, CompactRange, leaf_hash
from audit.reading import reading
from audit.store import StoredCheckpoint, StoredEntry, newest_checkpoint, read_entries, tree_size
from audit.tables import HASHES, audit_tiles
from audit.tree_rows import LEAVES_BYTES, TILE_OF_LEAVES_BYTES, TILE_WIDTH, TileKey, packed_leaves, write_rows

_LEVELS = 8
_PAGE = 1000
_MOST_NAMED = 100
_PACKED_AT_ONCE = 32


@dataclass(slots=True)
class Rebuilding:
    """What was compared, and what differed from the entries; at most 100 leaves are named.

    `packed` tiles of leaves were lacking, as in a log of an older version, and were written: no difference.
    """

    entries: int = 0
    tiles: int = 0
    packed: int = 0
    missing: int | None = None
    bad_leaves: int = 0
    first_bad_leaves: list[int] = field(default_factory=list)
    bad_tiles: list[TileKey] = field(default_factory=list)
    is_signed: bool | None = None
    is_mended: bool = False

    @property
    def is_good(self) -> bool:
        """Whether the stored tree is that of the entries, and of what was signed."""
        return (
            self.missing is None
            and not self.bad_leaves
            and not self.bad_tiles
            and self.is_signed is not False
        )


class _Grown:
    """A tree as far as it was read: its peaks, the open tile of each level, and the tiles that were filled."""

    def __init__(self) -> None:
        self.tree = CompactRange()
        self.signed_root: bytes | None = None
        self._open: dict[int, list[bytes]] = {}
        self._filled: dict[TileKey, bytes] = {}

    def append(self, leaf: bytes, signed_size: int) -> None:
        self._hear(0, self.tree.size, leaf)
        self.tree.append(leaf, self._hear)
        if self.tree.size == signed_size:
            self.signed_root = self.tree.root()

    def filled(self) -> dict[TileKey, bytes]:
        """The tiles that became full since this was asked last."""
        filled, self._filled = self._filled, {}
        return filled

    def edges(self) -> dict[TileKey, bytes]:
        """The last tile of each level above the leaves, unless it is full."""
        ends = {level: (self.tree.size >> _LEVELS * level) // TILE_WIDTH for level in self._open}
        return {
            (level, ends[level]): b"".join(hashes) for level, hashes in self._open.items() if hashes and level
        }

    def _hear(self, level: int, index: int, node: bytes) -> None:
        tile_level, height = divmod(level, _LEVELS)
        if height:
            return
        hashes = self._open.setdefault(tile_level, [])
        hashes.append(node)
        if len(hashes) == TILE_WIDTH:
            self._filled[tile_level, index // TILE_WIDTH] = (
                b"".join(hashes) if tile_level else packed_leaves(hashes)
            )
            hashes.clear()


@dataclass(slots=True)
class _Differences:
    """The tiles of one tree that are not stored as it has them: hashes, or the digest of a tile of leaves."""

    of_texts: bool
    wrong: dict[TileKey, bytes] = field(default_factory=dict)
    lacking: dict[TileKey, bytes] = field(default_factory=dict)

    def note(self, key: TileKey, hashes: bytes, stored: bytes) -> None:
        if stored[: len(hashes)] == hashes:
            return
        if key[0] > 0:
            self.wrong[key] = hashes
        elif stored in (b"", hashes[:LEAVES_BYTES]):  # as older versions left it
            self.lacking[key] = sha256(hashes).digest()
        else:
            self.wrong[key] = sha256(hashes).digest()

    def leaves(self, conn: Connection, tile: int) -> bytes:
        """A tile of leaves, from the log as it stands."""
        entries = read_entries(conn, tile * TILE_WIDTH - 1 if tile else None, TILE_WIDTH)
        return packed_leaves(
            [leaf_hash(entry.canonical) if self.of_texts else entry.leaf for entry in entries]
        )


class _Reading:
    """One pass over the log: the tree of the entries and, once they part, the tree of the stored leaf hashes."""

    def __init__(self, engine: Engine, signed: SignedTree | StoredCheckpoint | None) -> None:
        self.engine, self.signed = engine, signed
        self.found = Rebuilding()
        self.of_entries = _Grown()
        self.of_leaves: _Grown | None = None
        self.differences = [_Differences(of_texts=True)]

    def take(self, entry: StoredEntry) -> None:
        """Add the next entry to the tree."""
        leaf, signed_size = leaf_hash(entry.canonical), self.signed.size if self.signed else -1
        if leaf != entry.leaf:
            self._note_leaf(entry.seq)
        if self.of_leaves is not None and len(entry.leaf) == HASH_BYTES:
            self.of_leaves.append(entry.leaf, signed_size)
        self.of_entries.append(leaf, signed_size)
        self.found.entries += 1

    def compare(self, *, at_end: bool = False) -> None:
        """Compare the tiles that were filled, and at the end those that are still open."""
        grown = [self.of_entries, *([self.of_leaves] if self.of_leaves else [])]
        for which, (tree, differences) in enumerate(zip(grown, self.differences, strict=True)):
            made = tree.filled() | (tree.edges() if at_end else {})
            with reading(self.engine) as conn:
                for key, hashes in made.items():
                    differences.note(key, hashes, _stored(conn, key))
            self.found.tiles += len(made) if which == 0 else 0

    def chosen(self) -> _Differences | None:
        """The tiles to write: of that tree which was signed. None if neither was."""
        if self.signed is None or self.of_entries.signed_root == self.signed.root:
            return self.differences[0]
        if self.of_leaves is not None and self.of_leaves.signed_root == self.signed.root:
            return self.differences[1]
        return None

    def _note_leaf(self, seq: int) -> None:
        if self.of_leaves is None:
            self.of_leaves = deepcopy(self.of_entries)
            known = self.differences[0]
            self.differences.append(_Differences(False, dict(known.wrong), dict(known.lacking)))
        self.found.bad_leaves += 1
        if self.found.bad_leaves <= _MOST_NAMED:
            self.found.first_bad_leaves.append(seq)


def rebuild_tiles(
    engine: Engine,
    signed: SignedTree | None,
    *,
    page: int = _PAGE,
    progress: Callable[[int], None] = lambda _: None,
) -> Rebuilding:
    """Make every tile again from the entries, compare, and write those that differed.

    A tile is written only if it belongs to a tree that was signed: the one of the entries or, where an entry's text
    was changed, the one of the stored leaf hashes. If neither gives the signed root, nothing is written.

    Args:
        engine: the database, as a role that may write `audit_tiles` (RULES 24).
        signed: the last tree that the signer remembers, outside of this database; None if it remembers none: then
            the newest checkpoint in the database counts, if there is one.
        page: how many entries are read at once.
        progress: hears how many entries were compared.
    """
    with reading(engine) as conn:
        size = tree_size(conn)
        published = newest_checkpoint(conn, cosigned=False)
    course = _Reading(engine, signed or published)
    for entries in _pages(engine, size, page):
        for entry in entries:
            if entry.seq != course.found.entries:
                course.found.missing = course.found.entries
                break
            course.take(entry)
        course.compare()
        progress(course.found.entries)
        if course.found.missing is not None:
            break
    course.compare(at_end=course.found.missing is None)
    return _finished(course)


def _finished(course: _Reading) -> Rebuilding:
    found, chosen = course.found, course.chosen()
    surplus = {} if found.missing is not None else _surplus(course.engine)
    if course.signed is not None:
        found.is_signed = course.of_entries.signed_root == course.signed.root
    differing = surplus | (chosen or course.differences[0]).wrong
    found.bad_tiles = sorted(differing)
    if chosen is not None and found.missing is None:
        bottoms = {key: chosen.wrong[key] for key in chosen.wrong if key[0] == 0}
        for key in sorted(differing.keys() - bottoms.keys()):
            _mend(course.engine, key, differing[key])
        packed = _pack(course.engine, chosen, bottoms | chosen.lacking)
        found.is_mended = bool(differing) and bottoms.keys() <= packed
        found.packed = len(packed & chosen.lacking.keys())
    return found


def _pack(engine: Engine, tree: _Differences, digests: dict[TileKey, bytes]) -> set[TileKey]:
    """Write tiles of leaves and tell which; one whose leaves are no longer what was compared waits for the next run."""
    keys, written = sorted(digests), set[TileKey]()
    for start in range(0, len(keys), _PACKED_AT_ONCE):
        with reading(engine) as conn:
            made = {key: tree.leaves(conn, key[1]) for key in keys[start : start + _PACKED_AT_ONCE]}
        same = {key: hashes for key, hashes in made.items() if sha256(hashes).digest() == digests[key]}
        with engine.begin() as conn:
            write_rows(conn, same)
        written |= same.keys()
    return written


def _pages(engine: Engine, size: int, page: int) -> Iterator[list[StoredEntry]]:
    after: int | None = None
    while (after or 0) < size:
        with reading(engine) as conn:
            entries = [entry for entry in read_entries(conn, after, page) if entry.seq < size]
        if not entries:
            return
        yield entries
        after = entries[-1].seq


def _surplus(engine: Engine) -> dict[TileKey, bytes]:
    """Rows that say more than the log can have by now, and what may stay of them."""
    query = select(audit_tiles.c.level, audit_tiles.c.tile, func.length(HASHES))
    with reading(engine) as conn:
        size = tree_size(conn)
        rows = [
            (level, tile)
            for level, tile, length in conn.execute(query)
            if length > _room((level, tile), size)
        ]
    found: dict[TileKey, bytes] = {}
    for key in rows:
        with reading(engine) as conn:
            hashes = _stored(conn, key)
            room = _room(key, tree_size(conn))  # after the row, which may have grown meanwhile
        if len(hashes) > room:
            found[key] = hashes[:room]
    return found


def _room(key: TileKey, size: int) -> int:
    """How many bytes a tile may have in a log of that size; one of leaves is written once it is full."""
    level, tile = key
    if level < 0 or tile < 0:
        return 0
    width = max(0, min(TILE_WIDTH, (size >> _LEVELS * level) - tile * TILE_WIDTH))
    if level == 0:
        return TILE_OF_LEAVES_BYTES if width == TILE_WIDTH else 0
    return width * HASH_BYTES


def _mend(engine: Engine, key: TileKey, hashes: bytes) -> None:
    """Write a tile; what a sequencer has added to it meanwhile stays."""
    query = select(HASHES).where(_is(*key)).with_for_update()
    with engine.begin() as conn:
        row, size = conn.execute(query).first(), tree_size(conn)
        if row is None:
            conn.execute(insert(audit_tiles).values(level=key[0], tile=key[1], hashes=hashes))
            return
        grown = bytes(row.hashes)[len(hashes) : _room(key, size)]
        conn.execute(update(audit_tiles).where(_is(*key)).values(hashes=hashes + grown))


def _stored(conn: Connection, key: TileKey) -> bytes:
    return bytes(conn.scalar(select(HASHES).where(_is(*key))) or b"")


def _is(level: int, tile: int) -> ColumnElement[bool]:
    return (audit_tiles.c.level == level) & (audit_tiles.c.tile == tile)
