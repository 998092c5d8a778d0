"""How a log may go on after a restore: never under a name that signed another tree (RULES 20, 23)."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.checkpoint import SignedTree
from audit.merkle import EMPTY_ROOT
from gateway.backup.beyond import Beyond
from gateway.backup.course import plot
from gateway.backup.errors import Mismatch
from gateway.backup.reading import StoredLog
from gateway.storage.state import FileState

ROOT, LATER = b"\1" * 32, b"\2" * 32


@pytest.fixture
def blank(tmp_path: Path) -> FileState:
    """A state that was lost: it remembers no log."""
    return FileState(tmp_path / "state")


def test_a_log_that_succeeded_another_does_not_give_its_first_name_away_again(blank: FileState) -> None:
    """The state is lost after a succession, and `FLG_LOG_ORIGIN` still names the first log, which was signed once."""
    signed = SignedTree("log/restored-00aa11bb", 4, ROOT)
    log = StoredLog(signed.origin, 4, {0: EMPTY_ROOT, 4: ROOT}, "a note", signed)

    course = plot(blank, "log", log, Beyond(), new_origin=False, without_state=True)

    assert course.old == signed
    assert course.origin not in ("log", signed.origin)
    assert course.origin.startswith("log/restored-")


def test_a_signed_bundle_shows_that_a_blank_state_was_lost(blank: FileState) -> None:
    """The backup is older than the first checkpoint: how much more was signed since the bundle, nobody knows."""
    log = StoredLog("log", 2, {0: EMPTY_ROOT, 2: ROOT}, None, None)
    beyond = Beyond(size=5, roots={2: ROOT, 5: LATER}, signed=SignedTree("log", 5, LATER), note="a note")

    with pytest.raises(Mismatch, match="--without-state"):
        plot(blank, "log", log, beyond, new_origin=False, without_state=False)
    course = plot(blank, "log", log, beyond, new_origin=False, without_state=True)

    assert not course.goes_on
    assert course.old == beyond.signed
