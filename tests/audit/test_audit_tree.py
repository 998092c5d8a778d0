"""The tree in the database gives the proofs of the tree in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from hashlib import sha256
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logbook import Logbook
from services.clock import FixedClock
from sqlalchemy import Connection, delete, event, insert, select, update
from sqlalchemy.dialects import sqlite

from audit import merkle
from audit.datamap import UtcDateTime
from audit.errors import BadProof, TilesDamaged
from audit.merkle import (
    CompactRange,
    leaf_hash,
    prove_consistency,
    prove_inclusion,
    root_hash,
    verify_consistency,
    verify_inclusion,
)
from audit.reading import reading
from audit.tables import audit_checkpoints, audit_log, audit_tiles
from audit.tree import TreeSource, consistency, grow, inclusion, rebuild, root
from audit.tree_rows import write_rows

SIZE = 70_000  # two levels of tiles: 256 * 256 leaves and some more
LEAVES = [leaf_hash(number.to_bytes(4)) for number in range(SIZE)]


class Nodes:
    """Every inner node, computed once in memory."""

    def __init__(self, leaves: list[bytes]) -> None:
        self._nodes = {(0, index): leaf for index, leaf in enumerate(leaves)}
        tree = CompactRange()
        for leaf in leaves:
            tree.append(leaf, lambda level, index, node: self._nodes.__setitem__((level, index), node))

    def node(self, level: int, index: int) -> bytes:
        return self._nodes[level, index]


@pytest.fixture(scope="module")
def memory() -> Nodes:
    return Nodes(LEAVES)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logbook]:
    """A log of leaf hashes alone: the tree looks at nothing else."""
    book = Logbook(f"sqlite:///{tmp_path_factory.mktemp('tree') / 'log.db'}", FixedClock())
    rows = [
        {
            "seq": seq,
            "id": str(seq),
            "canonical": "",
            "leaf_hash": leaf,
            "event_type": "",
            "time": book.clock(),
        }
        for seq, leaf in enumerate(LEAVES)
    ]
    with book.engine.begin() as conn:
        conn.execute(insert(audit_log), rows)
        for start, end in ((0, 1), (1, 300), (300, 65_536), (65_536, 65_537), (65_537, SIZE)):
            growth = grow(TreeSource(conn, start), start, LEAVES[start:end])
            write_rows(conn, growth.tiles)
        checkpoint = {"size": SIZE, "root": growth.root, "peaks": b"".join(growth.peaks), "note": ""}
        conn.execute(insert(audit_checkpoints).values(checkpoint | {"created_at": book.clock()}))
    yield book
    book.engine.dispose()


def test_roots_and_proofs_are_those_of_the_whole_tree(big: Logbook, memory: Nodes) -> None:
    """RFC 6962, from tiles: at any size, for any entry."""
    sizes = [1, 2, 255, 256, 257, 511, 512, 65_535, 65_536, 65_537, 65_800, SIZE]
    with reading(big.engine) as conn:
        for size in sizes:
            assert root(conn, size) == root_hash(memory, size)
            for seq in {0, size // 3, size - 1}:
                path = inclusion(conn, seq, size)
                assert path == prove_inclusion(memory, seq, size)
                verify_inclusion(LEAVES[seq], seq, size, path, root(conn, size))
        for old, new in pairwise(sizes):
            proof = consistency(conn, old, new)
            assert proof == prove_consistency(memory, old, new)
            verify_consistency(old, new, root(conn, old), root(conn, new), proof)
        assert root(conn, 0) == root_hash(memory, 0)


def test_tiles_derived_again_are_the_same(big: Logbook) -> None:
    """Tiles hold nothing that the leaves do not say."""
    query = select(audit_tiles).order_by(audit_tiles.c.level, audit_tiles.c.tile)
    with big.engine.begin() as conn:
        before = conn.execute(query).all()
        rebuild(conn, SIZE)
        after = conn.execute(query).all()

    assert after == before
    assert [(row.level, row.tile, len(row.hashes) // 32) for row in after] == [
        *((0, tile, 256 + 16) for tile in range(SIZE // 256)),
        (1, 0, 256),
        (1, 1, (SIZE - 65_536) // 256),
        (2, 0, 1),
    ]


@contextmanager
def _asked(big: Logbook) -> Iterator[list[str]]:
    """What the database is asked meanwhile."""
    statements: list[str] = []

    def note(_conn: object, _cursor: object, told: str, *_: object) -> None:
        if told.startswith("SELECT"):
            statements.append(told)

    event.listen(big.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(big.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("old", [0, 12_345])
def test_a_proof_asks_once(big: Logbook, old: int) -> None:
    """The way of a leaf, and the tree's edge."""
    with _asked(big) as statements, reading(big.engine) as conn:
        proof = consistency(conn, old, SIZE) if old else inclusion(conn, 12_345, SIZE)

    assert proof
    assert len(statements) == 1


@pytest.mark.parametrize("seq", [12_345, SIZE - 2])
def test_the_last_leaves_are_read_once_more_where_no_checkpoint_has_peaks(
    big: Logbook, memory: Nodes, seq: int
) -> None:
    """Checkpoints of an older version have none, and not every size has a checkpoint."""
    with _asked(big) as statements, reading(big.engine) as conn:
        proof = inclusion(conn, seq, SIZE - 1)

    assert proof == prove_inclusion(memory, seq, SIZE - 1)
    assert len(statements) == 2


@pytest.mark.parametrize(
    "forgery",
    [
        "UPDATE audit_checkpoints SET peaks = NULL",
        "UPDATE audit_checkpoints SET peaks = x''",
        "UPDATE audit_checkpoints SET peaks = zeroblob(length(peaks))",
        "UPDATE audit_checkpoints SET peaks = zeroblob(length(peaks) + 32)",
        "UPDATE audit_checkpoints SET peaks = 'a text'",
    ],
)
def test_peaks_that_do_not_give_the_root_are_left_alone(sqlite_log: Logbook, forgery: str) -> None:
    """Nobody is fooled, and no proof is lost: the leaves say the same as before."""
    sqlite_log.grow(700)
    with reading(sqlite_log.engine) as conn:
        good = [inclusion(conn, seq, 700) for seq in (0, 511, 512, 699)]

    sqlite_log.tamper(forgery)

    with reading(sqlite_log.engine) as conn:
        assert [inclusion(conn, seq, 700) for seq in (0, 511, 512, 699)] == good


@given(places=st.tuples(st.integers(1, SIZE), st.integers(0, SIZE - 1)))
def test_any_path_is_that_of_the_whole_tree(big: Logbook, memory: Nodes, places: tuple[int, int]) -> None:
    """Groups of leaves, peaks, tiles and leaves: whichever a path is made of."""
    size, seq = places[0], places[1] % places[0]
    with reading(big.engine) as conn:
        assert inclusion(conn, seq, size) == prove_inclusion(memory, seq, size)
        assert inclusion(conn, places[1], SIZE) == prove_inclusion(memory, places[1], SIZE)


@pytest.mark.parametrize("left", [None, 0, 32, 8160, 8192, 8672])
def test_a_tile_of_leaves_that_lacks_or_was_cut_is_no_damage(
    big: Logbook, memory: Nodes, left: int | None
) -> None:
    """Decision 0163: a log of an older version has none; the proof is made from the leaves."""
    tile = (audit_tiles.c.level == 0) & (audit_tiles.c.tile == 12_345 // 256)
    with big.engine.connect() as conn:
        hashes = conn.scalar(select(audit_tiles.c.hashes).where(tile))
        assert hashes is not None
        conn.execute(
            delete(audit_tiles).where(tile)
            if left is None
            else update(audit_tiles).where(tile).values(hashes=hashes[:left])
        )

        assert inclusion(conn, 12_345, SIZE) == prove_inclusion(memory, 12_345, SIZE)
        assert consistency(conn, 12_345, SIZE) == prove_consistency(memory, 12_345, SIZE)
        conn.rollback()


def test_a_tile_of_leaves_that_contradicts_itself_is_left_alone(big: Logbook, memory: Nodes) -> None:
    """A leaf that does not lead to its group's root: the proof is made from the log's own leaves."""
    with big.engine.connect() as conn:
        _forge(conn, 12_344, 12_344 % 256)

        assert inclusion(conn, 12_345, SIZE) == prove_inclusion(memory, 12_345, SIZE)
        conn.rollback()


def test_a_forged_tile_of_leaves_makes_no_proof_that_holds(big: Logbook) -> None:
    """Whoever reads the proof finds it; the root is that of the leaves."""
    seq, other = 12_345, (12_345 % 256) // 16 ^ 1
    with big.engine.connect() as conn:
        good = root(conn, SIZE)
        _forge(conn, seq, 256 + other)

        proof = inclusion(conn, seq, SIZE)

        assert root(conn, SIZE) == good
        assert proof[4] == bytes(32)
        with pytest.raises(BadProof):
            verify_inclusion(LEAVES[seq], seq, SIZE, proof, good)
        conn.rollback()


def _forge(conn: Connection, seq: int, place: int) -> None:
    """Zeros in place of a hash of an entry's tile of leaves."""
    tile = (audit_tiles.c.level == 0) & (audit_tiles.c.tile == seq // 256)
    hashes = conn.scalar(select(audit_tiles.c.hashes).where(tile))
    assert hashes is not None
    forged = hashes[: place * 32] + bytes(32) + hashes[place * 32 + 32 :]
    conn.execute(update(audit_tiles).where(tile).values(hashes=forged))


def test_forged_tiles_of_leaves_raise_no_alarm(big: Logbook, memory: Nodes) -> None:
    """Decision 0163: witnesses sign, and the publisher goes on, by proofs of consistency: these come from leaves."""
    with big.engine.connect() as conn:
        conn.execute(update(audit_tiles).where(audit_tiles.c.level == 0).values(hashes=bytes(8192)))

        for old in (3, 12_345, 65_537, SIZE - 256):
            assert consistency(conn, old, SIZE) == prove_consistency(memory, old, SIZE)
        conn.rollback()


def test_lost_leaves_are_damage_where_no_tile_has_them(sqlite_log: Logbook) -> None:
    """Neither the log nor a tile of it can say what the proof needs."""
    sqlite_log.grow(600)
    sqlite_log.tamper(
        "DELETE FROM audit_log WHERE seq IN (7, 590)", "DELETE FROM audit_tiles WHERE level = 0"
    )
    with reading(sqlite_log.engine) as conn:
        for seq, size, tile in ((3, 512, 0), (300, 599, 2)):
            with pytest.raises(TilesDamaged) as damage:
                inclusion(conn, seq, size)
            assert (damage.value.level, damage.value.tile) == (0, tile)


def test_a_tile_is_answered_as_it_stands_in_the_database(big: Logbook) -> None:
    """What a process keeps of tiles is found by their content: a rewritten one is never answered from memory."""
    tile = (audit_tiles.c.level == 1) & (audit_tiles.c.tile == 0)
    with big.engine.connect() as conn:
        good = root(conn, SIZE - 1)
        assert root(conn, SIZE - 1) == good
        hashes = conn.scalar(select(audit_tiles.c.hashes).where(tile))
        assert hashes is not None
        conn.execute(update(audit_tiles).where(tile).values(hashes=bytes(32) + hashes[32:]))

        proof = inclusion(conn, 300, SIZE)

        assert proof[8] == bytes(32)
        conn.rollback()


@pytest.mark.parametrize("size", [0, 1, 255, 256, 600, 65_536, 68_999])
def test_growing_hashes_no_leaf_of_before(
    big: Logbook, memory: Nodes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Incremental: one hash for each new leaf, and at most those of one unfinished tile for each level of tiles."""
    hashed: list[bytes] = []
    monkeypatch.setattr(merkle, "sha256", lambda data: hashed.append(data) or sha256(data))

    with reading(big.engine) as conn:
        growth = grow(TreeSource(conn, size), size, LEAVES[size : size + 1000])

    assert len(hashed) <= 1000 + 3 * 256
    assert growth.root == root_hash(memory, size + 1000)


def test_a_naive_time_never_reaches_the_log() -> None:
    """STYLE: times are aware UTC."""
    with pytest.raises(TypeError):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())  # noqa: DTZ001
