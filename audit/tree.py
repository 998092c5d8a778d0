"""The Merkle tree in the database: C2SP tlog-tiles of 256 hashes, so that a proof reads a handful of rows.

A row of `audit_tiles` at level L holds the roots of subtrees of 256^L entries, in order, up to 256 of them; it grows
at its end and is derived from the leaves alone, which are `audit_log.leaf_hash`. A row of level 0 repeats 256 of these
for inclusion proofs: it is written once full, may be missing, and nothing is signed by what it says.
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
from audit.tree_rows import TileKey, read_rows, write_rows

TILE_WIDTH = 256
_LEVELS = 8  # tree levels in one tile
_TILES_KEPT = 128  # about 5 MB of a process
_REBUILT_AT_ONCE = TILE_WIDTH * TILE_WIDTH

_Rows: TypeAlias = tuple[list[bytes], ...]  # a tile's hashes, and the nodes above them, level by level


class TreeSource:
    """The perfect subtrees of the log's first `size` entries; reads each tile once.

    Args:
        conn: reads.
        size: how many entries the tree has.
        packed: take leaves from tiles of level 0 where there are some: for paths, which their readers check.
    """

    def __init__(self, conn: Connection, size: int, *, packed: bool = False) -> None:
        self._conn = conn
        self._size = size
        self._packed = packed
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
        """Read these tiles now, with one query."""
        widths = {key: self._width(key) for key in keys if key not in self._tiles}
        stored = self._stored({key: width for key, width in widths.items() if width})
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

    def _stored(self, widths: Mapping[TileKey, int]) -> dict[TileKey, bytes]:
        packed = {
            key for key, width in widths.items() if key[0] > 0 or (self._packed and width == TILE_WIDTH)
        }
        spans = {key: _span(key[1], width) for key, width in widths.items() if key[0] == 0}
        stored, leaves = read_rows(self._conn, packed, [spans[key] for key in spans.keys() - packed])
        lacking = {
            key: span for key, span in spans.items() if len(stored.get(key, b"")) < len(span) * HASH_BYTES
        }
        if packed & lacking.keys():
            leaves |= read_rows(self._conn, (), [lacking[key] for key in packed & lacking.keys()]).leaves
        return stored | {key: _joined(leaves, span) for key, span in lacking.items()}


def _span(tile: int, width: int) -> range:
    return range(tile * TILE_WIDTH, tile * TILE_WIDTH + width)


def _joined(leaves: Mapping[int, bytes], span: range) -> bytes:
    joined = b"".join(
        [leaf for leaf in map(leaves.get, span) if leaf is not None and len(leaf) == HASH_BYTES]
    )
    if len(joined) < len(span) * HASH_BYTES:
        raise TilesDamaged(0, span[0] // TILE_WIDTH)
    return joined


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
    source, wanted = TreeSource(conn, size, packed=True), _Wanted()
    prove_inclusion(wanted, seq, size)
    source.load(wanted.keys)
    return prove_inclusion(source, seq, size)


def consistency(conn: Connection, old: int, new: int) -> list[bytes]:
    """The proof that the first `old` entries are the beginning of the first `new`, made of the leaves themselves.

    Witnesses sign by it: a tile that somebody changed must not look to them like another log.
    """
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
        if height:
            return
        for tile in range(first // TILE_WIDTH, -(-(first + len(nodes)) // TILE_WIDTH)):
            low = tile * TILE_WIDTH - first
            tiles[tile_level, tile] = [*source.tile(tile_level, tile), *nodes[max(0, low) : low + TILE_WIDTH]]

    peaks = grown(size, source.peaks(), leaves, collect)
    written = {key: hashes for key, hashes in tiles.items() if key[0] > 0 or len(hashes) == TILE_WIDTH}
    return Growth(CompactRange(size + len(leaves), peaks).root(), written)


def write_tiles(conn: Connection, tiles: Mapping[TileKey, list[bytes]]) -> None:
    """Store changed tiles."""
    write_rows(conn, {key: b"".join(hashes) for key, hashes in tiles.items()})


def rebuild(conn: Connection, size: int) -> None:
    """Derive every tile again from the leaf hashes of the first `size` entries; changes no entry."""
    conn.execute(delete(audit_tiles))
    for start in range(0, size, _REBUILT_AT_ONCE):
        end = min(size, start + _REBUILT_AT_ONCE)
        source = TreeSource(conn, end)
        tiles = range(start // TILE_WIDTH, -(-end // TILE_WIDTH))
        leaves = [leaf for tile in tiles for leaf in source.tile(0, tile)]
        write_tiles(conn, grow(TreeSource(conn, start), start, leaves).tiles)


@lru_cache(_TILES_KEPT)
def _rows_of(packed: bytes) -> _Rows:
    """A tile and what is above it. The key is its content: what another tile, or another state, holds never answers."""
    rows = [[packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]]
    for _ in range(1, _LEVELS):
        rows.append(paired(rows[-1]))
    return tuple(rows)
