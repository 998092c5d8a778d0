"""The state ends one log and begins another in one appended line, and knows it for ever (RULES 1, 20)."""

from __future__ import annotations

from pathlib import Path

import pytest

from audit.checkpoint import SignedTree
from audit.errors import StateConflict
from gateway.errors import ConfigError
from gateway.storage.state import FileState

FIRST = SignedTree("log", 3, b"\1" * 32)
OTHER = SignedTree("log", 5, b"\2" * 32)
NEW = SignedTree("log/2", 1, b"\3" * 32)


@pytest.fixture
def state(tmp_path: Path) -> FileState:
    """A state whose log was signed once."""
    made = FileState(tmp_path / "state")
    made.origin("log")
    made.advance_checkpoint(None, FIRST)
    return made


def test_a_new_log_begins_unsigned_and_remembers_the_old_one(state: FileState, tmp_path: Path) -> None:
    """Seen by every process; the old log is never signed again."""
    state.succeed(FIRST, "log/2")

    again = FileState(tmp_path / "state")
    assert (again.origin(""), again.last_checkpoint(), again.predecessor()) == ("log/2", None, FIRST)
    with pytest.raises(StateConflict):
        again.advance_checkpoint(FIRST, OTHER)
    again.advance_checkpoint(None, NEW)
    assert again.last_checkpoint() == NEW
    assert again.predecessors() == [FIRST]


def test_a_repetition_changes_nothing(state: FileState) -> None:
    """A restore that was killed behind it ends the log once."""
    state.succeed(FIRST, "log/2")
    state.succeed(FIRST, "log/2")

    assert state.predecessors() == [FIRST]


def test_a_log_ends_at_its_last_tree_and_under_a_new_name(state: FileState) -> None:
    """Another tree was signed meanwhile; or the name was a log's already."""
    with pytest.raises(StateConflict):
        state.succeed(OTHER, "log/2")
    with pytest.raises(StateConflict):
        state.succeed(FIRST, "log")

    assert state.predecessor() is None


def test_the_configured_origin_may_stay_the_first_one(state: FileState) -> None:
    """Nobody has to change a setting after a restore; a third name is still an error."""
    state.succeed(FIRST, "log/2")

    assert state.origin("log") == state.origin("log/2") == "log/2"
    with pytest.raises(ConfigError):
        state.origin("another")


def test_a_torn_line_ended_no_log(state: FileState, tmp_path: Path) -> None:
    """A kill in the middle of the line: the old log is in force."""
    with (tmp_path / "state" / "predecessors.jsonl").open("ab") as file:
        file.write(b'{"origin": "log", "si')

    assert state.origin("") == "log"
    assert state.last_checkpoint() == FIRST
