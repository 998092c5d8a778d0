"""The Merkle tree in the database: C2SP tlog-tiles of 256 hashes, so that a proof reads a handful of rows.

Tile level 0 is `audit_log.leaf_hash`. A row of `audit_tiles` at level L holds the roots of subtrees of
256^L entries, in order, up to 256 of them; it grows at its end and is derived from the leaves alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, insert, select, tuple_, update

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
from audit.tables import audit_log, audit_tiles

TILE_WIDTH = 256
_LEVELS = 8  # tree levels in one tile
_TILES_KEPT = 128  # about 5 MB of a process
_REBUILT_AT_ONCE = TILE_WIDTH * TILE_WIDTH

TileKey: TypeAlias = tuple[int, int]
_Rows: TypeAlias = tuple[list[bytes], ...]  # a tile's hashes, and the nodes above them, level by level


_LEAVES = (
    select(audit_log.c.seq, audit_log.c.leaf_hash)
    .where(audit_log.c.seq.between(bindparam("low"), bindparam("high")))
    .order_by(audit_log.c.seq)
)
_PACKED = select(audit_tiles).where(
    tuple_(audit_tiles.c.level, audit_tiles.c.tile).in_(bindparam("keys", expanding=True))
)


class TreeSource:
    """The perfect subtrees of the log's first `size` entries; reads each tile once."""

    def __init__(self, conn: Connection, size: int) -> None:
        self._conn = conn
        self._size = size
        self._tiles: dict[TileKey, _Rows] = {}

    def node(self, level: int, index: int) -> bytes:
        """The root of a perfect subtree (`merkle.NodeSource`)."""
        height = level & (_LEVELS - 1)
        key = (level // _LEVELS, index >> (_LEVELS - height))
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

    def load(self, keys: Collection[TileKey]) -> None:
        """Read these tiles now: those above the leaves with one query."""
        widths = {key: self._width(key) for key in keys if key not in self._tiles}
        within = [key for key, width in widths.items() if width]
        stored = self._packed([key for key in within if key[0] > 0])
        for key in within:
            if key[0] == 0:
                stored[key] = self._leaves(key[1], widths[key])
        for key, width in widths.items():
            self._tiles[key] = _rows_of(stored.get(key, b"")[: width * HASH_BYTES])

    def load_edge(self) -> None:
        """Read what growing needs: the unfinished tiles, and the one with the last leaf."""
        levels = range(-(-self._size.bit_length() // _LEVELS))
        edge = [(level, self._size >> _LEVELS * (level + 1)) for level in levels]
        self.load([*edge, (0, max(self._size - 1, 0) // TILE_WIDTH)])

    def _width(self, key: TileKey) -> int:
        level, tile = key
        return min(TILE_WIDTH, max(0, (self._size >> _LEVELS * level) - tile * TILE_WIDTH))

    def _leaves(self, tile: int, width: int) -> bytes:
        low = tile * TILE_WIDTH
        rows = self._conn.execute(_LEAVES, {"low": low, "high": low + width - 1}).all()
        packed = b"".join([leaf for _, leaf in rows if len(leaf) == HASH_BYTES])
        if [seq for seq, _ in rows] != [*range(low, low + len(packed) // HASH_BYTES)]:
            raise TilesDamaged(0, tile)
        return packed

    def _packed(self, keys: Sequence[TileKey]) -> dict[TileKey, bytes]:
        if not keys:
            return {}
        return {(level, tile): hashes for level, tile, hashes in self._conn.execute(_PACKED, {"keys": keys})}


class _Wanted:
    """Stands for a tree whose proofs nobody needs: it only learns which tiles they take."""

    def __init__(self) -> None:
        self.keys: set[TileKey] = set()

    def node(self, level: int, index: int) -> bytes:
        """Any hash."""
        tile_level, height = divmod(level, _LEVELS)
        self.keys.add((tile_level, index >> (_LEVELS - height)))
        return b""


@dataclass(frozen=True, slots=True)
class Growth:
    """What leaves make of a tree: its new root, and the tiles that change."""

    root: bytes
    tiles: Mapping[TileKey, list[bytes]]


def root(conn: Connection, size: int) -> bytes:
    """The root of the log's first `size` entries."""
    source = TreeSource(conn, size)
    source.load_edge()
    return root_hash(source, size)


def inclusion(conn: Connection, seq: int, size: int) -> list[bytes]:
    """The path from the entry `seq` to the root of the first `size` entries."""
    source, wanted = TreeSource(conn, size), _Wanted()
    prove_inclusion(wanted, seq, size)
    source.load(wanted.keys)
    return prove_inclusion(source, seq, size)


def consistency(conn: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the first `old` entries are the beginning of the first `new`."""
    source, wanted = TreeSource(conn, new), _Wanted()
    prove_consistency(wanted, old, new)
    source.load(wanted.keys)
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

    def collect(level: int, first: int, nodes: Sequence[bytes]) -> None:
        tile_level, height = divmod(level, _LEVELS)
        if height or not tile_level:
            return
        for index, node in enumerate(nodes, first):
            key = (tile_level, index // TILE_WIDTH)
            if key not in tiles:
                tiles[key] = source.tile(*key)
            tiles[key].append(node)

    peaks = grown(size, source.peaks(), leaves, collect)
    return Growth(CompactRange(size + len(leaves), peaks).root(), tiles)


def write_tiles(conn: Connection, tiles: Mapping[TileKey, list[bytes]]) -> None:
    """Store changed tiles."""
    for (level, tile), hashes in tiles.items():
        packed = b"".join(hashes)
        changed = conn.execute(update(audit_tiles).where(_is_tile(level, tile)).values(hashes=packed))
        if changed.rowcount == 0:
            conn.execute(insert(audit_tiles).values(level=level, tile=tile, hashes=packed))


def rebuild(conn: Connection, size: int) -> None:
    """Derive every tile again from the leaf hashes of the first `size` entries; changes no entry."""
    conn.execute(delete(audit_tiles))
    for start in range(0, size, _REBUILT_AT_ONCE):
        end = min(size, start + _REBUILT_AT_ONCE)
        source = TreeSource(conn, end)
        tiles = range(start // TILE_WIDTH, -(-end // TILE_WIDTH))
        leaves = [leaf for tile in tiles for leaf in source.tile(0, tile)]
        write_tiles(conn, grow(TreeSource(conn, start), start, leaves).tiles)


def _is_tile(level: int, tile: int) -> ColumnElement[bool]:
    return and_(audit_tiles.c.level == level, audit_tiles.c.tile == tile)


@lru_cache(_TILES_KEPT)
def _rows_of(packed: bytes) -> _Rows:
    """A tile and what is above it. The key is its content: what another tile, or another state, holds never answers."""
    rows = [[packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]]
    for _ in range(1, _LEVELS):
        rows.append(paired(rows[-1]))
    return tuple(rows)
