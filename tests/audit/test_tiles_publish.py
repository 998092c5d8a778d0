"""Publishing: at every moment the target is a whole log, and nothing goes there that no signature covers."""

from __future__ import annotations

import pytest
from logbook import KEY, ORIGIN, SIGNER, Logbook, entries
from sqlalchemy import update
from tile_reader import read_log

from audit.checkpoint import NoteSigner, SignedTree
from audit.store import add_cosignature
from audit.tables import audit_checkpoints, audit_log, audit_tiles
from audit.tiles import EntriesUnsigned, TargetForeign, tiles_between
from audit.tiles.publish import Publisher


class Gone(Exception):
    """Stands for a target that goes away, or a kill, in the middle."""


class Shelf:
    """A target in memory that counts writes, refuses to change a tile, and goes away on command."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.writes: list[str] = []
        self.gone_after: int | None = None

    def read(self, path: str) -> bytes | None:
        return self.held.get(path)

    def write(self, path: str, content: bytes) -> None:
        if self.gone_after is not None and len(self.writes) >= self.gone_after:
            raise Gone
        assert path == "checkpoint" or self.held.get(path, content) == content, f"{path} changed"
        self.held[path] = content
        self.writes.append(path)

    def entries(self) -> list[bytes]:
        """The log as a reader of the specification proves it."""
        return read_log(self.held.__getitem__, SIGNER.vkey)


@pytest.fixture
def target() -> Shelf:
    return Shelf()


def _publisher(log: Logbook, target: Shelf, **more: int) -> Publisher:
    return Publisher(log.engine, target, ORIGIN, log.state.last_checkpoint, **more)


def test_what_is_published_proves_itself_after_each_run(log: Logbook, target: Shelf) -> None:
    """Entries and tiles first, the checkpoint last; each run adds what is new and touches no full tile again."""
    publisher = _publisher(log, target)
    assert publisher.run_once() == 0
    assert target.held == {}
    for count in (1, 255, 1, 400):
        log.grow(count)
        target.writes.clear()
        while publisher.run_once():
            pass
        assert target.writes[-1] == "checkpoint"
    assert len(target.entries()) == 657
    assert target.writes.count("tile/0/000") == 0
    assert publisher.run_once() == 0


def test_a_publisher_cut_off_anywhere_leaves_a_whole_log(sqlite_log: Logbook, target: Shelf) -> None:
    """Killed after any number of writes: what is there verifies, and the next one goes on behind it."""
    sqlite_log.grow(300)
    _publisher(sqlite_log, target).run_once()
    sqlite_log.grow(250)
    for writes in range(6):
        target.writes.clear()
        target.gone_after = writes
        with pytest.raises(Gone):
            _publisher(sqlite_log, target).run_once()
        assert len(target.entries()) == 300
    target.gone_after = None

    added = _publisher(sqlite_log, target).run_once()

    assert added == 250
    assert len(target.entries()) == 550


def test_a_long_way_is_gone_in_steps(sqlite_log: Logbook, target: Shelf) -> None:
    """Each step ends with a checkpoint, so that a kill costs one step and not all of it."""
    for _ in range(6):
        sqlite_log.grow(50)
    publisher = _publisher(sqlite_log, target, step=120)

    assert [(publisher.run_once(), publisher.is_behind) for _ in range(4)] == [
        (100, True),
        (100, True),
        (100, False),
        (0, False),
    ]
    assert len(target.entries()) == 300


def test_a_run_can_be_left_off(sqlite_log: Logbook, target: Shelf) -> None:
    """A process that ends does not wait for a slow target."""
    sqlite_log.grow(600)
    publisher = _publisher(sqlite_log, target)

    publisher.run_once(is_over=lambda: len(target.writes) == 3)

    assert len(target.writes) == 3
    assert "checkpoint" not in target.held
    assert publisher.run_once() == 600


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (b"\xff", "`checkpoint` that is none"),
        (b"", "`checkpoint` that is none"),
        (b"# our web site\n", "`checkpoint` that is none"),
        (NoteSigner("example.com/other", KEY).sign(3, bytes(32)).encode(), "another log"),
        (SIGNER.sign(3, bytes(32)).encode(), "no beginning of this log"),
        (SIGNER.sign(5000, bytes(32)).encode(), "has 5000 entries"),
    ],
    ids=["bytes", "empty", "text", "origin", "fork", "longer"],
)
def test_a_target_that_holds_something_else_is_left_alone(
    sqlite_log: Logbook, target: Shelf, note: bytes, why: str
) -> None:
    """Nothing is written over what another log, or another history of this one, has published."""
    sqlite_log.grow(20)
    target.held["checkpoint"] = note

    with pytest.raises(TargetForeign, match=why):
        _publisher(sqlite_log, target).run_once()

    assert target.writes == []


def test_a_harmed_tile_at_the_edge_is_found_and_a_lost_one_written_again(
    sqlite_log: Logbook, target: Shelf
) -> None:
    """The checkpoint alone does not say that the tiles under it are there."""
    sqlite_log.grow(300)
    _publisher(sqlite_log, target).run_once()
    held = dict(target.held)

    target.held["tile/entries/001.p/44"] = bytes(7)
    with pytest.raises(TargetForeign, match=r"tile/entries/001\.p/44"):
        _publisher(sqlite_log, target).run_once()
    target.held.update({**held, "tile/1/000.p/1": bytes(32)})
    with pytest.raises(TargetForeign, match=r"tile/1/000\.p/1"):
        _publisher(sqlite_log, target).run_once()
    target.held.clear()
    target.held["checkpoint"] = held["checkpoint"]

    assert _publisher(sqlite_log, target).run_once() == 300
    assert target.held == held


def test_what_readers_were_shown_never_shrinks_while_lost_tiles_are_written_again(
    sqlite_log: Logbook, target: Shelf
) -> None:
    """An older checkpoint after a newer one looks like a log that was rolled back: the steps on the way show none."""
    for _ in range(6):
        sqlite_log.grow(50)
    publisher = _publisher(sqlite_log, target)
    while publisher.run_once():
        pass
    held = dict(target.held)
    target.held.clear()
    target.held["checkpoint"] = held["checkpoint"]
    sqlite_log.grow(50)
    shown = []

    again = _publisher(sqlite_log, target, step=120)
    while again.run_once():
        shown.append(int(target.held["checkpoint"].split(b"\n")[1]))

    assert shown == [300, 300, 300, 350]
    assert len(target.entries()) == 350


@pytest.mark.parametrize(
    "where", ["entry", "leaf", "entry with its leaf", "tile above", "root", "root and note"]
)
def test_nothing_unsigned_is_published(sqlite_log: Logbook, target: Shelf, where: str) -> None:
    """Whoever changed the database does not get the change into a place that is for ever."""
    sqlite_log.grow(300)
    _publisher(sqlite_log, target).run_once()
    sqlite_log.grow(500)
    sqlite_log.tamper()
    table = audit_log.c
    with sqlite_log.engine.begin() as conn:
        row, other = update(audit_log).where(table.seq == 400), entries(1)[0]
        if where == "entry":
            conn.execute(row.values(canonical=other.canonical.decode()))
        elif where == "leaf":
            conn.execute(row.values(leaf_hash=bytes(32)))
        elif where == "entry with its leaf":
            conn.execute(row.values(canonical=other.canonical.decode(), leaf_hash=other.leaf()))
        elif where == "tile above":
            above = audit_tiles.c.level == 1
            hashes = conn.execute(audit_tiles.select().where(above)).one().hashes
            forged = hashes[:32] + bytes(32) + hashes[64:]
            conn.execute(update(audit_tiles).where(above).values(hashes=forged))
        else:
            conn.execute(
                update(audit_checkpoints).where(audit_checkpoints.c.size == 800).values(root=bytes(32))
            )
    before = dict(target.held)

    with pytest.raises(EntriesUnsigned):
        _publisher(sqlite_log, target).run_once()

    assert len(target.entries()) == 300
    unsigned = {path for path in target.held if path not in before}
    assert "tile/0/001" not in unsigned


def test_a_quorum_is_waited_for_and_later_cosignatures_follow(sqlite_log: Logbook, target: Shelf) -> None:
    """Readers who want witnesses never meet a checkpoint without them."""
    publisher = _publisher(sqlite_log, target, quorum=1)
    sqlite_log.grow(10)
    assert publisher.run_once() == 0
    for witness in ("a", "b"):
        with sqlite_log.engine.begin() as conn:
            add_cosignature(conn, 10, witness, f"— {witness} AAAAAAAA\n", sqlite_log.clock())
        sqlite_log.grow(1)
        publisher.run_once()
        assert target.held["checkpoint"].decode().endswith(f"— {witness} AAAAAAAA\n")
        assert len(target.entries()) == 10
        target.writes.clear()
        publisher.run_once()
        assert target.writes == []


def test_every_tile_of_a_large_step_is_written_once(sqlite_log: Logbook, target: Shelf) -> None:
    """From the top down, each as the specification names it."""
    sqlite_log.grow(1100)
    assert _publisher(sqlite_log, target).run_once() == 1100

    assert sorted(target.writes) == sorted(["checkpoint", *(tile.path for tile in tiles_between(0, 1100))])
    assert [path for path in target.writes if path.startswith("tile/1")] == target.writes[:1]


@pytest.mark.parametrize(
    "remembered", [None, *(SignedTree(ORIGIN, size, bytes(32)) for size in (590, 600, 610))]
)
def test_a_log_that_was_rewritten_as_a_whole_is_not_published(
    sqlite_log: Logbook, target: Shelf, remembered: SignedTree | None
) -> None:
    """Every row changed, the tree too, and signed with the stolen key: the signer's memory knows another root."""
    sqlite_log.grow(600)
    sqlite_log.state.remembered = remembered

    with pytest.raises(EntriesUnsigned):
        _publisher(sqlite_log, target).run_once()

    assert target.writes == []
