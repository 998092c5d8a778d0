"""What a tile holds, read from the database, and which checkpoint is shown to readers."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from audit.errors import TilesDamaged
from audit.store import (
    CHECKPOINTS,
    StoredCheckpoint,
    StoredEntry,
    cosignature_lines,
    newest_checkpoint,
    read_entries,
    witnessed_checkpoint,
)
from audit.tables import audit_checkpoints, audit_cosignatures
from audit.tiles.errors import NotCovered
from audit.tiles.name import Tile
from audit.tree import TreeSource

_LENGTH_BYTES = 2


def checkpoint_shown(conn: Connection, quorum: int) -> StoredCheckpoint | None:
    """What readers of the tiles are shown: the newest checkpoint with that many cosignatures; with 0, the newest."""
    return witnessed_checkpoint(conn, quorum) if quorum else newest_checkpoint(conn)


def checkpoint_after(conn: Connection, size: int, *, quorum: int, most: int) -> StoredCheckpoint | None:
    """A checkpoint that may be shown and covers more than `size`: the largest step of up to `most` entries.

    If the next one is further away, that one.
    """
    table, cosigned = audit_checkpoints.c, audit_cosignatures.c
    found = CHECKPOINTS.where(table.size > size)
    if quorum:
        count = select(func.count()).where(cosigned.size == table.size).scalar_subquery()
        found = found.where(count >= quorum)
    near = found.where(table.size <= size + most).order_by(table.size.desc()).limit(1)
    row = conn.execute(near).first() or conn.execute(found.order_by(table.size).limit(1)).first()
    if row is None:
        return None
    note = "".join([row.note, *cosignature_lines(conn, row.size)])
    return StoredCheckpoint(row.size, bytes(row.root), note)


def content(conn: Connection, tile: Tile, size: int) -> bytes:
    """The bytes of a tile, as they stand in the database.

    Args:
        conn: the database.
        tile: which.
        size: how many entries the checkpoint covers that readers are shown.

    Raises:
        NotCovered: it reaches beyond that checkpoint.
        TilesDamaged: the database has not all of it.
    """
    if not tile.lies_within(size):
        raise NotCovered(f"the checkpoint of {size} entries does not cover {tile.path}")
    if tile.of_entries:
        return bundled(entries_of(conn, tile))
    hashes = TreeSource(conn, size).tile(tile.level, tile.index)[: tile.width]
    if len(hashes) != tile.width:
        raise TilesDamaged(tile.level, tile.index)
    return b"".join(hashes)


def entries_of(conn: Connection, tile: Tile) -> list[StoredEntry]:
    """The entries below a tile of level 0.

    Raises:
        TilesDamaged: one of them is missing.
    """
    found = read_entries(conn, tile.first - 1 if tile.first else None, tile.width)
    if [entry.seq for entry in found] != list(range(tile.first, tile.first + tile.width)):
        raise TilesDamaged(0, tile.index)
    return found


def bundled(entries: Sequence[StoredEntry]) -> bytes:
    """An entry bundle: each entry behind its length, two bytes in network order."""
    return b"".join(len(entry.canonical).to_bytes(_LENGTH_BYTES) + entry.canonical for entry in entries)
