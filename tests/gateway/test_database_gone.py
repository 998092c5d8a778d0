"""A database that goes away while an update is committed: a clear 503, nothing lost, nothing counted twice."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from services import postgresql
from sqlalchemy import Connection, event, select
from sqlalchemy.exc import OperationalError
from werkzeug.test import TestResponse

from audit.draft import Personal
from audit.reading import reading
from audit.tables import audit_pending
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.rounds.recovery import sweep_blobs
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade
from gateway.storage.silence import WatchfulConnection
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


def test_an_update_whose_commit_was_never_answered_is_counted_once(
    services: Services, server: postgresql.PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promises 3 and 7: it was committed, its client heard 503; the same request again gets the first answer."""
    hear, died = WatchfulConnection.end_pipeline, list[int]()

    def die_unheard(self: WatchfulConnection, commands: int) -> None:
        if watched and not died:
            until_s = time.monotonic() + 10
            while federation.kept()["client_updates"] == 0 and time.monotonic() < until_s:
                self.pgconn.flush()
            died.append(federation.kept()["client_updates"])
            with socket.socket(fileno=os.dup(self.fileno())) as wire:
                wait([wire], 10)
                wire.recv(65_536)  # the answer goes astray
            server.stop(crash=True)
        hear(self, commands)

    watched = False
    monkeypatch.setattr(WatchfulConnection, "end_pipeline", die_unheard)
    app = create_app(services)
    federation = Federation(services, app.test_client())
    federation.add_model()
    federation.open_round(planned_clients=1)
    silo, key = federation.register(), {"Idempotency-Key": "once"}
    watched = True

    refused = federation.submit(silo, GOOD, headers=key)
    server.start()
    swept = sweep_blobs(services)
    again = federation.submit(silo, GOOD, headers=key)
    federation.work()
    close_refusals(app)
    with reading(services.engine) as conn:
        told = conn.scalars(select(audit_pending.c.body)).all()

    assert died == [1]
    assert (refused.status_code, refused.json["code"]) == (503, "INSUFFICIENT_RESOURCES")
    assert swept == 0
    assert again.status_code == 202
    assert (federation.round()["status"], federation.round()["num_updates"]) == ("completed", 1)
    assert sum('"update.accepted"' in body for body in told) == 1


COMMIT = "COMMIT, and its entries with it"


def carries_entries(conn: Connection) -> bool:
    """Whether the commit of this transaction takes entries along."""
    own: Any = conn.connection.driver_connection
    return any(statement.startswith("INSERT INTO audit_pending") for statement in own.carried())


NOISED = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}


@pytest.mark.parametrize(
    "moment",
    ["INSERT INTO model_versions", "UPDATE rounds", "UPDATE privacy_ledger", COMMIT],
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

    def at_its_end(conn: Connection) -> None:
        if carries_entries(conn):
            inside(conn, None, COMMIT)

    app = create_app(services)
    federation = Federation(services, app.test_client())
    federation.add_model(privacy_budget={"epsilon": 8.0, "delta": 1e-5})
    federation.open_round(planned_clients=1, privacy=NOISED)
    assert federation.submit(federation.register(), GOOD).status_code == 202
    event.listen(services.engine, "after_cursor_execute", inside)
    event.listen(services.engine, "commit", at_its_end)
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


# The privacy desk

PATH, HOLDS = "/api/v1/privacy/requests", "/api/v1/privacy/holds"


class Desk:
    """Officers at a gateway whose database dies once, inside the transaction of a statement that is named."""

    def __init__(self, services: Services, server: postgresql.PostgreSQL) -> None:
        self.services, self.server = services, server
        self.app = create_app(
            replace(services, config=replace(services.config, public_url="https://g.example"))
        )
        self.http = self.app.test_client()
        self.federation = Federation(services, self.http)
        self.dpo, self.other = self.federation.staff("dpo"), self.federation.staff("dpo")
        self.client_id = self.federation.register("a silo").client_id
        self.moment = ""
        event.listen(services.engine, "after_cursor_execute", self._look)
        event.listen(services.engine, "commit", self._look_at_the_end)

    def die_at(self, moment: str) -> None:
        """Kill the database right after the next statement that begins so, or right before such a COMMIT."""
        self.moment = moment

    def _look(self, _conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.moment and statement.startswith(self.moment):
            self.moment = ""
            self.server.stop(crash=True)

    def _look_at_the_end(self, conn: Connection) -> None:
        if carries_entries(conn):
            self._look(conn, None, COMMIT)

    def received(self, kind: str) -> str:
        """The id of a request that waits for its approval."""
        desk, client = privacy_desk(self.services), ClientBook(self.services).subject_of(self.client_id)
        assert client is not None
        return desk.open(kind, client, requested_by=Personal("system", "test")).id

    def shown(self, case: str) -> dict[str, Any]:
        """The request as the API shows it."""
        found: dict[str, Any] = self.http.get(f"{PATH}/{case}", headers=self.dpo).json
        return found

    def told(self, event_type: str) -> int:
        """How many entries of a type there are."""
        with reading(self.services.engine) as conn:
            bodies = conn.scalars(select(audit_pending.c.body)).all()
        return sum(f'"{event_type}"' in body for body in bodies)

    def refused_once(self, ask: Callable[[], TestResponse], moment: str) -> TestResponse:
        """Ask while the database dies, and start it again; the answer must be a clear 503."""
        self.die_at(moment)
        refused = ask()
        is_dead = not self.moment
        self.server.start()
        assert is_dead, f"no statement begins with {moment}"
        assert refused.status_code == 503, refused.text
        assert refused.headers["Retry-After"]
        return refused


@pytest.fixture
def desk(services: Services, server: postgresql.PostgreSQL) -> Iterator[Desk]:
    """Officers at work."""
    made = Desk(services, server)
    yield made
    close_refusals(made.app)


@pytest.mark.parametrize("moment", ["UPDATE privacy_requests", COMMIT])
def test_a_move_whose_database_is_killed_is_made_once(desk: Desk, moment: str) -> None:
    """Request and entry commit together, or neither: 503, nothing moved, and the same move again is one."""
    case = desk.received("access")
    before = desk.shown(case)

    refused = desk.refused_once(lambda: desk.http.post(f"{PATH}/{case}/take", headers=desk.dpo), moment)
    between, told = desk.shown(case), desk.told("privacy.moved")
    again = desk.http.post(f"{PATH}/{case}/take", headers=desk.dpo)

    assert refused.json["code"] == "INSUFFICIENT_RESOURCES"
    assert (between, told) == (before, 0)
    assert (again.status_code, again.json["is_owned"]) == (200, True)
    assert desk.told("privacy.moved") == 1


@pytest.mark.parametrize("moment", ["UPDATE privacy_holds", COMMIT])
def test_a_release_of_a_hold_whose_database_is_killed_ends_it_once(desk: Desk, moment: str) -> None:
    """503 and the hold stands; the second person's word again ends it, with one entry."""
    wish = {"subject": {"client_id": desk.client_id}, "matter": "7 O 12/26", "basis": "e"}
    ahead = (desk.services.clock() + timedelta(days=90)).isoformat()
    hold = desk.http.post(HOLDS, json={**wish, "review_at": ahead}, headers=desk.dpo).json["id"]
    assert desk.http.delete(f"{HOLDS}/{hold}", headers=desk.dpo).status_code == 202

    desk.refused_once(lambda: desk.http.delete(f"{HOLDS}/{hold}", headers=desk.other), moment)
    between, told = desk.http.get(f"{HOLDS}/{hold}", headers=desk.dpo).json, desk.told("hold.lifted")
    again = desk.http.delete(f"{HOLDS}/{hold}", headers=desk.other)

    assert (between["is_active"], between["release_asked_at"] is None, told) == (True, False, 0)
    assert (again.status_code, again.json["is_active"]) == (200, False)
    assert desk.told("hold.lifted") == 1


@pytest.mark.parametrize("moment", ["UPDATE privacy_requests", "UPDATE subjects", "DELETE FROM clients"])
def test_an_erasure_whose_database_is_killed_ends_with_one_receipt(desk: Desk, moment: str) -> None:
    """503 in the middle of it; approving again sees it through, and nothing of the person is left."""
    case = desk.received("erasure")

    desk.refused_once(lambda: desk.http.post(f"{PATH}/{case}/approve", headers=desk.dpo), moment)
    between = desk.shown(case)
    again = desk.http.post(f"{PATH}/{case}/approve", headers=desk.dpo)
    receipt = desk.http.get(f"{PATH}/{case}/receipt", headers=desk.dpo)

    assert between["status"] in ("received", "approved", "running")
    assert (again.status_code, again.json["status"]) == (200, "completed")
    assert (again.json["has_receipt"], receipt.status_code) == (True, 200)
    assert desk.told("privacy.erased") == 1
    assert ClientBook(desk.services).subject_of(desk.client_id) is None


@pytest.mark.parametrize("moment", ["UPDATE package_links", COMMIT])
def test_a_link_whose_database_is_killed_is_still_good(desk: Desk, moment: str) -> None:
    """503 as a page, nothing used up, no entry of a fetch that was none; the same press again gets the package."""
    case = desk.received("access")
    assert desk.http.post(f"{PATH}/{case}/approve", headers=desk.dpo).json["status"] == "completed"
    url = desk.http.post(f"{PATH}/{case}/link", headers=desk.dpo).json["url"]
    path = url.removeprefix("https://g.example")

    refused = desk.refused_once(lambda: desk.http.post(path, buffered=True), moment)
    told = desk.told("privacy.fetched")
    given, spent = desk.http.post(path, buffered=True), desk.http.post(path)

    assert (refused.mimetype, told) == ("text/html", 0)
    assert (given.status_code, given.mimetype, spent.status_code) == (200, "application/zip", 404)
    assert desk.told("privacy.fetched") == 1
