"""The audit logger of the specification, and the package's front door."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from logbook import ALICE, Logbook
from sqlalchemy import Connection

import audit
from audit import AuditLogger, EventType
from audit.draft import Personal
from audit.reading import reading
from audit.store import entry_by_id, is_pending

DOWNLOAD = {"model_id": "m-1", "model_version": "1.0.0", "checksum": "0" * 64, "status": 200}


def logger(log: Logbook, **options: object) -> AuditLogger:
    who = lambda: (ALICE, Personal(ALICE.subject, "192.0.2.1"))  # noqa: E731
    return AuditLogger(log.engine, log.sealer, log.clock, who, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("event_type", ["model.downloaded", EventType.MODEL_DOWNLOADED])
def test_an_event_is_logged_with_actor_time_and_address(log: Logbook, event_type: str) -> None:
    """Specification, phase 4, 7.2: id, timestamp, event type, details, actor, address."""
    entry_id = logger(log).log_event(event_type, {**DOWNLOAD, "device": "pump-3"})

    log.sequence()
    with reading(log.engine) as conn:
        stored = entry_by_id(conn, entry_id)
    assert stored is not None
    told = json.loads(stored.canonical)
    assert (told["event_type"], told["action"]) == ("model.downloaded", "downloaded")
    assert told["details"]["model_version"] == "1.0.0"
    assert b"pump-3" not in stored.canonical
    assert log.sealer.open(audit.Sealed(**told["actor"]), f"{entry_id}.actor") == "alice"
    assert log.sealer.open(audit.Sealed(**told["ip_address"]), f"{entry_id}.ip_address") == "192.0.2.1"


def test_an_unknown_event_is_a_mistake_of_the_caller(sqlite_log: Logbook) -> None:
    """Events are declared, with what may stand in clear."""
    with pytest.raises(ValueError, match="is not a valid EventType"):
        logger(sqlite_log).log_event("no.such", {})


def test_subjects_are_held_in_the_transaction_that_stages(sqlite_log: Logbook) -> None:
    """RULES 18: an entry under a subject that is being erased is not written."""
    held: list[frozenset[str]] = []

    def refuse(conn: Connection, subjects: frozenset[str]) -> None:
        held.append(subjects)
        raise RuntimeError("erasing")

    with pytest.raises(RuntimeError, match="erasing"):
        logger(sqlite_log, hold=refuse).log_event("model.downloaded", DOWNLOAD)

    assert held == [{ALICE.subject}]
    with reading(sqlite_log.engine) as conn:
        assert not is_pending(conn, "")


def test_importing_the_package_loads_no_database() -> None:
    """DESIGN, The house: an auditor imports `audit` without SQLAlchemy."""
    program = "import audit, sys; sys.exit('sqlalchemy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert audit.AuditLogger is AuditLogger
    with pytest.raises(AttributeError):
        audit.no_such_name  # noqa: B018
