"""The cache of verdicts: at most half a second, never beyond an ending, in bounded memory, seen by every process."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from gateway.services import Services
from gateway.storage.ended import note_ended, note_every_ended
from gateway.storage.epochs import Endings
from gateway.storage.state import FileState
from gateway.storage.verdicts import LONGEST_S, Verdicts

KEY, OTHER = "0a" * 32, "0b" * 32


class Time:
    """A clock that stands."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_verdict_stands_for_half_a_second() -> None:
    """Other machines write to the same database and tell nobody here."""
    clock, looked = Time(), list[int]()
    verdicts = Verdicts(lambda _key: 0, clock=clock)

    def look() -> int:
        looked.append(1)
        return len(looked)

    assert [verdicts.find(KEY, look), verdicts.find(KEY, look)] == [1, 1]
    clock.now_s += LONGEST_S
    assert verdicts.find(KEY, look) == 2


def test_what_is_not_there_is_not_remembered() -> None:
    """A flood of unknown tokens puts nothing in the place of known ones."""
    verdicts = Verdicts(lambda _key: 0, clock=Time())

    assert verdicts.find(KEY, lambda: None) is None
    assert len(verdicts) == 0
    assert verdicts.find(KEY, lambda: "here") == "here"


def test_what_ends_during_the_look_is_looked_up_again() -> None:
    """The epoch is read before the database is asked."""
    epoch = [1]
    verdicts = Verdicts(lambda _key: epoch[0], clock=Time())

    def look() -> str:
        epoch[0] += 1
        return "good"

    verdicts.find(KEY, look)
    assert verdicts.find(KEY, lambda: "ended") == "ended"


def test_memory_is_bounded() -> None:
    """However many good tokens there are."""
    verdicts = Verdicts(lambda _key: 0, clock=Time(), most=10)

    for number in range(100):
        verdicts.find(f"{number:02x}", lambda: "good")

    assert len(verdicts) <= 20


def test_an_ending_empties_its_group_alone(tmp_path: Path) -> None:
    """Who ends tokens all day costs the others nothing."""
    endings = Endings(tmp_path / "endings")
    before = endings.of(KEY), endings.of(OTHER), endings.of_any()

    endings.tell([KEY])
    assert (endings.of(KEY), endings.of(OTHER)) == (before[0] + 1, before[1])
    assert endings.of_any() == before[2] + 1

    endings.tell_of_every()
    assert (endings.of(KEY), endings.of(OTHER)) == (before[0] + 2, before[1] + 1)


def test_what_is_kept_of_all_tokens_ends_before_what_is_kept_of_one(tmp_path: Path) -> None:
    """Else a JWT looked up between the two counts is judged by the old list of ended ones, and kept as good."""
    endings, moved = Endings(tmp_path / "endings"), list[int]()

    class Watched(list[int]):
        def __setitem__(self, place: Any, count: Any) -> None:
            moved.append(place)
            super().__setitem__(place, count)

    endings._counts = Watched(endings._counts)  # type: ignore[assignment]
    for group in range(256):
        endings.tell([f"{group:02x}"])
    endings.tell_of_every()

    any_, every = moved[0], moved[-1]
    assert moved == [place for group in range(256) for place in (any_, group)] + [any_, every]
    assert endings.of_any() == 257


@pytest.mark.parametrize("answer", ["lost", "cut off"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_caches_hear_of_a_commit_whose_connection_was_lost(
    services: Services, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    """Whether the answer to the commit never came, or the connection broke right after it."""
    before, commit = services.state.endings.of(KEY), services.engine.dialect.do_commit

    def no_answer(dbapi_connection: Any) -> None:
        commit(dbapi_connection)
        raise sqlite3.OperationalError

    if answer == "lost":
        monkeypatch.setattr(services.engine.dialect, "do_commit", no_answer)
    with suppress(OperationalError), services.engine.connect() as conn:
        note_ended(conn, [KEY])
        conn.execute(text("SELECT 1"))
        conn.commit()
        conn.invalidate()

    assert services.state.endings.of(KEY) == before + 1


def test_another_process_s_ending_is_seen_at_once(tmp_path: Path) -> None:
    """One memory-mapped file for all processes of the machine; an older state gets the file it lacks."""
    state = FileState(tmp_path)
    before = state.token_epoch(KEY)
    tell = "import sys; from gateway.storage.state import open_state as o; o(sys.argv[1]).endings.tell(sys.argv[2:])"

    subprocess.run([sys.executable, "-c", tell, f"file:{tmp_path}", KEY], check=True, timeout=60)

    assert state.token_epoch(KEY) == before + 1
    state.bump_epoch()
    assert state.token_epoch(KEY) == before + 2


@pytest.mark.parametrize("every", [False, True])
def test_caches_hear_of_a_commit_and_of_no_rollback(services: Services, *, every: bool) -> None:
    """Right after the commit, and only then."""
    endings, seen = services.state.endings, list[int]()
    before = endings.of(KEY)

    class Undone(Exception):
        pass

    def end(*, undone: bool) -> None:
        with services.engine.begin() as conn:
            conn.execute(text("SELECT 1"))
            note_every_ended(conn) if every else note_ended(conn, [KEY])
            seen.append(endings.of(KEY))
            if undone:
                raise Undone

    with pytest.raises(Undone):
        end(undone=True)
    assert endings.of(KEY) == before
    end(undone=False)

    assert seen == [before, before]
    assert endings.of(KEY) == before + 1
