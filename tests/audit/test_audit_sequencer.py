"""The sequencer: order, crashes, rivals, and its refusal to sign a rewritten log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from logbook import ORIGIN, SIGNER, Killed, Logbook, NotebookState
from services.checkout import ROOT
from sqlalchemy import event, insert, text, update

from audit.checkpoint import NoteVerifier, SignedTree
from audit.entry import Sealed
from audit.errors import BadPending, LogForked, LogShrunk, OriginChanged, StateConflict, TilesDamaged
from audit.merkle import CompactRange
from audit.reading import reading
from audit.sequencer import _LEADER, Sequencer
from audit.store import each_entry, latest_checkpoint, pending_count, stage, tree_size
from audit.tables import audit_pending, audit_tiles
from audit.tree import rebuild
from gateway.storage.state import FileState

HERE = Path(__file__).resolve().parent
VERIFIER = NoteVerifier.parse(SIGNER.vkey)


def published(log: Logbook) -> SignedTree | None:
    with reading(log.engine) as conn:
        note = latest_checkpoint(conn)
    return VERIFIER.open(note) if note else None


def tree_of(log: Logbook) -> SignedTree:
    """What the stored entries give, hashed from the first."""
    tree = CompactRange()
    prev = "0" * 64
    with reading(log.engine) as conn:
        for entry in each_entry(conn):
            told = json.loads(entry.canonical)
            assert (told["seq"], told["prev"]) == (entry.seq, prev) == (tree.size, prev)
            tree.append(entry.leaf)
            prev = entry.leaf.hex()
    return SignedTree(ORIGIN, tree.size, tree.root())


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


@pytest.mark.parametrize("body", ["{}", "no json", '{"seq":1}'])
def test_what_was_written_past_the_staging_does_not_join_the_log(log: Logbook, body: str) -> None:
    """A malformed pending row is named and stays where it is; nothing of its batch is written."""
    log.stage(1)
    with log.engine.begin() as conn:
        conn.execute(insert(audit_pending).values(id="odd", body=body, created_at=log.clock()))

    with pytest.raises(BadPending) as refusal:
        log.sequencer().run_once()

    assert refusal.value.entry_id == "odd"
    with reading(log.engine) as conn:
        assert (tree_size(conn), pending_count(conn)) == (0, 2)


def test_a_staged_blob_is_named_as_what_does_not_join_the_log(sqlite_log: Logbook) -> None:
    """SQLite keeps bytes in a column of texts, too; whoever may write there can put some in."""
    with sqlite_log.engine.begin() as conn:
        conn.exec_driver_sql(
            "INSERT INTO audit_pending VALUES ('odd', x'7b7d', '2026-11-24 12:00:00.000000')"
        )

    with pytest.raises(BadPending) as refusal:
        sqlite_log.sequencer().run_once()

    assert refusal.value.entry_id == "odd"


@pytest.mark.parametrize(
    "odd",
    [
        {"event_type": "x" * 65},
        {"event_type": "update\0"},
        {"ip_address": Sealed("", "0a" * 33)},
        {"actor": Sealed("", "\0")},
    ],
)
def test_what_no_column_of_the_log_can_hold_is_named(log: Logbook, odd: dict[str, Any]) -> None:
    """PostgreSQL would refuse the whole batch, for ever, with an error that names no entry."""
    draft = replace(log.make(), **odd)
    with log.engine.begin() as conn:
        stage(conn, draft)

    with pytest.raises(BadPending) as refusal:
        log.sequencer().run_once()

    assert refusal.value.entry_id == draft.id


def test_two_sequencers_at_once_make_one_log(log: Logbook) -> None:
    """Promise 2: one leads at a time, and a fork cannot be written."""
    drafts = log.stage(300)
    problems: list[BaseException] = []

    def sequence() -> None:
        sequencer = log.sequencer(batch=10)
        try:
            for _ in range(200):
                sequencer.run_once()
                with reading(log.engine) as conn:
                    if not pending_count(conn):
                        return
        except BaseException as problem:  # noqa: BLE001 - shown below
            problems.append(problem)

    threads = [threading.Thread(target=sequence) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.sequence()

    assert problems == []
    assert tree_of(log).size == len(drafts)
    assert tree_of(log) == published(log) == log.state.remembered


_PROCESS = """
import os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy import event
from audit.crash import no_crash
from audit.sequencer import Sequencer
from gateway.storage.database import open_engine
from gateway.storage.state import FileState
from logbook import SIGNER

url, state, moment = sys.argv[1:]
engine = open_engine(url)
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
if moment == "inside":
    is_last = lambda statement: statement.startswith("DELETE FROM audit_pending")
    event.listen(engine, "after_cursor_execute", lambda _c, _r, told, *_: die() if is_last(told) else None)
sequencer = Sequencer(
    engine,
    signer=SIGNER,
    state=FileState(Path(state)),
    clock=lambda: datetime.now(UTC),
    batch=5,
    crash=die if moment == "after" else no_crash,
)
print("ready", flush=True)
while True:
    if not sequencer.run_once():
        time.sleep(0.02)
"""


@contextmanager
def sequencer_process(log: Logbook, state: Path, *, dies: str = "") -> Iterator[subprocess.Popen[str]]:
    """A sequencer in a process of its own, which kills itself inside of a batch's transaction, or right after it."""
    url = log.engine.url.render_as_string(hide_password=False)
    process = subprocess.Popen(
        [sys.executable, "-c", _PROCESS, url, str(state), dies],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "tests", HERE)))},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def await_signed(log: Logbook, size: int, *, within_s: float) -> None:
    end_s = time.monotonic() + within_s
    while (tree := published(log)) is None or tree.size < size:
        assert time.monotonic() < end_s, f"{tree} after {within_s} s, not {size} entries"
        time.sleep(0.02)


@pytest.mark.parametrize("moment", ["inside", "after"])
def test_a_follower_takes_over_from_a_killed_leader_in_five_seconds(
    log: Logbook, tmp_path: Path, moment: str
) -> None:
    """SIGKILL inside of a batch's transaction, which holds the lead, or between its commit and its signature."""
    state = tmp_path / "state"
    staged = 0
    with sequencer_process(log, state, dies=moment) as leader, sequencer_process(log, state):
        while leader.poll() is None:
            assert staged < 1000
            staged += len(log.stage(5))
            time.sleep(0.03)

        await_signed(log, staged, within_s=5)

    assert leader.returncode == -signal.SIGKILL
    assert tree_of(log) == published(log) == FileState(state).last_checkpoint()
    assert tree_of(log).size == staged


def test_racing_processes_make_one_log_while_others_write(log: Logbook, tmp_path: Path) -> None:
    """Promise 2: the commit of a batch names the size that it extends, so that no two extend the same tree."""
    state = tmp_path / "state"
    with sequencer_process(log, state) as one, sequencer_process(log, state) as other:
        with ThreadPoolExecutor(4) as writers:
            staged = [
                draft.id for drafts in writers.map(lambda _: log.stage(5), range(60)) for draft in drafts
            ]

        await_signed(log, len(staged), within_s=30)
        assert (one.poll(), other.poll()) == (None, None)

    with reading(log.engine) as conn:
        ids = [json.loads(entry.canonical)["id"] for entry in each_entry(conn)]
    assert sorted(ids) == sorted(staged)
    assert tree_of(log) == published(log) == FileState(state).last_checkpoint()


def test_a_writer_waits_for_no_other_writer_and_for_no_sequencer(postgresql_log: Logbook) -> None:
    """PostgreSQL: an open transaction with an entry, and one that is sequencing, keep no writer waiting."""
    with postgresql_log.engine.connect() as slow, postgresql_log.engine.connect() as leader:
        stage(slow, postgresql_log.make())
        leader.execute(text(f"SELECT pg_advisory_xact_lock({_LEADER})"))
        with postgresql_log.engine.begin() as conn:
            conn.execute(text("SET LOCAL lock_timeout = '100ms'"))
            stage(conn, postgresql_log.make())

        assert postgresql_log.sequencer().run_once() == 0
        leader.rollback()
        assert postgresql_log.sequencer().run_once() == 1
        slow.commit()

    assert postgresql_log.sequencer().run_once() == 1
    assert tree_of(postgresql_log) == published(postgresql_log)


def test_a_rival_who_was_faster_costs_a_run_and_nothing_else(log: Logbook) -> None:
    """The batch commit checks the size that it extends."""
    log.stage(4)
    rival, slow = log.sequencer(), log.sequencer()
    seen = slow._look()
    assert seen is not None
    rival.run_once()

    assert slow._commit(slow._batch(seen)) is False

    assert tree_of(log) == published(log)


def test_a_rival_signer_is_left_to_sign(log: Logbook) -> None:
    """RULES 23: compare-and-set decides who signs; the loser publishes nothing."""

    class Contested(NotebookState):
        def advance_checkpoint(self, expected: SignedTree | None, new: SignedTree) -> None:
            raise StateConflict("another signer was here")

    log.state = Contested()
    log.stage(1)

    assert log.sequencer().run_once() == 1

    assert published(log) is None


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
