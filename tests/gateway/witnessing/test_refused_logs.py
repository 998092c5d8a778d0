"""A log that went back or forked: its witnesses refuse it, and the gateway tells so."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.home import Home
from sqlalchemy import text
from witnesses import asker_of, grow, kept, key_of, witness_of

from audit.checkpoint import NoteSigner, NoteVerifier
from audit.reading import reading
from audit.store import each_entry
from gateway.parts.sequencing import sequencer_of
from gateway.services import Services
from gateway.witnessing import Standing
from gateway.witnessing.part import Companion


def test_a_log_that_was_restored_from_an_old_copy_is_refused(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """The witness remembers more than the log has: told at once, and again when the log has grown anew."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored, asker_of(restored, witness) as asker:
            short = asker.ask()
            grow(restored, 5)
            regrown = asker.ask()

    assert (short.standing, short.size, short.known_size) == (Standing.REFUSED, 3, 6)
    assert (regrown.standing, regrown.size, regrown.known_size) == (Standing.REFUSED, 8, 6)
    assert kept(services) == [(6, witness.name)]


def test_a_copy_that_bears_a_cosignature_is_asked_about_before_it_grows(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """Its newest checkpoint was cosigned once, and is long not the last: the first question after a start tells."""
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        with asker_of(services, witness) as asker:
            asker.ask()
            older = home.copy(tmp_path / "older")
            grow(services, 2)
            asker.ask()

        with older.stores() as restored, asker_of(restored, witness) as asker:
            found = asker.ask()

    assert (found.standing, found.size, found.known_size) == (Standing.REFUSED, 3, 5)


def test_a_log_that_forked_is_refused_at_the_same_size_too(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """Two histories of one size, both signed with the log's own key: the witness saw the other one."""
    fork = home.copy(tmp_path / "fork")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 2)
        with asker_of(services, witness) as asker:
            asker.ask()

        with fork.stores() as forked, asker_of(forked, witness) as asker:
            grow(forked, 2)
            found = asker.ask()

    assert (found.standing, found.size, found.known_size) == (Standing.REFUSED, 5, 5)
    assert "another tree of this size" in found.reason


def test_a_witness_that_does_not_follow_the_log_is_unwilling(still: Services, tmp_path: Path) -> None:
    """404 and 403: its operator has to be told our key; that is no alarm."""
    origin = key_of(still).name
    stranger = NoteVerifier.parse(NoteSigner("example.com/other", Ed25519PrivateKey.generate()).vkey)
    impostor = NoteVerifier.parse(NoteSigner(origin, Ed25519PrivateKey.generate()).vkey)

    for number, key in enumerate((stranger, impostor)):
        with witness_of(tmp_path / str(number), key) as witness, asker_of(still, witness) as asker:
            assert asker.ask().standing is Standing.UNWILLING

    assert kept(still) == []


def test_a_refusal_is_an_entry_once_and_a_critical_line_each_time(
    services: Services, home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`witness.refused` says who, why, and both sizes; asking goes on, more and more rarely."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored, caplog.at_level(logging.WARNING):
            companion = Companion(restored, restored.engine, witness)
            pauses = []
            for _ in range(3):
                companion.look()
                pauses.append(companion.pause_s)
            companion.close()
            sequencer_of(restored).run_once()
            told = _entries(restored, "witness.refused")

    assert len([line for line in caplog.messages if "REFUSES" in line]) == 3
    assert [(one["outcome"], one["details"]) for one in told] == [
        (
            "failure",
            {
                "witness": witness.name,
                "reason": "it cosigned a larger tree than this log has",
                "size": 3,
                "known_size": 6,
            },
        )
    ]
    assert pauses[0] >= 1.0
    assert pauses[2] > pauses[0] * 0.9


def test_a_refusal_is_an_entry_although_the_first_try_to_write_it_failed(
    services: Services, home: Home, tmp_path: Path
) -> None:
    """The alarm is not lost with a database that is away at the wrong moment."""
    older = home.copy(tmp_path / "older")
    with witness_of(tmp_path / "w", key_of(services)) as witness:
        grow(services, 3)
        with asker_of(services, witness) as asker:
            asker.ask()

        with older.stores() as restored:
            refuse_writes = text(
                "CREATE TRIGGER away BEFORE INSERT ON audit_pending BEGIN SELECT RAISE(FAIL, 'away'); END"
            )
            with restored.engine.begin() as conn:
                conn.execute(refuse_writes)
            companion = Companion(restored, restored.engine, witness)
            companion.look()
            with restored.engine.begin() as conn:
                conn.execute(text("DROP TRIGGER away"))
            for _ in range(2):
                companion.look()
            companion.close()
            sequencer_of(restored).run_once()
            told = _entries(restored, "witness.refused")

    assert len(told) == 1


def _entries(services: Services, event_type: str) -> list[dict[str, object]]:
    with reading(services.engine) as conn:
        found = [json.loads(entry.canonical) for entry in each_entry(conn)]
    return [entry for entry in found if entry["event_type"] == event_type]
