"""The Merkle tree in the database: C2SP tlog-tiles of 256 hashes, so that a proof reads a handful of rows.

Tile level 0 is `audit_log.leaf_hash`. A row of `audit_tiles` at level L holds the roots of subtrees of
256^L entries, in order, up to 256 of them; it grows at its end and is derived from the leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from audit.errors import TilesDamaged
from audit.merkle import (
    HASH_BYTES,
    CompactRange,
    peak_places,
    prove_consistency,
    prove_inclusion,
    root_hash,
)
from audit.proof import Proof
from audit.store import entry_at, newest_checkpoint
from audit.tables import audit_log, audit_tiles

TILE_WIDTH = 256
_LEVELS = 8  # tree levels in one tile

TileKey = tuple[int, int]


class TreeSource:
    """The perfect subtrees of the log's first `size` entries; reads each tile once."""

    def __init__(self, conn: Connection, size: int) -> None:
        self._conn = conn
        self._size = size
        self._tiles: dict[TileKey, list[bytes]] = {}

    def node(self, level: int, index: int) -> bytes:
        """The root of a perfect subtree (`merkle.NodeSource`)."""
        tile_level, height = divmod(level, _LEVELS)
        first = index << height
        tile = first // TILE_WIDTH
        start = first % TILE_WIDTH
        hashes = self.tile(tile_level, tile)[start : start + (1 << height)]
        if len(hashes) != 1 << height:
            raise TilesDamaged(tile_level, tile)
        return _perfect_root(hashes)

    def tile(self, level: int, tile: int) -> list[bytes]:
        """The hashes of a tile, as far as they lie within the tree."""
        if (level, tile) not in self._tiles:
            width = min(TILE_WIDTH, (self._size >> _LEVELS * level) - tile * TILE_WIDTH)
            stored = self._leaves(tile) if level == 0 else self._row(level, tile)
            self._tiles[level, tile] = stored[: max(width, 0)]
        return self._tiles[level, tile]

    def peaks(self) -> list[bytes]:
        """The roots of the perfect subtrees that the tree consists of."""
        return [self.node(level, index) for level, index in peak_places(self._size)]

    def _leaves(self, tile: int) -> list[bytes]:
        low = tile * TILE_WIDTH
        within = audit_log.c.seq.between(low, low + TILE_WIDTH - 1)
        rows = self._conn.execute(
            select(audit_log.c.seq, audit_log.c.leaf_hash).where(within).order_by(audit_log.c.seq)
        ).all()
        if any(row.seq != low + place or len(row.leaf_hash) != HASH_BYTES for place, row in enumerate(rows)):
            raise TilesDamaged(0, tile)
        return [bytes(row.leaf_hash) for row in rows]

    def _row(self, level: int, tile: int) -> list[bytes]:
        packed = self._conn.scalar(select(audit_tiles.c.hashes).where(_is_tile(level, tile)))
        return _unpacked(bytes(packed or b""))


def root(conn: Connection, size: int) -> bytes:
    """The root of the log's first `size` entries."""
    return root_hash(TreeSource(conn, size), size)


def inclusion(conn: Connection, seq: int, size: int) -> list[bytes]:
    """The path from the entry `seq` to the root of the first `size` entries."""
    return prove_inclusion(TreeSource(conn, size), seq, size)


def consistency(conn: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the first `old` entries are the beginning of the first `new`."""
    return prove_consistency(TreeSource(conn, new), old, new)


def prove(conn: Connection, seq: int) -> Proof | None:
    """The proof file of an entry under the last checkpoint; None if that does not cover it yet."""
    published, entry = newest_checkpoint(conn), entry_at(conn, seq)
    if published is None or entry is None or published.size <= seq:
        return None
    return Proof(seq, tuple(inclusion(conn, seq, published.size)), published.note, entry.canonical)


def grow(source: TreeSource, size: int, leaves: Iterable[bytes]) -> dict[TileKey, list[bytes]]:
    """The tiles that change when leaves are added to a tree of `size`; nothing is written."""
    tree = CompactRange(size, source.peaks())
    tiles: dict[TileKey, list[bytes]] = {}

    def collect(level: int, index: int, node: bytes) -> None:
        tile_level, height = divmod(level, _LEVELS)
        if height == 0:
            key = (tile_level, index // TILE_WIDTH)
            if key not in tiles:
                tiles[key] = list(source.tile(*key))
            tiles[key].append(node)

    for leaf in leaves:
        tree.append(leaf, collect)
    return tiles


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
    source = TreeSource(conn, 0)
    leaves = (leaf for tile in range(-(-size // TILE_WIDTH)) for leaf in TreeSource(conn, size).tile(0, tile))
    write_tiles(conn, grow(source, 0, leaves))


def _is_tile(level: int, tile: int) -> ColumnElement[bool]:
    return (audit_tiles.c.level == level) & (audit_tiles.c.tile == tile)


def _unpacked(packed: bytes) -> list[bytes]:
    return [packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]


def _perfect_root(hashes: list[bytes]) -> bytes:
    tree = CompactRange()
    for node in hashes:
        tree.append(node)
    return tree.root()
