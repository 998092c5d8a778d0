"""Tiles: their names and contents are those of C2SP tlog-tiles, and a reader that knows only that proves the log."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logbook import ORIGIN, SIGNER, Logbook
from sqlalchemy import Connection, update
from tile_reader import read_log, tile_path

from audit.errors import TilesDamaged
from audit.reading import reading
from audit.store import add_cosignature, newest_checkpoint, tree_size
from audit.tables import audit_tiles
from audit.tiles import (
    NotCovered,
    Tile,
    checkpoint_after,
    checkpoint_shown,
    content,
    parse_tile,
    tiles_between,
)

# Names


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(63, 1234067), "tile/63/x001/x234/067"),
        (Tile(0, 273, 112), "tile/0/273.p/112"),
        (Tile(0, 999, 1, of_entries=True), "tile/entries/999.p/1"),
        (Tile(1, 1000), "tile/1/x001/000"),
    ],
)
def test_a_tile_has_the_name_of_the_specification(tile: Tile, path: str) -> None:
    """The example of C2SP tlog-tiles is index 1234067: x001/x234/067."""
    _, kind, rest = path.split("/", 2)

    assert tile.path == path
    assert parse_tile(kind, rest) == tile


@pytest.mark.parametrize(
    ("kind", "rest"),
    [
        ("64", "000"),
        ("00", "000"),
        ("-1", "000"),
        ("٣", "000"),
        ("0", "0"),
        ("0", "0000"),
        ("0", "x000/000"),
        ("0", "001/000"),
        ("0", "x001/x000"),
        ("0", "000.p/0"),
        ("0", "000.p/01"),
        ("0", "000.p/256"),
        ("0", "000.p/999"),
        ("0", "000.p/"),
        ("0", "000.p"),
        ("0", "000/"),
        ("0", "00\u0660"),
        ("0", "000\n"),
        ("0", "../000"),
        ("0", "x001/" * 7 + "000"),
        ("entries", ""),
        ("data", "000"),
    ],
)
def test_another_spelling_names_no_tile(kind: str, rest: str) -> None:
    """One name for each tile, or caches would hold it twice and a folder would not have it."""
    assert parse_tile(kind, rest) is None


@given(st.integers(0, 63), st.integers(0, 10**12), st.integers(1, 256))
def test_every_name_is_read_back(level: int, index: int, width: int) -> None:
    """And it is the name that the independent reader asks for."""
    tile = Tile(level, index, width)
    _, kind, rest = tile.path.split("/", 2)

    assert parse_tile(kind, rest) == tile
    assert tile.path == tile_path(str(level), index, width)


def test_a_tree_of_70000_has_the_tiles_of_the_specification() -> None:
    """273 full tiles and one of 112 at level 0; one full and one of 17 at level 1; one of 1 at level 2."""
    tiles = list(tiles_between(0, 70_000))
    widths = {
        (level, kind): [tile.width for tile in tiles if (tile.level, tile.of_entries) == (level, kind)]
        for level, kind in ((0, False), (0, True), (1, False), (2, False))
    }

    assert widths[0, False] == widths[0, True] == [256] * 273 + [112]
    assert widths[1, False] == [256, 17]
    assert widths[2, False] == [1]
    assert {(tile.level, tile.width) for tile in tiles_between(0, 256)} == {(0, 256), (1, 1)}


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=5).map(sorted))
def test_tiles_written_in_steps_are_all_that_the_last_size_needs(sizes: list[int]) -> None:
    """Whatever the sizes on the way: what a reader of the last checkpoint fetches was written in some step."""
    written = {tile for old, new in zip([0, *sizes], sizes, strict=False) for tile in tiles_between(old, new)}

    assert set(tiles_between(0, sizes[-1])) <= written
    assert all(tile.lies_within(sizes[-1]) for tile in written)


# Contents


def test_a_reader_of_the_specification_proves_the_log_from_tiles(log: Logbook) -> None:
    """Every entry, every level, the signed root; at sizes around the edge of a tile."""
    for count in (1, 254, 1, 1, 300):
        log.grow(count)
        with reading(log.engine) as conn:
            size = tree_size(conn)
            assert len(read_log(partial(_fetch, conn), SIGNER.vkey)) == size


def _fetch(conn: Connection, path: str) -> bytes:
    shown = checkpoint_shown(conn, 0)
    assert shown is not None
    if path == "checkpoint":
        return shown.note.encode()
    tile = parse_tile(*path.split("/", 2)[1:])
    assert tile is not None
    return content(conn, tile, shown.size)


def test_a_tile_beyond_the_checkpoint_is_not_handed_out(sqlite_log: Logbook) -> None:
    """A hash that no signature covers may yet be another one."""
    sqlite_log.grow(300)
    with reading(sqlite_log.engine) as conn:
        assert len(content(conn, Tile(0, 1, 44), 300)) == 44 * 32
        for tile in (Tile(0, 1, 45), Tile(0, 1), Tile(0, 2, 1), Tile(1, 0, 2), Tile(2, 0, 1), Tile(63, 0, 1)):
            with pytest.raises(NotCovered):
                content(conn, tile, 300)
        with pytest.raises(NotCovered):
            content(conn, Tile(0, 1, 44, of_entries=True), 299)


def test_what_the_database_has_lost_is_told(sqlite_log: Logbook) -> None:
    """A row of the tree that is cut, an entry that is gone: no shorter tile is passed off as the right one."""
    sqlite_log.grow(600)
    with sqlite_log.engine.begin() as conn:
        conn.execute(update(audit_tiles).values(hashes=bytes(32)))
    sqlite_log.tamper("DELETE FROM audit_log WHERE seq = 300")
    with reading(sqlite_log.engine) as conn:
        for tile in (Tile(1, 0, 2), Tile(0, 1), Tile(0, 1, of_entries=True)):
            with pytest.raises(TilesDamaged):
                content(conn, tile, 600)
        assert len(content(conn, Tile(0, 0), 600)) == 8192


# Which checkpoint


def test_the_next_checkpoint_is_the_largest_step_within_reach(sqlite_log: Logbook) -> None:
    """A publisher that has much to make up for sets down a checkpoint on the way."""
    for count in (3, 4, 5, 50):
        sqlite_log.grow(count)
    with reading(sqlite_log.engine) as conn:

        def after(size: int) -> int | None:
            found = checkpoint_after(conn, size, quorum=0, most=10)
            return found.size if found else None

        assert [after(0), after(7), after(12), after(62)] == [7, 12, 62, None]
        newest = newest_checkpoint(conn)
        assert checkpoint_after(conn, 12, quorum=0, most=10) == newest
        assert newest is not None
        assert newest.note.startswith(ORIGIN)


def test_only_a_witnessed_checkpoint_is_shown_where_witnesses_are_wanted(log: Logbook) -> None:
    """As many cosignatures as the quorum asks for; the lines stand in the note."""
    for count in (3, 4, 5):
        log.grow(count)
    with log.engine.begin() as conn:
        for size, witness in ((3, "a"), (3, "b"), (7, "a")):
            add_cosignature(conn, size, witness, f"— {witness} AAAAAAAA\n", log.clock())

    with reading(log.engine) as conn:
        shown = {quorum: checkpoint_shown(conn, quorum) for quorum in (0, 1, 2, 3)}
        steps = {quorum: checkpoint_after(conn, 0, quorum=quorum, most=100) for quorum in (0, 1, 2, 3)}
    sizes = {quorum: found.size if found else None for quorum, found in shown.items()}
    assert sizes == {0: 12, 1: 7, 2: 3, 3: None}
    assert steps == shown
    assert shown[2] is not None
    assert shown[2].note.endswith("— a AAAAAAAA\n— b AAAAAAAA\n")
