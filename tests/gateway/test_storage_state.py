"""The state: facts that only grow, whole after a crash, shared by processes (RULES 1)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from audit.errors import StateConflict
from audit.sequencer import SignedTree
from gateway.errors import ConfigError
from gateway.storage.state import FileState, Spend

FIRST = SignedTree("log", 3, b"\1" * 32)
SECOND = SignedTree("log", 5, b"\2" * 32)
SPEND = Spend("line", "model", 7, {"noise_multiplier": "4.0", "unit": "client"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the state lies."""
    return tmp_path / "state"


def test_the_checkpoint_moves_by_compare_and_set(folder: Path) -> None:
    """RULES 23: another signer, or a smaller tree, is refused."""
    state, other = FileState(folder), FileState(folder)
    state.advance_checkpoint(None, FIRST)

    with pytest.raises(StateConflict):
        other.advance_checkpoint(None, SECOND)
    other.advance_checkpoint(FIRST, SECOND)
    with pytest.raises(StateConflict):
        state.advance_checkpoint(SECOND, FIRST)

    assert FileState(folder).last_checkpoint() == SECOND


def test_erased_keys_and_spends_are_kept_for_ever(folder: Path) -> None:
    """A spend that is told twice counts once."""
    state = FileState(folder)
    state.add_erased_keys(["a", "b"])
    state.add_erased_keys(["c"])
    state.add_spend(SPEND)
    state.add_spend(SPEND)

    again = FileState(folder)

    assert again.erased_keys() == {"a", "b", "c"}
    assert again.spends() == [SPEND]


def test_a_torn_last_line_is_dropped_and_written_over(folder: Path) -> None:
    """A kill in the middle of a line leaves what was never acknowledged; the next line is whole again."""
    state = FileState(folder)
    state.add_erased_keys(["a"])
    with (folder / "erased-keys.log").open("ab") as file:
        file.write(b"tor")

    before = state.erased_keys()
    state.add_erased_keys(["b"])

    assert before == {"a"}
    assert state.erased_keys() == {"a", "b"}


def test_another_process_sees_the_epoch_at_once(folder: Path) -> None:
    """The epoch clears caches in every process: it is mapped memory, not a file that is read again."""
    state = FileState(folder)
    before = state.epoch()
    bump = "import sys; from gateway.storage.state import open_state; open_state(sys.argv[1]).bump_epoch()"

    subprocess.run([sys.executable, "-c", bump, f"file:{folder}"], check=True, timeout=60)

    assert state.epoch() == before + 1


def test_the_origin_is_fixed_at_the_first_start(folder: Path) -> None:
    """A log keeps its name; a configuration that wishes another one is refused."""
    made = FileState(folder).origin("hospital.example/log")

    assert FileState(folder).origin("") == made == "hospital.example/log"
    with pytest.raises(ConfigError, match="for ever"):
        FileState(folder).origin("other.example/log")
