"""`Prefer: wait=N`: who wishes it is answered once its entry is signed, and told where; nobody else waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from federation import Federation
from flask import Flask
from flask.testing import FlaskClient
from living.driver import BARE, Json, tensors
from living.home import home_in
from living.processes import Gateway, gateway_in
from sqlalchemy import text
from werkzeug.test import TestResponse

from audit.crash import CrashPoint
from audit.events import EventType
from audit.following import signed_entries, signed_places, signed_size
from audit.sequencer import Sequencer
from gateway.api.invitations import EXTENSION as POLLS
from gateway.parts.sequencing import sequencer_of
from gateway.preference import preferred_wait_s
from gateway.services import Services
from gateway.storage.bell import Channel

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # where it makes no difference


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation whose log has a signed tree."""
    made = Federation(services, http)
    made.add_model()
    made.sequence()
    return made


@pytest.fixture
def waits(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has an item for each wait of a request: how many connections of the pool are taken meanwhile."""
    bell, pool = federation.services.bell, federation.services.engine.pool
    wait, taken = bell.wait, list[int]()

    def tell(channel: Channel, timeout_s: float) -> bool:
        taken.append(pool.checkedout())  # type: ignore[attr-defined]
        return wait(channel, timeout_s)

    monkeypatch.setattr(bell, "wait", tell)
    return taken


def register(federation: Federation, prefer: str = "wait=10") -> TestResponse:
    """A request that writes one entry."""
    headers = federation.operator | {"Prefer": prefer}
    return federation.http.post("/api/v1/clients/register", json={"device_id": "silo"}, headers=headers)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway as a user starts it, with a model."""
    with home_in(tmp_path_factory.mktemp("preference") / "home") as home, gateway_in(home) as running:
        running.add_model()
        yield running


def entry_at(gateway: Gateway, seq: str) -> Json:
    """The entry at that place, read over HTTP."""
    answer = gateway.http.get(f"/api/v1/audit/entries/{seq}", headers=gateway.as_role("auditor"))
    found: Json = answer.json()
    return found


def test_an_accepted_update_is_in_the_signed_log_when_it_is_answered(gateway: Gateway) -> None:
    """Issue 5: a request can ask to wait for its position; its proof is there at once."""
    number, person = gateway.open_round(BARE), gateway.register()

    sent = gateway.send(person, number, tensors(1), Prefer="wait=10")
    proof = gateway.http.get(f"/api/v1/updates/{sent.json()['update_id']}/receipt", headers=person.headers)

    seq = sent.headers["X-Audit-Seq"]
    entry = entry_at(gateway, seq)
    assert (sent.status_code, sent.headers["Preference-Applied"]) == (202, "wait=10")
    assert (entry["event_type"], entry["seq"]) == ("update.accepted", int(seq))
    assert proof.status_code == 200
    assert f"index {seq}" in proof.text


def test_every_request_that_writes_may_ask(gateway: Gateway) -> None:
    """One place serves all routes: registering, asking the officer; each is told where its own entry stands."""
    person, wait = gateway.register(), {"Prefer": "wait=10"}
    wish = {"type": "access", "subject": {"client_id": person.client_id}}
    asked = {
        "client.registered": ("/api/v1/clients/register", {}, "operator"),
        "privacy.requested": ("/api/v1/privacy/requests", wish, "dpo"),
    }

    for event_type, (path, body, role) in asked.items():
        answer = gateway.http.post(path, json=body, headers=gateway.as_role(role) | wait)

        entries = [entry_at(gateway, seq) for seq in answer.headers["X-Audit-Seq"].split(", ")]
        assert answer.status_code == 201
        assert entries[0]["event_type"] == event_type
        assert [entry["seq"] for entry in entries] == sorted(entry["seq"] for entry in entries)


@ON_SQLITE
def test_nobody_waits_who_did_not_ask(federation: Federation, waits: list[int]) -> None:
    """Without the header a write is answered as ever, with neither of the two headers."""
    answer = federation.http.post("/api/v1/clients/register", json={}, headers=federation.operator)

    assert answer.status_code == 201
    assert not {"Preference-Applied", "X-Audit-Seq"} & set(answer.headers.keys())
    assert waits == []


@ON_SQLITE
def test_the_wait_has_an_end(federation: Federation) -> None:
    """Where nothing is sequenced the answer comes after the time that was asked for, and claims nothing."""
    began = time.monotonic()
    answer = register(federation, "wait=1")
    took_s = time.monotonic() - began

    assert (answer.status_code, "client_id" in answer.json) == (201, True)
    assert not {"Preference-Applied", "X-Audit-Seq"} & set(answer.headers.keys())
    assert 0.9 < took_s < 5


def test_a_place_without_a_signature_is_not_told(federation: Federation) -> None:
    """The position is told once a checkpoint covers it, not before: it could not be proven."""

    class Killed(Exception):
        """Stands for SIGKILL between leaves and signature."""

    def die(_name: str) -> None:
        raise Killed

    with asking(federation, wait_s=2) as answer:
        with pytest.raises(Killed):
            sequencer_with(federation.services, die).run_once()
        unsigned = answer.result()
    with asking(federation, wait_s=10) as answer:
        federation.sequence()
        signed = answer.result()

    assert "X-Audit-Seq" not in unsigned.headers
    assert signed.headers["Preference-Applied"] == "wait=10"


@ON_SQLITE
def test_a_full_pool_fails_no_request(federation: Federation, app: Flask) -> None:
    """RULES 29: without a place to wait in, the request is answered at once, and well."""
    places: threading.BoundedSemaphore = app.extensions[POLLS]
    while places.acquire(blocking=False):
        pass

    began = time.monotonic()
    answer = register(federation)
    took_s = time.monotonic() - began

    assert (answer.status_code, "Preference-Applied" in answer.headers) == (201, False)
    assert took_s < 8


@ON_SQLITE
def test_a_wait_gives_its_place_back(federation: Federation, app: Flask) -> None:
    """Whatever became of it."""
    app.extensions[POLLS] = threading.BoundedSemaphore(1)
    for _ in range(2):
        with asking(federation) as answer:
            federation.sequence()
            assert "X-Audit-Seq" in answer.result().headers


def test_a_waiting_request_holds_no_connection(federation: Federation, waits: list[int]) -> None:
    """A write that waits must not empty the connection pool."""
    register(federation, "wait=2")

    assert set(waits) == {0}


@ON_SQLITE
def test_a_refused_request_does_not_wait(federation: Federation) -> None:
    """A refusal writes an entry too; who is refused takes no place."""
    began = time.monotonic()
    answer = federation.http.post(
        "/api/v1/clients/register", data=b"{", headers=federation.operator | {"Prefer": "wait=10"}
    )
    took_s = time.monotonic() - began

    assert answer.status_code == 415
    assert took_s < 8


@ON_SQLITE
def test_a_database_that_fails_meanwhile_spoils_no_answer(federation: Federation) -> None:
    """The effect is committed: whatever keeps the place from being told, the answer is the one to the effect."""
    with asking(federation, wait_s=10) as answer:
        with federation.services.engine.begin() as conn:
            conn.execute(text("ALTER TABLE audit_pending RENAME TO gone"))
        told = answer.result()
        with federation.services.engine.begin() as conn:
            conn.execute(text("ALTER TABLE gone RENAME TO audit_pending"))

    assert (told.status_code, "Preference-Applied" in told.headers) == (201, False)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        (["wait=7"], 7),
        (["Wait = 7"], 7),
        (['respond-async, wait="7"; x=1'], 7),
        (["respond-async", "wait=7"], 7),
        (["wait=7, wait=1"], 7),
        (["wait=86400"], 10),
        (["wait=0"], 0),
        (["wait=-1"], 0),
        (["wait=soon"], 0),
        (["wait"], 0),
        (["return=minimal"], 0),
        ([], 0),
    ],
)
def test_the_header_is_read_as_rfc_7240_wants(headers: list[str], wait_s: int) -> None:
    """Unknown and malformed preferences are passed over; the first of two counts; ten seconds are the most."""
    assert preferred_wait_s(headers) == wait_s


def test_an_entry_whose_transaction_was_undone_is_not_waited_for(federation: Federation) -> None:
    """Its id is in no table: the place of the others is told."""
    services = federation.services
    undone, kept = (services.trail.draft(EventType.USER_SIGNED_OUT, details={}) for _ in range(2))
    ids = {undone.id, kept.id}
    with services.engine.begin() as conn:
        services.trail.write(conn, kept)

    with services.engine.connect() as conn:
        before = signed_places(conn, ids)
    federation.sequence()

    with services.engine.connect() as conn:
        after, size = signed_places(conn, ids), signed_size(conn)
        assert signed_places(conn, {undone.id}) == []
    assert (before, after) == (None, [size - 1])


def test_only_what_is_covered_is_read(federation: Federation) -> None:
    """Entries behind the newest checkpoint do not exist for who follows the log."""
    services = federation.services
    with services.engine.connect() as conn:
        size = signed_size(conn)
        whole, rest = signed_entries(conn, -1, 1000), signed_entries(conn, size - 2, 1000)
        none, beyond = signed_entries(conn, size - 1, 1000), signed_entries(conn, size + 5, 1000)

    assert [entry.seq for entry in whole] == list(range(size))
    assert ([entry.seq for entry in rest], none, beyond) == ([size - 1], [], [])


def sequencer_with(services: Services, crash: CrashPoint) -> Sequencer:
    """The sequencer of these services, which dies at its crash points."""
    return sequencer_of(replace(services, crash=crash))


@contextmanager
def asking(federation: Federation, *, wait_s: int = 10) -> Iterator[Future[TestResponse]]:
    """A registration in a thread of its own, which has written and is waiting."""
    http = federation.http.application.test_client()
    headers = federation.operator | {"Prefer": f"wait={wait_s}"}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(http.post, "/api/v1/clients/register", json={}, headers=headers)
        await_taken(federation.http.application.extensions[POLLS])
        yield answer


def await_taken(places: threading.BoundedSemaphore) -> None:
    """Until somebody has taken one of these places."""
    deadline = time.monotonic() + 20
    while places._value == places._initial_value:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.01)
