"""The hammer: every lie about the log ends it, and a log that grows under it never does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from logbook import SIGNER, Logbook
from sqlalchemy import Engine

from audit.checkpoint import NoteVerifier
from audit.errors import BadSignature, NoCheckpoint
from audit.hammer import Blows, DatabaseReader, Hammer
from audit.store import stage


class _Counted(DatabaseReader):
    """Knows how much was proven, so that a test ends when it has seen enough, on whatever machine."""

    proven = 0
    sizes: set[str]

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self.sizes = set()

    def checkpoint(self) -> str:
        note = super().checkpoint()
        self.sizes.add(note.split("\n")[1])
        return note

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        self.proven += 1
        return super().inclusion(seq, size)


def _hammered(reader: DatabaseReader, is_over: Callable[[], bool], *writers: Callable[[], None]) -> Blows:
    """Two readers, and these writers."""
    return Hammer(reader, NoteVerifier.parse(SIGNER.vkey), 2, writers, is_over, Random(1)).run()


def _within(seconds: float) -> Callable[[], bool]:
    ends = time.monotonic() + seconds
    return lambda: time.monotonic() >= ends


def test_a_log_that_grows_is_proven_all_the_while(log: Logbook) -> None:
    """Inclusion against one checkpoint, and each later checkpoint goes on from the first."""
    log.grow(300)
    reader, lock, sequencer, late = _Counted(log.engine), threading.Lock(), log.sequencer(), _within(120)

    def write() -> None:
        with lock:
            draft = log.make()
            with log.engine.begin() as conn:
                stage(conn, draft)
            sequencer.run_once()

    blows = _hammered(reader, lambda: (reader.proven > 150 and len(reader.sizes) > 2) or late(), write, write)

    assert blows.failure == ""
    assert blows.first_size == 300
    assert blows.last_size > 300
    assert blows.inclusions > 50
    assert blows.checkpoints == blows.consistencies > 2
    assert blows.written >= blows.last_size - 300


class _OtherEntry(DatabaseReader):
    def entry(self, seq: int) -> bytes:
        return super().entry(seq).replace(b"accepted", b"refused!")


class _CutProof(DatabaseReader):
    def inclusion(self, seq: int, size: int) -> list[bytes]:
        return super().inclusion(seq, size)[1:]


class _Fork(DatabaseReader):
    """Shows a second history, signed with the right key, once it was asked twice."""

    asked = 0

    def checkpoint(self) -> str:
        self.asked += 1
        return super().checkpoint() if self.asked == 1 else SIGNER.sign(self.size, bytes(32))

    size = 300


class _Shrunk(_Fork):
    size = 299


class _Unsigned(DatabaseReader):
    def checkpoint(self) -> str:
        return super().checkpoint().replace("\n300\n", "\n301\n")


@pytest.mark.parametrize("lie", [_OtherEntry, _CutProof, _Fork, _Shrunk])
def test_the_first_proof_that_does_not_verify_ends_it(
    sqlite_log: Logbook, lie: Callable[..., DatabaseReader]
) -> None:
    """An entry with another text, a path that leads elsewhere, another history, a shorter one."""
    sqlite_log.grow(300)
    late = _within(100)

    blows = _hammered(lie(sqlite_log.engine), late)

    assert blows.failure
    assert not late()


def test_a_checkpoint_that_nobody_signed_proves_nothing(sqlite_log: Logbook) -> None:
    """The very first one is verified, too; and without one there is nothing to prove."""
    with pytest.raises(NoCheckpoint):
        _hammered(DatabaseReader(sqlite_log.engine), _within(5))
    sqlite_log.grow(300)
    with pytest.raises(BadSignature):
        _hammered(_Unsigned(sqlite_log.engine), _within(5))


def test_an_entry_that_is_gone_is_a_lie_as_well(sqlite_log: Logbook) -> None:
    """A signature covers it."""
    sqlite_log.grow(300)
    sqlite_log.tamper("DELETE FROM audit_log WHERE seq < 290")

    assert _hammered(DatabaseReader(sqlite_log.engine), _within(100)).failure


class _Switched(DatabaseReader):
    """A gateway that shows one log first and a second one afterwards, which is sound in itself."""

    def __init__(self, first: Engine, second: Engine) -> None:
        super().__init__(second)
        self._shown = [DatabaseReader(first).checkpoint()]

    def checkpoint(self) -> str:
        return self._shown.pop() if self._shown else super().checkpoint()


def test_a_second_log_under_the_same_key_is_found(sqlite_log: Logbook, tmp_path: Path) -> None:
    """Every entry of it leads to its signed root; only the first checkpoint says that there was another history."""
    sqlite_log.grow(300)
    other = Logbook(f"sqlite:///{tmp_path / 'other.db'}", sqlite_log.clock)
    other.grow(310)

    blows = _hammered(_Switched(sqlite_log.engine, other.engine), _within(100))

    assert "consistency" in blows.failure
    assert blows.inclusions == 0
    other.engine.dispose()
