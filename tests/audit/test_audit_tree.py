"""The tree in the database gives the proofs of the tree in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from hashlib import sha256
from itertools import pairwise

import pytest
from logbook import Logbook
from services.clock import FixedClock
from sqlalchemy import event, insert, select, update
from sqlalchemy.dialects import sqlite

from audit import merkle
from audit.datamap import UtcDateTime
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
from audit.tables import audit_log, audit_tiles
from audit.tree import TreeSource, consistency, grow, inclusion, rebuild, root, write_tiles

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
            write_tiles(conn, grow(TreeSource(conn, start), start, LEAVES[start:end]).tiles)
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
        (1, 0, 256),
        (1, 1, (SIZE - 65_536) // 256),
        (2, 0, 1),
    ]


def test_a_proof_reads_at_most_two_tiles_of_leaves_and_asks_three_times(big: Logbook) -> None:
    """The way of a leaf and the tree's edge: 512 leaf hashes, and all tiles above them in one query."""
    statements: list[str] = []
    event.listen(
        big.engine, "before_cursor_execute", lambda _conn, _cursor, told, *_: statements.append(told)
    )

    with reading(big.engine) as conn:
        inclusion(conn, 12_345, SIZE)

    assert sum("leaf_hash" in told for told in statements) == 2
    assert sum("hashes" in told for told in statements) == 1


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
