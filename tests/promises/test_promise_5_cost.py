"""Promise 5 at scale: an erasure costs what the person's own data cost, however much others have beside it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from living.home import Home, home_in
from sqlalchemy import JSON, Boolean, Engine, Float, Integer, LargeBinary, Table, Uuid, event, insert

import compliance.keyring.tables
import compliance.tables
import gateway.tables
from audit.datamap import UtcDateTime
from audit.draft import Personal
from audit.events import Retention
from compliance.requests.cases import Status
from gateway.auth.clients import Device, new_registration, register_client
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.tables import client_updates, models, rounds

OFFICER = Personal("system", "officer")
OTHERS = 1500
OWN = 60
_STEP = 50


@dataclass(frozen=True, slots=True)
class Cost:
    """What the databases did: statements, and the steps of SQLite's machine."""

    statements: int
    steps: int


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Cost:
    """What it costs to erase a person who is alone."""
    with home_in(tmp_path_factory.mktemp("once") / "home") as home:
        return _cost(home, own=OWN, others=0)


def test_an_erasure_costs_twice_as_much_for_twice_the_data_of_the_person(once: Cost, tmp_path: Path) -> None:
    """Linear in its own data: not a query over all updates for each update."""
    with home_in(tmp_path / "home") as home:
        twice = _cost(home, own=2 * OWN, others=0)

    assert twice.statements <= 2.1 * once.statements, (once, twice)
    assert twice.steps <= 2.3 * once.steps, (once, twice)


def test_an_erasure_costs_the_same_however_much_others_have(once: Cost, tmp_path: Path) -> None:
    """Every table has an index that leads to one person's rows; what is another's is not even looked at."""
    with home_in(tmp_path / "home") as home:
        among = _cost(home, own=OWN, others=OTHERS)

    assert among.statements == once.statements
    assert among.steps <= 1.3 * once.steps, (once, among)


def _cost(home: Home, *, own: int, others: int) -> Cost:
    """What erasing somebody with so many updates costs, in databases in which every table has so many other rows."""
    with home.stores() as services:
        subject = _somebody(services, own)
        for engine, metadata in (
            (services.engine, gateway.tables.metadata),
            (services.engine, compliance.tables.metadata),
            (services.keystore_engine, compliance.keyring.tables.metadata),
        ):
            _fill(engine, [table for table in metadata.sorted_tables if table.name not in _FEW], others)
        desk = privacy_desk(services)
        case = desk.open("erasure", subject, requested_by=OFFICER)
        desk.approve(case.id, by=OFFICER)
        with _counted(services.engine, services.keystore_engine) as counted:
            done = desk.run(case.id)
        assert done.status is Status.COMPLETED, done.last_error
    return Cost(counted["statements"], counted["steps"])


_FEW = {"switches", "settings_at_start", "index_keys", "signing_keys", "models", "rounds", "round_seeds"}
"""Tables that do not grow with the number of people."""


def _somebody(services: Services, updates: int) -> str:
    """A registered person with so many updates, each in a round of its own."""
    registration = new_registration(services, Device(name="silo"))
    register_client(services, registration)
    now, subject = services.clock(), registration.subject_id
    model = {**_row(models, 1), "major": 1}
    with services.engine.begin() as conn:
        conn.execute(insert(models).values(model))
        conn.execute(
            insert(rounds),
            [
                {**_row(rounds, at), "round_id": at, "model_id": model["model_id"], "status": "completed"}
                for at in range(1, updates + 1)
            ],
        )
    sealed = services.sealer.seal_column
    mine = []
    for at in range(1, updates + 1):
        row = _row(client_updates, at)
        key_id, key = services.sealer.new_blob_key(subject, Retention.PARTICIPATION, row["blob_id"], now)
        with services.blobs.incoming(row["blob_id"], key) as blob:
            blob.write(b"update")
            blob.keep()
        for column in ("training_metrics", "norm", "receipt"):
            place = (subject, Retention.PARTICIPATION, "client_updates", column, row["update_id"])
            row[column] = sealed(*place, "1", now)
        mine.append(row | {"client_id": registration.client_id, "round_id": at, "blob_key": key_id})
    with services.engine.begin() as conn:
        conn.execute(insert(client_updates), mine)
    return subject


def _fill(engine: Engine, tables: list[Table], count: int) -> None:
    """So many rows of nobody's in each table."""
    if not count:
        return
    with engine.connect() as conn:
        conn.exec_driver_sql("ROLLBACK")
        conn.exec_driver_sql("PRAGMA foreign_keys=OFF")
        conn.exec_driver_sql("BEGIN IMMEDIATE")
        for table in tables:
            conn.execute(insert(table), [_row(table, 1_000_000 + at) for at in range(count)])
        conn.commit()
    engine.dispose()


def _row(table: Table, at: int) -> dict[str, Any]:
    """A row with something of the right type in each column."""
    return {column.name: _value(column, at) for column in table.columns}


def _value(column: Any, at: int) -> Any:
    match column.type:
        case Uuid():
            return str(uuid4())
        case UtcDateTime():
            return datetime(2026, 1, 1, tzinfo=UTC)
        case JSON():
            return {"enc": "", "key": uuid4().hex}
        case Boolean():
            return False
        case Float() | Integer():
            return at
        case LargeBinary():
            return os.urandom(32)
        case _:
            return uuid4().hex[: column.type.length or 32]


@contextmanager
def _counted(*engines: Engine) -> Iterator[dict[str, int]]:
    """Count what the engines do; every connection is new, so that none is left out."""
    counted = {"statements": 0, "steps": 0}

    def step() -> None:
        counted["steps"] += _STEP

    def connected(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(step, _STEP)

    def executed(*_: object) -> None:
        counted["statements"] += 1

    for engine in engines:
        engine.dispose()
        event.listen(engine, "connect", connected)
        event.listen(engine, "before_cursor_execute", executed)
    yield counted
    for engine in engines:
        event.remove(engine, "connect", connected)
        event.remove(engine, "before_cursor_execute", executed)
