"""The tree in the database gives the proofs of the tree in memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

import pytest
from logbook import Logbook
from services.clock import FixedClock
from sqlalchemy import insert, select
from sqlalchemy.dialects import sqlite

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
            write_tiles(conn, grow(TreeSource(conn, start), start, LEAVES[start:end]))
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


def test_a_naive_time_never_reaches_the_log() -> None:
    """STYLE: times are aware UTC."""
    with pytest.raises(TypeError):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), sqlite.dialect())  # noqa: DTZ001
