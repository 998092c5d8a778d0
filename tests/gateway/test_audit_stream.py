"""The log as server-sent events: over real HTTP, with clients that come again, vanish, or lose their token."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from federation import Federation
from flask import Flask
from flask.testing import FlaskClient
from living.home import home_in
from living.processes import Gateway, gateway_in
from living.served import Headers, assert_problem, eventually
from services.clock import FixedClock
from sqlalchemy import select, text
from werkzeug.test import TestResponse

from audit.crash import CrashPoint
from audit.sequencer import Sequencer
from gateway.api.stream import EXTENSION, Streams
from gateway.auth.clients import Move, NewClient, move_client
from gateway.parts.sequencing import sequencer_of
from gateway.services import Services
from gateway.storage.bell import Channel
from gateway.tables import clients

URL = "/api/v1/audit/stream"
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # where it makes no difference


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event, as the standard's parser reads it."""

    id: str
    event: str
    data: str

    @property
    def seq(self) -> int:
        return int(self.id)


def events_in(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream (WHATWG HTML, 9.2.6), comments and `retry` left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["id"], fields["event"], fields["data"])
            fields = {}


@contextmanager
def streaming(gateway: Gateway, headers: Headers, query: str = "", **more: str) -> Iterator[Iterator[Event]]:
    """A client of its own that reads the stream; it has vanished after the block."""
    with (
        httpx.Client(base_url=gateway.http.base_url, timeout=20, trust_env=False) as http,
        http.stream(
            "GET", URL + query, headers=headers | {k.replace("_", "-"): v for k, v in more.items()}
        ) as said,
    ):
        assert said.status_code == 200, said.read()
        assert said.headers["Content-Type"].partition(";")[0] == "text/event-stream"
        yield events_in(said.iter_lines())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway as a user starts it."""
    with home_in(tmp_path_factory.mktemp("streams") / "home") as home, gateway_in(home) as running:
        yield running


def bearer(gateway: Gateway, client: NewClient) -> Headers:
    """The credentials of a client."""
    form, secret = {"grant_type": "client_credentials"}, (client.client_id, client.client_secret)
    answer = gateway.http.post("/oauth/token", data=form, auth=secret)
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def reader(gateway: Gateway) -> Headers:
    """The credentials of a new client that may read the log."""
    return bearer(gateway, gateway.client_add("siem"))


def status_of(gateway: Gateway, headers: Headers) -> int:
    """What a further stream is answered."""
    with gateway.http.stream("GET", URL, headers=headers) as said:
        return said.status_code


def test_a_client_that_comes_again_misses_nothing_and_gets_nothing_twice(gateway: Gateway) -> None:
    """Issue 5: `Last-Event-ID` goes on behind the last event that was read; each is the entry as stored."""
    auditor = gateway.as_role("auditor")
    gateway.register()

    with streaming(gateway, auditor) as events:
        read = [next(events) for _ in range(3)]
    for _ in range(3):
        gateway.register()
    with streaming(gateway, auditor, Last_Event_ID=read[-1].id) as events:
        read += [next(events) for _ in range(4)]

    listed = gateway.http.get("/api/v1/audit/entries?limit=1000", headers=auditor).json()["data"]
    assert [event.seq for event in read] == list(range(7))
    assert {event.event for event in read} == {"entry"}
    assert [json.loads(event.data) for event in read] == listed[:7]


def test_an_entry_arrives_soon_after_it_happened(gateway: Gateway) -> None:
    """A SIEM that fetches is told in a moment, without asking again."""
    auditor = gateway.as_role("auditor")
    newest = gateway.http.get("/api/v1/audit/entries?limit=1000", headers=auditor).json()["data"][-1]["seq"]

    with streaming(gateway, auditor, f"?after={newest}") as events:
        began = time.monotonic()
        gateway.register()
        event = next(one for one in events if json.loads(one.data)["event_type"] == "client.registered")
        took_s = time.monotonic() - began

    assert event.seq > newest
    assert took_s < 8


def opened(gateway: Gateway, headers: Headers) -> socket.socket | None:
    """The connection of a stream that has begun, if there was a place; an entry shows who has vanished."""
    address = urlsplit(str(gateway.http.base_url))
    lines = [f"GET {URL} HTTP/1.1", "Host: fl", *(f"{name}: {value}" for name, value in headers.items())]
    peer = socket.create_connection((address.hostname or "", address.port or 0))
    peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    if peer.recv(15).startswith(b"HTTP/1.1 200"):
        return peer
    peer.close()
    gateway.register()
    return None


def test_a_client_that_vanishes_frees_its_place(gateway: Gateway) -> None:
    """RULES 29: streams have places; beyond them 503 with Retry-After, and who is gone keeps none."""
    readers = [reader(gateway) for _ in range(4)]
    peers = [eventually(partial(opened, gateway, headers)) for headers in readers[:3]]

    refused = gateway.http.get(URL, headers=readers[3])
    small = gateway.http.get("/health")
    for peer in peers:
        peer.close()
    eventually(lambda: gateway.register() and status_of(gateway, readers[3]) == 200)

    assert_problem(refused, 503, "INSUFFICIENT_RESOURCES")
    assert int(refused.headers["Retry-After"]) > 0
    assert small.status_code == 200


def test_a_client_s_newer_stream_ends_its_earlier_one(gateway: Gateway) -> None:
    """RULES 29: no client takes several places, and whose connection broke unseen comes in again at once."""
    headers = reader(gateway)

    with streaming(gateway, headers, "?after=1000000") as earlier:
        statuses = {status_of(gateway, headers) for _ in range(5)}
        rest = list(earlier)

    assert (statuses, rest) == ({200}, [])


def test_a_revoked_token_ends_the_stream(gateway: Gateway) -> None:
    """A stream lives no longer than the right to read it."""
    client = gateway.client_add("siem")
    headers = bearer(gateway, client)
    token = headers["Authorization"].removeprefix("Bearer ")

    with streaming(gateway, headers, "?after=1000000") as events:
        revoked = gateway.http.post(
            "/oauth/revoke", data={"token": token}, auth=(client.client_id, client.client_secret)
        )
        began = time.monotonic()
        rest = list(events)
        took_s = time.monotonic() - began

    assert (revoked.status_code, rest) == (200, [])
    assert took_s < 8


def test_a_stop_does_not_wait_for_streams(tmp_path: Path) -> None:
    """An open stream ends when the server is told to stop, and does not hold it for gunicorn's ten seconds."""
    with (
        home_in(tmp_path / "home") as home,
        gateway_in(home) as gateway,
        gateway.http.stream("GET", URL, headers=gateway.as_role("auditor")) as said,
    ):
        lines = said.iter_lines()
        next(lines)
        began = time.monotonic()
        assert gateway._process is not None
        gateway._process.send_signal(signal.SIGTERM)
        list(lines)
        took_s = time.monotonic() - began

    assert took_s < 8


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with some entries in a signed tree."""
    made = Federation(services, http)
    made.register()
    made.sequence()
    return made


def hurry(app: Flask, **other: float) -> Streams:
    """Short times for the streams of this application."""
    rules = replace(app.extensions[EXTENSION], **({"longest_s": 0.6, "heartbeat_s": 0.1} | other))
    app.extensions[EXTENSION] = rules
    return rules


def await_taken(places: threading.BoundedSemaphore) -> None:
    """Until somebody has taken one of these places."""
    deadline = time.monotonic() + 20
    while places._value == places._initial_value:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def whole(federation: Federation, headers: Headers, query: str = "") -> str:
    """All that a stream says until it ends by itself."""
    answer = federation.http.get(URL + query, headers=headers, buffered=True)
    assert answer.status_code == 200, answer.text
    return answer.text


@ON_SQLITE
def test_a_stream_beats_and_ends_by_itself(federation: Federation, app: Flask) -> None:
    """Comments show that it lives; after its time it ends, and its place is free."""
    auditor, rules = federation.staff("auditor"), hurry(app, longest_s=3.0)
    federation.sequence()

    said = whole(federation, auditor)

    seqs = [event.seq for event in events_in(iter(said.splitlines()))]
    assert said.startswith(": the log, entry by entry\nretry: 1000\n\n")
    assert said.count(": still there") >= 2
    assert seqs == list(range(len(seqs)))
    assert rules.places._value == rules.places._initial_value  # type: ignore[attr-defined]


def test_what_no_checkpoint_covers_is_not_told(federation: Federation, app: Flask) -> None:
    """Issue 5: nothing is streamed that could not be proven; the rest comes once it is signed."""
    auditor, services = federation.staff("auditor"), federation.services
    hurry(app)
    federation.sequence()
    before = whole(federation, auditor)
    federation.register()

    class Killed(Exception):
        """Stands for SIGKILL between leaves and signature."""

    def die(_name: str) -> None:
        raise Killed

    with pytest.raises(Killed):
        sequencer_with(services, die).run_once()
    unsigned = whole(federation, auditor)
    federation.sequence()

    def seqs(said: str) -> int:
        return len(list(events_in(iter(said.splitlines()))))

    assert seqs(unsigned) == seqs(before)
    assert seqs(whole(federation, auditor)) > seqs(before)


def sequencer_with(services: Services, crash: CrashPoint) -> Sequencer:
    """The sequencer of these services, which dies at its crash points."""
    return sequencer_of(replace(services, crash=crash))


def test_a_waiting_stream_holds_no_connection(
    federation: Federation, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent readers must not empty the connection pool."""
    auditor, rules, bell = federation.staff("auditor"), hurry(app, longest_s=60.0), federation.services.bell
    pool, wait, held = federation.services.engine.pool, bell.wait, list[int]()

    def tell(channel: Channel, timeout_s: float) -> bool:
        held.append(pool.checkedout())  # type: ignore[attr-defined]
        if len(held) == 10:
            rules.is_ending.set()
        return wait(channel, timeout_s)

    monkeypatch.setattr(bell, "wait", tell)
    whole(federation, auditor)

    assert held == [0] * 10


def write_as_gunicorn(answer: TestResponse, connection: socket.socket) -> None:
    """Send an answer piece by piece, and close it whatever happens."""
    try:
        for piece in answer.response:
            connection.sendall(piece)  # type: ignore[arg-type]
    finally:
        answer.close()


@ON_SQLITE
def test_a_reader_that_stops_reading_loses_its_place(federation: Federation, app: Flask) -> None:
    """RULES 29: written as gunicorn writes, a stream that nobody reads ends, whatever its token is good for."""
    rules = hurry(app, longest_s=60.0, unread_s=0.3)
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    headers = federation.staff("auditor")

    with ours, theirs:
        answer = federation.http.get(URL, headers=headers, environ_overrides={"gunicorn.socket": ours})
        with pytest.raises(TimeoutError):
            write_as_gunicorn(answer, ours)

    assert rules.places._value == rules.places._initial_value  # type: ignore[attr-defined]


@ON_SQLITE
@pytest.mark.parametrize("end", ["expiry", "suspension"])
def test_a_stream_ends_with_its_token(
    federation: Federation, app: Flask, clock: FixedClock, end: str
) -> None:
    """The token is looked at again and again: expired, or its client suspended, the stream is over."""
    silo = federation.staff("siem")
    rules, told = hurry(app, longest_s=60.0), list[str]()
    reading = threading.Thread(target=lambda: told.append(whole(federation, silo)))
    reading.start()
    await_taken(rules.places)

    if end == "expiry":
        clock.advance(timedelta(seconds=federation.services.config.token_ttl_s + 1))
    else:
        with federation.services.engine.connect() as conn:
            client_id = conn.execute(select(clients.c.client_id).where(clients.c.role == "siem")).scalar_one()
        move_client(federation.services, client_id, Move.SUSPEND)
    reading.join(10)

    assert not reading.is_alive()
    assert len(told) == 1


@ON_SQLITE
def test_a_database_that_goes_away_ends_the_stream_in_order(
    federation: Federation, app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    """The client comes again when it is back; the server's log names the kind of the failure and no value."""
    auditor, rules, told = federation.staff("auditor"), hurry(app, longest_s=60.0), list[str]()
    reading = threading.Thread(target=lambda: told.append(whole(federation, auditor)))
    reading.start()
    await_taken(rules.places)

    with federation.services.engine.begin() as conn:
        conn.execute(text("ALTER TABLE audit_checkpoints RENAME TO gone"))
    reading.join(20)

    assert (reading.is_alive(), len(told)) == (False, 1)
    assert "a stream of the log ends" in caplog.text
    assert auditor["Authorization"].removeprefix("Bearer ") not in caplog.text


@ON_SQLITE
def test_a_spoilt_entry_cannot_pose_as_an_event(federation: Federation, app: Flask) -> None:
    """Who writes line breaks into a row of the log makes no events of his own by it."""
    auditor, forged = federation.staff("auditor"), '{"seq":0}\n\nid: 77\nevent: entry\ndata: {"forged":true}'
    hurry(app, longest_s=0.2)
    with federation.services.engine.begin() as conn:
        conn.execute(text("DROP TRIGGER audit_log_no_update"))
        conn.execute(text("UPDATE audit_log SET canonical = :forged WHERE seq = 0"), {"forged": forged})

    first, *rest = whole(federation, auditor).split("\n\n")[1:]

    assert first.startswith("id: 0\nevent: entry\ndata: ")
    assert all(line.startswith(("id: 0", "event: entry", "data: ")) for line in first.splitlines())
    assert not any(piece.startswith("id: 77") for piece in rest)


@ON_SQLITE
@pytest.mark.parametrize(
    ("headers", "query", "first"),
    [
        ({}, "", 0),
        ({}, "?after=0", 1),
        ({"Last-Event-ID": "1"}, "?after=0", 2),
        ({"Last-Event-ID": ""}, "", 0),
    ],
)
def test_the_last_event_id_counts_before_the_address(
    federation: Federation, app: Flask, headers: Headers, query: str, first: int
) -> None:
    """A browser's EventSource comes again to the same URL, and says in the header where it was."""
    auditor = federation.staff("auditor") | headers
    hurry(app, longest_s=0.2)
    federation.sequence()

    said = whole(federation, auditor, query)

    assert next(events_in(iter(said.splitlines()))).seq == first


@ON_SQLITE
@pytest.mark.parametrize(
    ("headers", "query", "pointer"),
    [
        ({"Last-Event-ID": "x"}, "", "Last-Event-ID"),
        ({"Last-Event-ID": "-1"}, "", "Last-Event-ID"),
        ({"Last-Event-ID": "9" * 40}, "", "Last-Event-ID"),
        ({"Last-Event-ID": "0" * 20 + "9" * 30}, "", "Last-Event-ID"),
        ({"Last-Event-ID": "0" * 20 + "9" * 5000}, "", "Last-Event-ID"),
        ({}, "?after=x", "?after"),
    ],
)
def test_a_place_that_is_none_is_refused(
    federation: Federation, headers: Headers, query: str, pointer: str
) -> None:
    """422, which names what is wrong; and no place was taken for it."""
    answer = federation.http.get(URL + query, headers=federation.staff("auditor") | headers)

    assert (answer.status_code, answer.json["errors"][0]["pointer"]) == (422, pointer)


@ON_SQLITE
def test_the_stream_is_for_those_who_may_read_the_log(federation: Federation) -> None:
    """DESIGN: audit:read."""
    refused = federation.http.get(URL, headers=federation.register().headers)
    nobody = federation.http.get(URL)

    assert (refused.status_code, nobody.status_code) == (403, 401)


@ON_SQLITE
def test_the_api_document_tells_of_streams_and_waits(http: FlaskClient) -> None:
    """OpenAPI: the medium and the parameters of the stream, and `Prefer` on every request that writes."""
    paths = http.get("/api/v1/openapi.json").json["paths"]
    names = {
        (path, method): {one["name"] for one in operation["parameters"]}
        for path, methods in paths.items()
        for method, operation in methods.items()
    }

    assert list(paths[URL]["get"]["responses"]["200"]["content"]) == ["text/event-stream"]
    assert names[URL, "get"] == {"after", "Last-Event-ID"}
    assert {method for (_, method), found in names.items() if "Prefer" in found} == {
        method for _, method in names if method != "get"
    }
