"""Sequencers at once, in threads and processes: one leads, a follower takes over, and nobody waits for another."""

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
from pathlib import Path

import pytest
from logbook import SIGNER, Logbook, NotebookState, published, tree_of
from services.checkout import ROOT
from sqlalchemy import text

from audit.checkpoint import NoteVerifier, SignedTree
from audit.errors import StateConflict
from audit.reading import reading
from audit.sequencer import _LEADER
from audit.store import each_entry, pending_count, stage
from gateway.storage.state import FileState

HERE = Path(__file__).resolve().parent
VERIFIER = NoteVerifier.parse(SIGNER.vkey)


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
