"""The rows that a tree is made of: read with one statement, written with one, whatever the tiles.

A statement's text depends on how much of each kind it asks for and on nothing else: it is made once for a process, and
planned once for a connection to PostgreSQL. By way of the driver it costs half of what SQLAlchemy's own way takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeAlias

from sqlalchemy import (
    Connection,
    Dialect,
    Label,
    LargeBinary,
    Select,
    bindparam,
    cast,
    func,
    literal_column,
    null,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql, sqlite

from audit.merkle import HASH_BYTES, paired
from audit.tables import HASHES, LEAF_HASH, PEAKS, ROOT, audit_checkpoints, audit_log, audit_tiles

TileKey: TypeAlias = tuple[int, int]

TILE_WIDTH = 256
GROUP_WIDTH = 16  # leaves whose root a tile of leaves repeats
GROUPS = TILE_WIDTH // GROUP_WIDTH
LEAVES_BYTES = TILE_WIDTH * HASH_BYTES
GROUP_BYTES = GROUP_WIDTH * HASH_BYTES
ROOTS_BYTES = GROUPS * HASH_BYTES
TILE_OF_LEAVES_BYTES = LEAVES_BYTES + ROOTS_BYTES

_LEAF, _GROUP, _PEAKS = -1, -2, -3  # in the place of a level: what else a row is
_LEAVES_AT_ONCE = 64
_tiles, _log, _checkpoints = audit_tiles.c, audit_log.c, audit_checkpoints.c
_NOTHING = cast(null(), LargeBinary).label("above")


@dataclass(slots=True)
class TreeRows:
    """What was found.

    Tiles by their keys, leaf hashes by their places, a group of leaves and the roots of all 16, a checkpoint's peaks
    and root.
    """

    tiles: dict[TileKey, bytes] = field(default_factory=dict)
    leaves: dict[int, bytes] = field(default_factory=dict)
    group: tuple[bytes, bytes] = (b"", b"")
    peaks: tuple[bytes | None, bytes] = (None, b"")


def packed_leaves(leaves: Sequence[bytes]) -> bytes:
    """A row of level 0: 256 leaf hashes, then the roots of their 16 groups of 16."""
    above = leaves
    for _ in range(GROUP_WIDTH.bit_length() - 1):
        above = paired(above)
    return b"".join([*leaves, *above])


def read_rows(
    conn: Connection,
    keys: Collection[TileKey],
    spans: Collection[range],
    group: int | None = None,
    peaks_of: int | None = None,
) -> TreeRows:
    """What there is of these.

    Args:
        conn: reads.
        keys: level and number of tiles.
        spans: places of leaves.
        group: of 16 leaves, read from their tile.
        peaks_of: the size of a checkpoint.
    """
    rows = TreeRows()
    if not keys and not spans and group is None and peaks_of is None:
        return rows
    values: dict[str, int] = {}
    if group is not None:
        tile, place = divmod(group, GROUPS)
        values |= {"group_tile": tile, "group_start": 1 + place * GROUP_BYTES}
    if peaks_of is not None:
        values["size"] = peaks_of
    for number, (level, tile) in enumerate(keys):
        values |= {f"level{number}": level, f"tile{number}": tile}
    pieces = [
        span[at : at + _LEAVES_AT_ONCE] for span in spans for at in range(0, len(span), _LEAVES_AT_ONCE)
    ]
    for number, piece in enumerate(pieces):
        values |= {f"low{number}": piece[0], f"high{number}": piece[-1]}
    sql, order = _statement(len(keys), len(pieces), group is not None, peaks_of is not None, conn.dialect)
    told = conn.exec_driver_sql(sql, values if order is None else tuple(values[name] for name in order))
    for level, place, hashes, above in told.all():
        if level == _LEAF:
            rows.leaves[place] = hashes
        elif level == _GROUP:
            rows.group = hashes or b"", above or b""  # SQLite's part of nothing is NULL
        elif level == _PEAKS:
            rows.peaks = hashes, above
        else:
            rows.tiles[level, place] = hashes
    return rows


@lru_cache
def _statement(
    keys: int,
    pieces: int,
    has_group: bool,
    has_peaks: bool,
    dialect: Dialect,
) -> tuple[str, Sequence[str] | None]:
    """The text for the driver, and the order of its parameters where they go by place."""
    single = [*([_group()] if has_group else []), *([_peaks()] if has_peaks else [])]
    query = union_all(*single, *map(_tile, range(keys)), *map(_piece, range(pieces)))
    compiled = query.compile(dialect=dialect)
    return str(compiled), compiled.positiontup


def _tile(number: int) -> Select[Any]:
    wanted = (_tiles.level == bindparam(f"level{number}"), _tiles.tile == bindparam(f"tile{number}"))
    return select(_tiles.level, _tiles.tile, HASHES, _NOTHING).where(*wanted)


def _group() -> Select[Any]:
    wanted = (_tiles.level == literal_column("0"), _tiles.tile == bindparam("group_tile"))
    hashes = cast(_tiles.hashes, LargeBinary)
    group = func.substr(hashes, bindparam("group_start"), literal_column(str(GROUP_BYTES)))
    above = func.substr(hashes, literal_column(str(LEAVES_BYTES + 1)), literal_column(str(ROOTS_BYTES)))
    return select(literal_column(str(_GROUP)).label("level"), _tiles.tile, group, above).where(*wanted)


def _peaks() -> Select[Any]:
    kind: Label[int] = literal_column(str(_PEAKS)).label("level")
    return select(kind, _checkpoints.size, PEAKS, ROOT).where(_checkpoints.size == bindparam("size"))


def _piece(number: int) -> Select[Any]:
    """Leaves between two places, and not more than fit there.

    That is known before the places are: PostgreSQL keeps a plan whose cost it knows, and would else make one each time.
    """
    within = _log.seq.between(bindparam(f"low{number}"), bindparam(f"high{number}"))
    leaves = select(literal_column(str(_LEAF)).label("level"), _log.seq, LEAF_HASH, _NOTHING).where(within)
    few = leaves.order_by(_log.seq).limit(literal_column(str(_LEAVES_AT_ONCE))).offset(literal_column("0"))
    return select(few.subquery())


def write_rows(conn: Connection, tiles: Mapping[TileKey, bytes]) -> None:
    """Store tiles, each in the place of what was there."""
    if not tiles:
        return
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    new = dialect.insert(audit_tiles)
    stored = new.on_conflict_do_update(
        index_elements=[_tiles.level, _tiles.tile], set_={"hashes": new.excluded.hashes}
    )
    rows = [{"level": level, "tile": tile, "hashes": hashes} for (level, tile), hashes in tiles.items()]
    conn.execute(stored, rows)
