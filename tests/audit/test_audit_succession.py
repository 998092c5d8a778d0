"""RULES 20: a log that succeeds another one says so in its first entry, and the verifier holds it to that."""

from __future__ import annotations

from pathlib import Path

import pytest
from logbook import KEY, SIGNER, Logbook, NotebookSealer, chained, entries, lines, zipped
from services.clock import FixedClock

from audit.checkpoint import NoteSigner, SignedTree
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Entry, place
from audit.errors import NotSucceeded
from audit.events import EventType
from audit.merkle import CompactRange
from audit.store import LogRows, insert_rows
from audit.succession import succeeded_tree, succession_details
from audit.verifier.verdict import Verdict
from audit.verify import verify_bundle

OLD = "example.com/old-log"
OLD_CHAIN = entries(9)


def tree_of(chain: list[Entry], origin: str = SIGNER.origin) -> SignedTree:
    """The tree of these entries."""
    tree = CompactRange()
    for entry in chain:
        tree.append(entry.leaf())
    return SignedTree(origin, tree.size, tree.root())


ENDED = tree_of(OLD_CHAIN, OLD)


def beginning(old: SignedTree = ENDED) -> Entry:
    """The first entry of a log after another one."""
    made = draft(
        EventType.LOG_SUCCEEDED,
        sealer=NotebookSealer(),
        now=FixedClock()(),
        actor=Personal("system", "console"),
        action="succeeded",
        details=succession_details(old, SIGNER.origin),
    )
    return place(made.body(), 0, FIRST_PREV)


def verdict_of(path: Path, *, since: str | None = None) -> Verdict:
    """The verdict on a log that succeeds the old one."""
    chain = chained([beginning(), *entries(4)])
    new = tree_of(chain)
    bundle = zipped(path / "b.zip", lines(chain), SIGNER.sign(new.size, new.root))
    return verify_bundle(bundle, vkey=SIGNER.vkey, since=since)


def old_note(size: int, *, chain: list[Entry] = OLD_CHAIN, origin: str = OLD) -> str:
    """A checkpoint of the old log, which the same key signed under that log's name."""
    tree = tree_of(chain[:size], origin)
    signer = NoteSigner(origin, KEY)
    return signer.sign(size, tree.root)


def test_the_first_entry_tells_where_the_old_log_ended(tmp_path: Path) -> None:
    """Whoever verifies the new log sees it."""
    verdict = verdict_of(tmp_path)

    assert verdict.ok
    assert f"this log succeeds the log '{OLD}', which ended at 9 entries" in verdict.checks[-1]


def test_an_older_checkpoint_of_the_old_log_is_answered_with_the_way(tmp_path: Path) -> None:
    """The new log does not continue it; where it can be checked is said."""
    verdict = verdict_of(tmp_path, since=old_note(5))

    assert not verdict.ok
    assert "which this log succeeds: check it against a bundle of that log" in str(verdict.problem)


def test_an_end_before_the_older_checkpoint_conceals_entries(tmp_path: Path) -> None:
    """Promise 2: nine entries were named, and the auditor knows of eleven; or of nine others."""
    longer = verdict_of(tmp_path, since=old_note(11, chain=entries(11)))
    other = verdict_of(tmp_path, since=old_note(9, chain=entries(10)[1:]))

    assert "entries were concealed" in str(longer.problem)
    assert "entries were concealed" in str(other.problem)
    assert longer.first_bad_seq == other.first_bad_seq == 0


def test_a_checkpoint_of_any_other_log_is_refused(tmp_path: Path) -> None:
    """It is not of the log that this one succeeds."""
    verdict = verdict_of(tmp_path, since=old_note(5, origin="example.com/third"))

    assert "is of the log 'example.com/third', not of this one" in str(verdict.problem)


def test_only_the_first_entry_makes_a_succession() -> None:
    """Another place, another event or a broken tree says nothing."""
    assert succeeded_tree(beginning()) == ENDED
    assert succeeded_tree(beginning().placed(1, FIRST_PREV)) is None
    assert succeeded_tree(OLD_CHAIN[0]) is None


def test_the_signer_insists_on_the_first_entry(log: Logbook) -> None:
    """A log that the state says succeeds another one is not signed without saying it; nor with another tree."""
    log.state.succeeded = ENDED
    log.stage(3)
    with pytest.raises(NotSucceeded):
        log.sequence()

    assert log.state.remembered is None


def test_the_signer_goes_on_behind_the_right_first_entry(log: Logbook) -> None:
    """And remembers the new log's tree from then on."""
    log.state.succeeded = ENDED
    with log.engine.begin() as conn:
        insert_rows(conn, LogRows.of(beginning()))
    log.grow(2)

    assert log.state.remembered is not None
    assert log.state.remembered.size == 3
