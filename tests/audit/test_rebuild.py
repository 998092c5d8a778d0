"""The tree made again: what is derived is mended, what is not is named; a rewritten log is not made to look good."""

from __future__ import annotations

import tracemalloc

import pytest
from logbook import Logbook
from sqlalchemy import Connection, delete, insert, select, update

from audit.checkpoint import SignedTree
from audit.errors import LogForked, TilesDamaged
from audit.merkle import CompactRange, leaf_hash
from audit.reading import reading
from audit.tables import audit_log, audit_tiles
from audit.tiles.rebuild import rebuild_tiles
from audit.tree import inclusion, root
from audit.tree_rows import TileKey

Tiles = dict[TileKey, bytes]


def _tiles(log: Logbook) -> Tiles:
    with reading(log.engine) as conn:
        return {(row.level, row.tile): bytes(row.hashes) for row in conn.execute(select(audit_tiles))}


def _rows(conn: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for row in conn.execute(select(audit_log).order_by(audit_log.c.seq))]


def test_a_good_tree_is_left_as_it_is(log: Logbook) -> None:
    """Whatever the page that entries are read in."""
    log.grow(600)
    before = _tiles(log)

    for page in (7, 256, 1000):
        found = rebuild_tiles(log.engine, log.state.remembered, page=page)
        assert (found.entries, found.tiles, found.is_signed, found.is_good) == (600, 3, True, True)
        assert (found.is_mended, found.packed) == (False, 0)
    assert _tiles(log) == before


def test_an_empty_log_has_no_tree(sqlite_log: Logbook) -> None:
    """Nothing to compare is nothing amiss."""
    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert (found.entries, found.tiles, found.is_signed, found.is_good) == (0, 0, None, True)


TOO_MANY = {
    "a tile too many": (1, 1),
    "a level too many": (2, 0),
    "a tile of leaves too many": (0, 4),
    "an unfinished tile of leaves": (0, 3),
    "a level below the leaves": (-1, 0),
    "a tile before the first": (1, -1),
}


@pytest.mark.parametrize(
    "harm",
    ["gone", *(f"{how} {level}" for how in ("cut", "forged", "longer") for level in (0, 1)), *TOO_MANY],
)
def test_what_is_derived_is_mended(log: Logbook, harm: str) -> None:
    """Rows of the tree: lost, cut, forged, or more of them than the log has; the log itself is untouched."""
    log.grow(800)
    before = _tiles(log)
    how, level = (harm.split()[0], int(harm[-1])) if harm[-1].isdigit() else (harm, 0)
    hashes = before[level, 0]
    harmed = {"cut": hashes[:32], "forged": bytes(32) + hashes[32:], "longer": hashes + bytes(32)}
    with log.engine.begin() as conn:
        entries = _rows(conn)
        if harm == "gone":
            conn.execute(delete(audit_tiles))
        elif how in harmed:
            which = (audit_tiles.c.level == level) & (audit_tiles.c.tile == 0)
            conn.execute(update(audit_tiles).where(which).values(hashes=harmed[how]))
        else:
            place = dict(zip(("level", "tile"), TOO_MANY[harm], strict=True))
            conn.execute(insert(audit_tiles).values(**place, hashes=bytes(64)))

    found = rebuild_tiles(log.engine, log.state.remembered)

    assert (len(found.bad_tiles), found.is_mended, found.is_good) == (1, True, False)
    assert {key: hashes for key, hashes in _tiles(log).items() if hashes} == before
    assert rebuild_tiles(log.engine, log.state.remembered).is_good
    with reading(log.engine) as conn:
        assert _rows(conn) == entries
        assert len(inclusion(conn, 3, 800)) == 10


def test_lacking_tiles_of_leaves_are_written_and_nothing_was_amiss(log: Logbook) -> None:
    """A log of a version that did not write them: proofs are made from the leaves meanwhile."""
    log.grow(800)
    before = _tiles(log)
    with reading(log.engine) as conn:
        proof = inclusion(conn, 3, 800)
    with log.engine.begin() as conn:
        conn.execute(delete(audit_tiles).where(audit_tiles.c.level == 0))
    with reading(log.engine) as conn:
        assert inclusion(conn, 3, 800) == proof

    found = rebuild_tiles(log.engine, log.state.remembered)

    assert (found.packed, found.bad_tiles, found.is_mended, found.is_good) == (3, [], False, True)
    assert _tiles(log) == before
    assert rebuild_tiles(log.engine, log.state.remembered).packed == 0


def test_tiles_of_leaves_without_the_roots_of_their_groups_are_completed(log: Logbook) -> None:
    """They say nothing wrong: proofs are made from the leaves meanwhile."""
    log.grow(800)
    before = _tiles(log)
    with log.engine.begin() as conn:
        for tile in range(3):
            which = (audit_tiles.c.level == 0) & (audit_tiles.c.tile == tile)
            conn.execute(update(audit_tiles).where(which).values(hashes=before[0, tile][: 256 * 32]))

    found = rebuild_tiles(log.engine, log.state.remembered)

    assert (found.packed, found.bad_tiles, found.is_good) == (3, [], True)
    assert _tiles(log) == before


def test_entries_that_change_meanwhile_get_into_no_tile(sqlite_log: Logbook) -> None:
    """A tile of leaves is written from entries that are read once more: they must be those that were compared."""
    sqlite_log.grow(600)
    sqlite_log.tamper("DELETE FROM audit_tiles WHERE level = 0")
    change = update(audit_log).where(audit_log.c.seq == 10).values(canonical="{}")

    def tamper(entries: int) -> None:
        assert entries == 600
        with sqlite_log.engine.begin() as conn:
            conn.execute(change)

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered, progress=tamper)

    assert set(_tiles(sqlite_log)) == {(0, 1), (1, 0)}
    assert found.packed == 1


def test_a_tile_that_was_not_written_is_not_called_mended(sqlite_log: Logbook) -> None:
    """It differs, and its entries have changed since they were compared: the next run tells of them."""
    sqlite_log.grow(600)
    sqlite_log.tamper("UPDATE audit_tiles SET hashes = x'00' WHERE level = 0 AND tile = 0")

    def tamper(_entries: int) -> None:
        with sqlite_log.engine.begin() as conn:
            conn.execute(update(audit_log).where(audit_log.c.seq == 10).values(canonical="{}"))

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered, progress=tamper)

    assert (found.bad_tiles, found.is_mended) == ([(0, 0)], False)


@pytest.mark.parametrize("value", ["7", "'text'", "CAST(x'ff' AS TEXT)"])
def test_what_is_no_blob_is_damage_by_name_and_is_mended(sqlite_log: Logbook, value: str) -> None:
    """SQLite keeps any kind of value in any column: it stops nobody with an error that has no name."""
    sqlite_log.grow(600)
    before = _tiles(sqlite_log)
    sqlite_log.tamper(f"UPDATE audit_tiles SET hashes = {value}")  # noqa: S608 - of this test
    with reading(sqlite_log.engine) as conn, pytest.raises(TilesDamaged):
        root(conn, 600)

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert (found.bad_tiles, found.is_mended) == ([(0, 0), (0, 1), (1, 0)], True)
    assert _tiles(sqlite_log) == before
    sqlite_log.grow(1)


@pytest.mark.parametrize("value", ["7", "'text'", "CAST(x'ff' AS TEXT)"])
def test_a_leaf_hash_that_is_no_blob_is_a_finding(sqlite_log: Logbook, value: str) -> None:
    """Promise 2: who rewrote a leaf is told so, whatever he wrote."""
    sqlite_log.grow(300)
    sqlite_log.tamper(f"UPDATE audit_log SET leaf_hash = {value} WHERE seq = 290")  # noqa: S608 - of this test
    sqlite_log.stage(1)

    with pytest.raises(LogForked):
        sqlite_log.sequencer().run_once()

    assert rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered).first_bad_leaves == [290]


def test_a_wrong_leaf_hash_is_a_finding_and_its_tile_is_not_spoilt(log: Logbook) -> None:
    """The entries give the signed root, so that tiles are theirs; who changed the hash is for people to find out."""
    log.grow(600)
    before = _tiles(log)
    log.forge_leaf(300)

    found = rebuild_tiles(log.engine, log.state.remembered)

    assert (found.bad_leaves, found.first_bad_leaves, found.bad_tiles) == (1, [300], [])
    assert (found.is_signed, found.is_mended, found.is_good) == (True, False, False)
    assert _tiles(log) == before


def test_a_changed_text_does_not_get_into_the_tree(log: Logbook) -> None:
    """The stored hashes give the signed root, the texts do not: a tile that was lost comes back from the hashes."""
    log.grow(600)
    before = _tiles(log)
    log.tamper("UPDATE audit_log SET canonical = '{}' WHERE seq = 10", "DELETE FROM audit_tiles")

    found = rebuild_tiles(log.engine, log.state.remembered)

    assert (found.first_bad_leaves, found.bad_tiles, found.packed) == ([10], [(1, 0)], 2)
    assert (found.is_signed, found.is_mended, found.is_good) == (False, True, False)
    assert _tiles(log) == before


def test_a_rewritten_log_is_not_made_to_look_good(sqlite_log: Logbook) -> None:
    """Text and hash were changed together: neither gives the signed root, so nothing is written."""
    sqlite_log.grow(600)
    before = _tiles(sqlite_log)
    sqlite_log.tamper()
    forged = leaf_hash(b"{}")
    with sqlite_log.engine.begin() as conn:
        change = update(audit_log).where(audit_log.c.seq == 10)
        conn.execute(change.values(canonical="{}", leaf_hash=forged))
        conn.execute(delete(audit_tiles).where(audit_tiles.c.level == 0, audit_tiles.c.tile == 1))
    del before[0, 1]

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert (found.bad_leaves, found.bad_tiles, found.packed) == (0, [(0, 0), (1, 0)], 0)
    assert (found.is_signed, found.is_mended, found.is_good) == (False, False, False)
    assert _tiles(sqlite_log) == before


def test_where_the_signer_s_memory_is_missing_the_checkpoints_count(sqlite_log: Logbook) -> None:
    """A state that was lost, or looked for in the wrong folder, does not make a changed text the truth."""
    sqlite_log.grow(600)
    before = _tiles(sqlite_log)
    sqlite_log.tamper()
    with sqlite_log.engine.begin() as conn:
        conn.execute(update(audit_log).where(audit_log.c.seq == 10).values(canonical="{}"))

    found = rebuild_tiles(sqlite_log.engine, None)

    assert (found.is_signed, found.is_good) == (False, False)
    assert _tiles(sqlite_log) == before


def test_a_hole_ends_the_comparison(sqlite_log: Logbook) -> None:
    """Behind a missing entry no tree can be made."""
    sqlite_log.grow(600)
    sqlite_log.tamper("DELETE FROM audit_log WHERE seq = 300", "UPDATE audit_tiles SET hashes = x'00'")

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert (found.missing, found.entries, found.is_mended, found.is_good) == (300, 300, False, False)
    assert found.is_signed is False


def test_a_log_that_was_cut_is_told(sqlite_log: Logbook) -> None:
    """It holds fewer entries than were signed."""
    sqlite_log.grow(600)
    sqlite_log.tamper("DELETE FROM audit_log WHERE seq >= 590")

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert (found.entries, found.is_signed, found.is_good) == (590, False, False)


def test_many_bad_leaves_are_counted_and_some_named(sqlite_log: Logbook) -> None:
    """A log of millions is not listed in full."""
    sqlite_log.grow(300)
    sqlite_log.tamper()
    with sqlite_log.engine.begin() as conn:
        conn.execute(update(audit_log).values(leaf_hash=bytes(32)))

    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)

    assert found.bad_leaves == 300
    assert found.first_bad_leaves == list(range(100))


@pytest.fixture(scope="module")
def long_texts() -> list[str]:
    """70,000 short texts, which are no entries: the tree looks at their hashes alone."""
    return [f"{number:064}" for number in range(70_000)]


def test_the_second_level_is_made_and_memory_does_not_grow(
    sqlite_log: Logbook, long_texts: list[str]
) -> None:
    """70,000 entries: as many tiles as the specification says, in less memory than their hashes have."""
    tree, at = CompactRange(), sqlite_log.clock()
    leaves = [leaf_hash(text.encode()) for text in long_texts]
    for leaf in leaves:
        tree.append(leaf)
    rows = [
        {"seq": seq, "id": str(seq), "canonical": text, "leaf_hash": leaf, "event_type": "", "time": at}
        for seq, (text, leaf) in enumerate(zip(long_texts, leaves, strict=True))
    ]
    sqlite_log.state.remembered = SignedTree("", 70_000, tree.root())
    with sqlite_log.engine.begin() as conn:
        conn.execute(insert(audit_log), rows)
    del rows, leaves

    tracemalloc.start()
    found = rebuild_tiles(sqlite_log.engine, sqlite_log.state.remembered)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    widths = {key: len(hashes) // 32 for key, hashes in _tiles(sqlite_log).items()}
    assert widths == {(1, 0): 256, (1, 1): 17, (2, 0): 1} | {(0, tile): 272 for tile in range(273)}
    assert (found.tiles, found.packed, found.is_signed, found.is_mended) == (276, 273, True, True)
    assert peak_bytes < 70_000 * 32
    with reading(sqlite_log.engine) as conn:
        assert root(conn, 70_000) == tree.root()
