"""The Merkle tree in the database: C2SP tlog-tiles of 256 hashes, so that a proof reads a handful of rows.

A row of `audit_tiles` at level L holds the roots of subtrees of 256^L entries, in order, up to 256 of them; it grows
at its end and is derived from the leaves alone, which are `audit_log.leaf_hash`. A row of level 0 repeats 256 of these
for inclusion proofs, with the roots of each 16 of them: it is written once full, may be missing, and nothing is signed
by what it says.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from sqlalchemy import Connection, delete

from audit.errors import TilesDamaged
from audit.merkle import (
    HASH_BYTES,
    CompactRange,
    grown,
    paired,
    peak_places,
    prove_consistency,
    prove_inclusion,
    root_hash,
)
from audit.proof import Proof
from audit.store import entry_at, newest_checkpoint, witnessed_checkpoint
from audit.tables import audit_tiles
from audit.tree_rows import (
    GROUP_BYTES,
    GROUP_WIDTH,
    GROUPS,
    ROOTS_BYTES,
    TILE_WIDTH,
    TileKey,
    read_rows,
    write_rows,
)

_LEVELS = 8  # tree levels in one tile
_GROUP_LEVEL = GROUP_WIDTH.bit_length() - 1  # of a group's root
_TILES_KEPT = 128  # about 5 MB of a process
_REBUILT_AT_ONCE = TILE_WIDTH * TILE_WIDTH

Place: TypeAlias = tuple[int, int]  # of a node: its level and index
_Rows: TypeAlias = tuple[list[bytes], ...]  # a tile's hashes, and the nodes above them, level by level


class TreeSource:
    """The perfect subtrees of the log's first `size` entries; reads each tile once.

    Args:
        conn: reads.
        size: how many entries the tree has.
    """

    def __init__(self, conn: Connection, size: int) -> None:
        self._conn = conn
        self._size = size
        self._tiles: dict[TileKey, _Rows] = {}
        self._near: dict[Place, bytes] = {}

    def node(self, level: int, index: int) -> bytes:
        """The root of a perfect subtree (`merkle.NodeSource`)."""
        if near := self._near.get((level, index)):
            return near
        key, height = _key(level, index), level & (_LEVELS - 1)
        if key not in self._tiles:
            self.load([key])
        try:
            return self._tiles[key][height][index & ((TILE_WIDTH >> height) - 1)]
        except IndexError:
            raise TilesDamaged(*key) from None

    def tile(self, level: int, tile: int) -> list[bytes]:
        """The hashes of a tile, as far as they lie within the tree."""
        if (level, tile) not in self._tiles:
            self.load([(level, tile)])
        return list(self._tiles[level, tile][0])

    def peaks(self) -> list[bytes]:
        """The roots of the perfect subtrees that the tree consists of."""
        return [self.node(level, index) for level, index in peak_places(self._size)]

    def load(self, keys: Collection[TileKey], *, group: int | None = None, with_peaks: bool = False) -> None:
        """Read these tiles now, with one query.

        Args:
            keys: level and number of each.
            group: of 16 leaves in a full tile, read from the row that repeats them with what is above it there.
            with_peaks: read those of a checkpoint of this size, too.
        """
        widths = {key: self._width(key) for key in keys if key not in self._tiles}
        spans = {key: _span(key[1], width) for key, width in widths.items() if key[0] == 0 and width}
        above = [key for key, width in widths.items() if key[0] > 0 and width]
        rows = read_rows(self._conn, above, spans.values(), group, self._size if with_peaks else None)
        for key, width in widths.items():
            stored = _joined(rows.leaves, spans[key]) if key in spans else rows.tiles.get(key, b"")
            self._tiles[key] = _rows_of(stored[: width * HASH_BYTES])
        if group is not None:
            self._near |= _near(group, *rows.group)
        if with_peaks:
            self._near |= _peaks(self._size, *rows.peaks)

    def load_path(self, seq: int) -> None:
        """Read what the path from an entry takes, with one query: for proofs, which their readers check.

        It goes by the row that repeats the leaf, and by the peaks of a checkpoint of this size, where there are some
        and they are sound; otherwise by the leaves themselves, with another query.
        """
        wanted, peaks, own = _Wanted(), set(peak_places(self._size)), (0, seq // TILE_WIDTH)
        prove_inclusion(wanted, seq, self._size)
        is_full = self._width(own) == TILE_WIDTH
        keys = {_key(*place) for place in wanted.places - peaks} - ({own} if is_full else set())
        self.load(keys, group=seq // GROUP_WIDTH if is_full else None, with_peaks=True)
        self.load({_key(*place) for place in wanted.places - self._near.keys()})

    def load_edge(self) -> None:
        """Read what growing needs: the unfinished tiles, and the one with the last leaf."""
        levels = range(-(-self._size.bit_length() // _LEVELS))
        edge = [(level, self._size >> _LEVELS * (level + 1)) for level in levels]
        self.load([*edge, (0, max(self._size - 1, 0) // TILE_WIDTH)])

    def _width(self, key: TileKey) -> int:
        level, tile = key
        return min(TILE_WIDTH, max(0, (self._size >> _LEVELS * level) - tile * TILE_WIDTH))


def _key(level: int, index: int) -> TileKey:
    """The tile that a node is in, or is computed from."""
    tile_level, height = divmod(level, _LEVELS)
    return tile_level, index >> (_LEVELS - height)


def _span(tile: int, width: int) -> range:
    return range(tile * TILE_WIDTH, tile * TILE_WIDTH + width)


def _joined(leaves: Mapping[int, bytes], span: range) -> bytes:
    joined = b"".join(
        [leaf for leaf in map(leaves.get, span) if leaf is not None and len(leaf) == HASH_BYTES]
    )
    if len(joined) < len(span) * HASH_BYTES:
        raise TilesDamaged(0, span[0] // TILE_WIDTH)
    return joined


def _near(group: int, leaves: bytes, roots: bytes) -> dict[Place, bytes]:
    """The nodes of a tile of leaves that a path from this group takes; none if the row lacks or contradicts them."""
    if len(leaves) != GROUP_BYTES or len(roots) != ROOTS_BYTES:
        return {}
    below = _upwards(0, group * GROUP_WIDTH, _hashes(leaves))
    above = _upwards(_GROUP_LEVEL, group - group % GROUPS, _hashes(roots))
    own_root = (_GROUP_LEVEL, group)
    return below | above if below[own_root] == above[own_root] else {}


def _upwards(level: int, first: int, row: list[bytes]) -> dict[Place, bytes]:
    """A row of nodes and all above it, to the one at the top."""
    nodes: dict[Place, bytes] = {}
    while row:
        nodes |= {(level, first + place): node for place, node in enumerate(row)}
        level, first, row = level + 1, first >> 1, paired(row)
    return nodes


def _peaks(size: int, packed: bytes | None, root: bytes) -> dict[Place, bytes]:
    """The peaks of a checkpoint's tree; none if it has none, or if they do not give its root."""
    peaks = _hashes(packed or b"")
    if len(peaks) != size.bit_count() or CompactRange(size, peaks).root() != root:
        return {}
    return dict(zip(peak_places(size), peaks, strict=True))


class _Wanted:
    """Stands for a tree whose proofs nobody needs: it only learns which nodes they take."""

    def __init__(self) -> None:
        self.places: set[Place] = set()

    def node(self, level: int, index: int) -> bytes:
        """Any hash."""
        self.places.add((level, index))
        return b""


@dataclass(frozen=True, slots=True)
class Growth:
    """What leaves make of a tree: its new root, the peaks that it is made of, and the tiles that change."""

    root: bytes
    peaks: Sequence[bytes]
    tiles: Mapping[TileKey, bytes]


def root(conn: Connection, size: int) -> bytes:
    """The root of the log's first `size` entries."""
    source = TreeSource(conn, size)
    source.load_edge()
    return root_hash(source, size)


def inclusion(conn: Connection, seq: int, size: int) -> list[bytes]:
    """The path from the entry `seq` to the root of the first `size` entries."""
    source = TreeSource(conn, size)
    source.load_path(seq)
    return prove_inclusion(source, seq, size)


def consistency(conn: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the first `old` entries are the beginning of the first `new`, made of the leaves themselves.

    Witnesses sign by it: a tile that somebody changed must not look to them like another log.
    """
    source, wanted = TreeSource(conn, new), _Wanted()
    prove_consistency(wanted, old, new)
    source.load({_key(*place) for place in wanted.places})
    return prove_consistency(source, old, new)


def prove(conn: Connection, seq: int, quorum: int = 0) -> Proof | None:
    """The proof file of an entry; None if no checkpoint covers it yet.

    Args:
        conn: reads.
        seq: the entry's place.
        quorum: how many cosignatures its checkpoint shall bear; while no such one covers it, the last one is taken.
    """
    published = witnessed_checkpoint(conn, quorum) if quorum else None
    if published is None or published.size <= seq:
        published = newest_checkpoint(conn)
    entry = entry_at(conn, seq)
    if published is None or entry is None or published.size <= seq:
        return None
    return Proof(seq, tuple(inclusion(conn, seq, published.size)), published.note, entry.canonical)


def grow(source: TreeSource, size: int, leaves: Sequence[bytes]) -> Growth:
    """The tree of `size` with leaves added: no leaf of before is hashed again, and nothing is written."""
    tiles: dict[TileKey, list[bytes]] = {}
    groups: dict[int, bytes] = {}

    def collect(level: int, first: int, nodes: Sequence[bytes]) -> None:
        if level == _GROUP_LEVEL:
            groups.update(enumerate(nodes, first))
        tile_level, height = divmod(level, _LEVELS)
        if height:
            return
        for tile in range(first // TILE_WIDTH, -(-(first + len(nodes)) // TILE_WIDTH)):
            low = tile * TILE_WIDTH - first
            tiles[tile_level, tile] = [*source.tile(tile_level, tile), *nodes[max(0, low) : low + TILE_WIDTH]]

    peaks = grown(size, source.peaks(), leaves, collect)
    for (level, tile), hashes in tiles.items():
        if level == 0 and len(hashes) == TILE_WIDTH:
            own = range(tile * GROUPS, (tile + 1) * GROUPS)
            hashes += [groups.get(group) or source.node(_GROUP_LEVEL, group) for group in own]
    written = {
        key: b"".join(hashes) for key, hashes in tiles.items() if key[0] > 0 or len(hashes) > TILE_WIDTH
    }
    return Growth(CompactRange(size + len(leaves), peaks).root(), peaks, written)


def rebuild(conn: Connection, size: int) -> None:
    """Derive every tile again from the leaf hashes of the first `size` entries; changes no entry."""
    conn.execute(delete(audit_tiles))
    for start in range(0, size, _REBUILT_AT_ONCE):
        end = min(size, start + _REBUILT_AT_ONCE)
        source = TreeSource(conn, end)
        tiles = range(start // TILE_WIDTH, -(-end // TILE_WIDTH))
        leaves = [leaf for tile in tiles for leaf in source.tile(0, tile)]
        write_rows(conn, grow(TreeSource(conn, start), start, leaves).tiles)


@lru_cache(_TILES_KEPT)
def _rows_of(packed: bytes) -> _Rows:
    """A tile and what is above it. The key is its content: what another tile, or another state, holds never answers."""
    rows = [_hashes(packed)]
    for _ in range(1, _LEVELS):
        rows.append(paired(rows[-1]))
    return tuple(rows)


def _hashes(packed: bytes) -> list[bytes]:
    return [packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]
