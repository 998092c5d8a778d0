"""The sequencer: order, crashes, and its refusal to sign a rewritten log."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from logbook import ORIGIN, SIGNER, Killed, Logbook, NotebookState, published, tree_of
from sqlalchemy import event, text, update

from audit.checkpoint import NoteVerifier, SignedTree
from audit.errors import LogForked, LogShrunk, OriginChanged, TilesDamaged
from audit.reading import reading
from audit.sequencer import Sequencer
from audit.store import each_entry, pending_count, stage, tree_size
from audit.tables import audit_tiles
from audit.tree import rebuild

HERE = Path(__file__).resolve().parent
VERIFIER = NoteVerifier.parse(SIGNER.vkey)


def test_staged_entries_become_the_log(log: Logbook) -> None:
    """Promise 2: chain, tree, state and checkpoint speak of the same entries."""
    drafts = log.stage(5)

    assert log.sequencer().run_once() == 5

    with reading(log.engine) as conn:
        ids = [json.loads(entry.canonical)["id"] for entry in each_entry(conn)]
        assert pending_count(conn) == 0
    assert ids == [draft.id for draft in drafts]
    assert tree_of(log) == published(log) == log.state.remembered


def test_an_empty_log_signs_nothing(log: Logbook) -> None:
    """There is no checkpoint before the first entry."""
    assert log.sequencer().run_once() == 0
    assert published(log) is None
    assert log.state.remembered is None


def test_a_run_takes_one_batch(log: Logbook) -> None:
    """RULES 3: a transaction stays short, also while many entries wait: four batches at the most."""
    log.stage(31)
    sequencer = log.sequencer(batch=3)

    assert [sequencer.run_once() for _ in range(5)] == [3, 12, 12, 4, 0]
    log.stage(4)
    assert [sequencer.run_once() for _ in range(2)] == [3, 1]
    assert tree_of(log) == published(log)


def test_what_commits_late_is_not_passed_over(log: Logbook) -> None:
    """RULES 22: pending rows commit out of order; the sequencer never reads by `id > cursor`."""
    late, early = log.make(), log.make()
    sequencer = log.sequencer()
    with log.engine.begin() as conn:
        stage(conn, early)
    sequencer.run_once()
    with log.engine.begin() as conn:
        stage(conn, late)

    assert sequencer.run_once() == 1

    with reading(log.engine) as conn:
        ids = [json.loads(entry.canonical)["id"] for entry in each_entry(conn)]
    assert ids == [early.id, late.id]


def test_what_is_pending_is_ordered_by_its_time(log: Logbook) -> None:
    """RULES 22: a batch is ordered by (time, id), whatever its order of arrival or its content."""
    first, second, third = (replace(log.make(), action=action) for action in ("z", "m", "a"))
    with log.engine.begin() as conn:
        stage(conn, third, first, second)

    log.sequence()

    with reading(log.engine) as conn:
        assert [json.loads(entry.canonical)["action"] for entry in each_entry(conn)] == ["z", "m", "a"]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_a_log_of_any_size_grows_from_its_tiles(log: Logbook, size: int) -> None:
    """Appending reads a handful of rows, and gives the tree of all entries."""
    log.grow(size)
    log.grow(3)

    assert tree_of(log) == published(log)


def test_a_crash_after_the_leaves_is_finished_by_the_next_run(log: Logbook) -> None:
    """RULES 23: leaves are committed, the checkpoint is not signed."""
    log.grow(2)
    log.stage(3)
    with pytest.raises(Killed):
        log.sequencer(crash_at="sequencer.batch").run_once()
    signed = published(log)
    assert signed is not None
    assert signed.size == 2

    assert log.sequencer().run_once() == 0

    assert tree_of(log) == published(log) == log.state.remembered


def test_a_crash_after_the_state_advanced_is_finished_by_the_next_run(log: Logbook) -> None:
    """RULES 23: the signer remembers the tree, nobody has its checkpoint."""
    log.grow(2)
    log.stage(3)
    with pytest.raises(Killed):
        log.sequencer(crash_at="sequencer.batch").run_once()
    log.state.advance_checkpoint(log.state.remembered, tree_of(log))

    log.sequencer().run_once()

    assert tree_of(log) == published(log) == log.state.remembered


def test_a_lost_state_starts_again_from_the_published_checkpoint(log: Logbook) -> None:
    """RULES 1: the union of what the stores know counts."""
    log.grow(3)
    log.state = NotebookState()

    log.grow(2)

    assert tree_of(log) == published(log) == log.state.remembered


def test_a_cut_log_is_not_signed(log: Logbook) -> None:
    """Promise 2: a log restored from an old backup is found."""
    log.grow(5)
    log.tamper("DELETE FROM audit_log WHERE seq >= 3", "DELETE FROM audit_checkpoints")
    log.stage(1)

    with pytest.raises(LogShrunk) as refusal:
        log.sequencer().run_once()

    assert (refusal.value.size, refusal.value.signed_size) == (3, 5)
    with reading(log.engine) as conn:
        assert (pending_count(conn), tree_size(conn)) == (1, 3)


def test_a_cut_log_is_not_signed_though_the_state_was_cut_too(log: Logbook) -> None:
    """RULES 1: the published checkpoint is known as well."""
    log.grow(5)
    log.tamper("DELETE FROM audit_log WHERE seq >= 3")
    log.state = NotebookState()

    with pytest.raises(LogShrunk):
        log.sequencer().run_once()


@pytest.mark.parametrize("seq", [0, 4])
def test_a_rewritten_log_is_not_signed(log: Logbook, seq: int) -> None:
    """Promise 2: the signer refuses an inconsistent tree."""
    log.grow(5)
    log.forge_leaf(seq)
    log.stage(1)

    with pytest.raises(LogForked):
        log.sequencer().run_once()

    with reading(log.engine) as conn:
        assert tree_size(conn) == 5


def test_a_log_with_a_hole_is_not_signed(log: Logbook) -> None:
    """Promise 2: a dropped entry is found."""
    log.grow(5)
    log.tamper("DELETE FROM audit_log WHERE seq = 2")

    with pytest.raises(LogForked):
        log.sequencer().run_once()


def test_a_log_rewritten_while_the_sequencer_runs_is_not_signed(log: Logbook) -> None:
    """RULES 23: every new tree is checked against the last one, not only at start."""
    log.grow(5)
    sequencer = log.sequencer()
    sequencer.run_once()
    log.forge_leaf(1)
    log.stage(1)

    with pytest.raises(LogForked):
        sequencer.run_once()

    assert log.state.remembered is not None
    assert log.state.remembered.size == 5


def test_damaged_tiles_stop_the_signer_until_they_are_derived_again(log: Logbook) -> None:
    """Tiles are derived: damage among them is told apart from a rewritten log where that is possible."""
    log.grow(600)
    with log.engine.begin() as conn:
        conn.execute(text("DELETE FROM audit_tiles"))
    with pytest.raises(TilesDamaged):
        log.sequencer().run_once()

    with log.engine.begin() as conn:
        rebuild(conn, 600)

    log.grow(300)
    assert tree_of(log) == published(log)


def test_a_state_of_another_log_is_refused(log: Logbook) -> None:
    """A log keeps its origin for ever; another one needs a state of its own."""
    log.grow(1)
    log.state.remembered = SignedTree("example.com/other", 1, bytes(32))

    with pytest.raises(OriginChanged):
        log.sequencer().run_once()


def test_an_idle_run_reads_a_constant_number_of_rows(sqlite_log: Logbook) -> None:
    """An idle run is cheap, however long the log is."""
    sqlite_log.grow(600)
    sequencer = sqlite_log.sequencer()
    sequencer.run_once()
    statements: list[str] = []
    event.listen(
        sqlite_log.engine,
        "before_cursor_execute",
        lambda _conn, _cursor, statement, *_rest: statements.append(statement),
    )

    assert sequencer.run_once() == 0

    selects = [statement for statement in statements if statement.startswith("SELECT")]
    assert len(selects) == 3
    assert not any("leaf_hash" in statement or "hashes" in statement for statement in selects)


def test_growing_a_long_log_reads_at_most_two_tiles_of_leaves(sqlite_log: Logbook) -> None:
    """Root and growth cost O(log n) rows: one unfinished tile of leaves and those above it, in one query."""
    sqlite_log.grow(1500)
    sequencer = sqlite_log.sequencer()
    sequencer.run_once()
    sqlite_log.stage(1)
    statements: list[str] = []
    event.listen(
        sqlite_log.engine,
        "before_cursor_execute",
        lambda _conn, _cursor, statement, *_rest: statements.append(statement),
    )

    sequencer.run_once()

    assert sum("leaf_hash" in statement and "BETWEEN" in statement for statement in statements) == 1
    assert sum("hashes" in statement and statement.startswith("SELECT") for statement in statements) == 1
    assert sum(statement.startswith("SELECT") for statement in statements) == 5


def test_nothing_signed_is_made_of_tiles_of_leaves(log: Logbook) -> None:
    """Decision 0163: they repeat the leaves for proofs; chain and tree go on from the log itself, whatever they say."""
    log.grow(256)
    with log.engine.begin() as conn:
        forged = update(audit_tiles).where(audit_tiles.c.level == 0).values(hashes=bytes(8192))
        assert conn.execute(forged).rowcount == 1

    log.grow(300)

    assert tree_of(log) == published(log)


def test_checkpoints_are_dated_by_the_clock(log: Logbook) -> None:
    """STYLE: the clock comes in as an argument."""
    log.grow(1)
    log.clock.advance(timedelta(hours=1))
    log.grow(1)

    with reading(log.engine) as conn:
        rows = conn.execute(text("SELECT count(*), count(DISTINCT created_at) FROM audit_checkpoints")).one()

    assert tuple(rows) == (2, 2)


def test_the_signer_is_asked_only_after_the_state_remembers(log: Logbook) -> None:
    """RULES 23: leaves, state, signature, publication, in this order."""
    order: list[str] = []

    class Watched(NotebookState):
        def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
            with reading(log.engine) as conn:
                order.append(f"state after {tree_size(conn)} leaves")
            super().advance_checkpoint(expected, new)

    class Signer:
        origin = ORIGIN

        def sign(self, size: int, root: bytes) -> str:
            order.append("signature")
            return SIGNER.sign(size, root)

    log.stage(2)
    Sequencer(log.engine, signer=Signer(), state=Watched(), clock=log.clock).run_once()  # type: ignore[arg-type]

    assert order == ["state after 2 leaves", "signature"]
    assert published(log) == tree_of(log)
