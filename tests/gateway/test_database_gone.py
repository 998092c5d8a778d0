"""A database that goes away while an update is committed: a clear 503, nothing lost, nothing counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from services import postgresql
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from audit.reading import reading
from audit.tables import audit_pending
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.rounds.recovery import sweep_blobs
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade
from gateway.tables import model_versions, privacy_ledger

GOOD = file_of(tensors(0.5))


@pytest.fixture
def server() -> Iterator[postgresql.PostgreSQL]:
    """A PostgreSQL of this test's own, which it may kill."""
    with postgresql.running() as running:
        yield running


@pytest.fixture
def services(server: postgresql.PostgreSQL, tmp_path: Path) -> Iterator[Services]:
    """The gateway's stores, the main database on that server."""
    config = Config(
        database_url=server.url(server.create_database()),
        keystore_url=f"sqlite:///{tmp_path / 'keys' / 'subjects.db'}",
        blob_url=f"file:{tmp_path / 'blobs'}",
        state_url=f"file:{tmp_path / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
        blob_grace_s=0.0,
        evaluate_timeout_s=0.0,
    )
    opened = open_services(config, part="console")
    upgrade(opened.engine, "main")
    upgrade(opened.keystore_engine, "keystore")
    yield opened
    opened.close()


@pytest.mark.parametrize("moment", ["before the transaction", "inside the transaction"])
def test_an_update_whose_database_is_killed_can_be_sent_again(
    services: Services, server: postgresql.PostgreSQL, moment: str
) -> None:
    """Promises 3 and 7: 503 with Retry-After, no half-written row; the same request again is counted once."""
    killed: list[str] = []

    def kill(when: str) -> None:
        if when == moment and not killed:
            killed.append(when)
            server.stop(crash=True)

    def inside(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO client_updates"):
            kill("inside the transaction")

    event.listen(services.engine, "after_cursor_execute", inside)
    watched = replace(
        services, crash=lambda point: kill("before the transaction") if point == "update.blob" else None
    )
    app = create_app(watched)
    federation = Federation(watched, app.test_client())
    federation.add_model()
    federation.open_round(planned_clients=1)
    silo, key = federation.register(), {"Idempotency-Key": "once"}
    before = federation.kept()

    refused = federation.submit(silo, GOOD, headers=key)
    server.start()
    after = federation.kept()
    swept = sweep_blobs(watched)
    again = federation.submit(silo, GOOD, headers=key)
    federation.work()
    close_refusals(app)

    assert killed == [moment]
    assert (refused.status_code, refused.json["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert refused.headers["Retry-After"]
    assert after == before | {
        "files": before["files"] + 1
    }  # nobody knows if it was committed: the sweep decides
    assert swept == 1
    assert again.status_code == 202
    assert (federation.round()["status"], federation.round()["num_updates"]) == ("completed", 1)


NOISED = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}


@pytest.mark.parametrize(
    "moment",
    ["INSERT INTO model_versions", "UPDATE rounds", "UPDATE privacy_ledger", "INSERT INTO audit_pending"],
)
def test_a_release_whose_database_is_killed_is_carried_out_once(
    services: Services, server: postgresql.PostgreSQL, moment: str
) -> None:
    """Promises 3 and 4: inside of a release's transaction nothing is published; later it is, and is paid for once."""
    killed: list[str] = []

    def inside(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not killed and statement.startswith("INSERT INTO model_versions"):
            killed.append("publishing")
        if killed == ["publishing"] and statement.startswith(moment):
            killed.append(moment)
            server.stop(crash=True)

    app = create_app(services)
    federation = Federation(services, app.test_client())
    federation.add_model(privacy_budget={"epsilon": 8.0, "delta": 1e-5})
    federation.open_round(planned_clients=1, privacy=NOISED)
    assert federation.submit(federation.register(), GOOD).status_code == 202
    event.listen(services.engine, "after_cursor_execute", inside)
    with pytest.raises(OperationalError):
        federation.work()
    server.start()
    during = federation.round()
    for _ in range(3):
        federation.work()
    close_refusals(app)
    with reading(services.engine) as conn:
        versions = conn.scalars(select(model_versions.c.round_number)).all()
        lines = conn.scalars(select(privacy_ledger.c.status)).all()
        told = conn.scalars(select(audit_pending.c.body)).all()

    assert killed == ["publishing", moment]
    assert during["status"] == "aggregating"
    assert (federation.round()["status"], federation.round()["num_updates"]) == ("completed", 1)
    assert sorted(versions, key=str) == [1, None]
    assert lines == ["spent"]
    assert sum("round.completed" in body for body in told) == 1
