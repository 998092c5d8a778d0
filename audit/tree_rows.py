"""The rows that a tree is made of: read with one statement, written with one, whatever the tiles.

A statement's text depends on how many tiles it asks for and on nothing else: it is made once for a process, and
planned once for a connection to PostgreSQL. By way of the driver it costs half of what SQLAlchemy's own way takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from sqlalchemy import Connection, Dialect, Select, bindparam, literal_column, select, union_all
from sqlalchemy.dialects import postgresql, sqlite

from audit.tables import HASHES, LEAF_HASH, audit_log, audit_tiles

TileKey: TypeAlias = tuple[int, int]

_LEAF = -1  # in the place of a level: the row is a leaf
_LEAVES_AT_ONCE = 64
_tiles, _log = audit_tiles.c, audit_log.c


class TreeRows(NamedTuple):
    """What was found: packed tiles by their keys, leaf hashes by their places."""

    packed: dict[TileKey, bytes]
    leaves: dict[int, bytes]


def read_rows(conn: Connection, keys: Collection[TileKey], spans: Collection[range]) -> TreeRows:
    """The tiles with these keys and the leaves at these places, as far as they are there."""
    rows = TreeRows({}, {})
    if not keys and not spans:
        return rows
    values: dict[str, int] = {}
    for number, (level, tile) in enumerate(keys):
        values |= {f"level{number}": level, f"tile{number}": tile}
    pieces = [
        span[at : at + _LEAVES_AT_ONCE] for span in spans for at in range(0, len(span), _LEAVES_AT_ONCE)
    ]
    for number, piece in enumerate(pieces):
        values |= {f"low{number}": piece[0], f"high{number}": piece[-1]}
    sql, order = _statement(len(keys), len(pieces), conn.dialect)
    told = conn.exec_driver_sql(sql, values if order is None else tuple(values[name] for name in order))
    for level, place, hashes in told.all():
        if level == _LEAF:
            rows.leaves[place] = hashes
        else:
            rows.packed[level, place] = hashes
    return rows


@lru_cache
def _statement(keys: int, pieces: int, dialect: Dialect) -> tuple[str, Sequence[str] | None]:
    """The text for the driver, and the order of its parameters where they go by place."""
    query = union_all(*map(_tile, range(keys)), *map(_piece, range(pieces)))
    compiled = query.compile(dialect=dialect)
    return str(compiled), compiled.positiontup


def _tile(number: int) -> Select[Any]:
    wanted = (_tiles.level == bindparam(f"level{number}"), _tiles.tile == bindparam(f"tile{number}"))
    return select(_tiles.level, _tiles.tile, HASHES).where(*wanted)


def _piece(number: int) -> Select[Any]:
    """Leaves between two places, and not more than fit there.

    That is known before the places are: PostgreSQL keeps a plan whose cost it knows, and would else make one each time.
    """
    within = _log.seq.between(bindparam(f"low{number}"), bindparam(f"high{number}"))
    leaves = select(literal_column(str(_LEAF)).label("level"), _log.seq, LEAF_HASH).where(within)
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
