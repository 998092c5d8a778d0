"""Refusals are entries, a flood of them few, and no word of the caller stands in clear (RULES 16, 25)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select

from audit.events import EventType
from audit.tables import audit_pending
from compliance.subjects import mark_erasing
from gateway.auth.refusals import Kind, Refusals, flush_refusals, network_of
from gateway.services import Services
from gateway.tables import clients

CLIENTS = "/api/v1/clients"
Entries = Callable[..., list]


def test_a_flood_of_refusals_is_twenty_entries_and_a_count(
    http: FlaskClient, app: Flask, entries: Entries
) -> None:
    """RULES 25: the first 20 a minute are single, the rest one counted entry at the next flush."""
    for _ in range(57):
        assert http.get(CLIENTS).status_code == 401
    single = entries("access.refused")

    written = flush_refusals(app)

    counted = entries("access.refused")[20:]
    assert len(single) == 20
    assert written == 37
    assert [entry["details"]["count"] for entry in counted] == [37]
    assert counted[0]["details"]["reason"] == "UNAUTHORIZED"
    assert counted[0]["details"]["network"] == "127.0.0.0/24"
    assert "network" in counted[0]["sealed"]
    assert flush_refusals(app) == 0


def test_another_reason_or_network_is_not_drowned(http: FlaskClient, entries: Entries) -> None:
    """A flood from one network leaves the refusals of others visible one by one."""
    for _ in range(25):
        http.get(CLIENTS)

    http.get(CLIENTS, environ_base={"REMOTE_ADDR": "198.51.100.9"})
    http.post("/oauth/token", data={"grant_type": "client_credentials"})

    assert len(entries("access.refused")) == 21
    assert len(entries("token.refused")) == 1


def test_the_next_minute_begins_with_single_entries_again(
    http: FlaskClient, clock: FixedClock, entries: Entries
) -> None:
    """The twenty are of each minute."""
    for _ in range(21):
        http.get(CLIENTS)
    clock.advance(timedelta(minutes=1))

    http.get(CLIENTS)

    assert len(entries("access.refused")) == 21


def test_what_a_caller_says_of_itself_is_sealed(
    http: FlaskClient, services: Services, entries: Entries
) -> None:
    """RULES 16: request id, trace, user agent and unknown path are the caller's words."""
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    http.get(
        CLIENTS,
        headers={"User-Agent": "canary-agent", "X-Request-ID": "canary-id", "traceparent": trace},
    )
    http.post("/canary-path", headers={"Authorization": "Bearer canary-token"})

    with services.engine.connect() as conn:
        bodies = conn.execute(select(audit_pending.c.body)).scalars().all()
    (entry,) = entries("access.refused")
    assert (entry["details"]["user_agent"], entry["details"]["client_request_id"]) == (
        "canary-agent",
        "canary-id",
    )
    assert entry["details"]["client_trace"] == trace
    assert "canary" not in "".join(bodies)
    assert "a" * 32 not in "".join(bodies)


def test_a_refusal_of_somebody_who_is_being_erased_is_written_without_them(
    http: FlaskClient, services: Services, token_for: Callable[..., str], entries: Entries
) -> None:
    """RULES 18 and 25: the refusal stays an entry, sealed as of nobody."""
    headers = {"Authorization": f"Bearer {token_for('participant')}", "User-Agent": "agent"}
    http.get(CLIENTS, headers=headers)
    subject_id = _subject_of(services)
    with services.engine.begin() as conn:
        mark_erasing(conn, subject_id)

    answer = http.get(CLIENTS, headers=headers)

    assert answer.status_code == 403
    before, after = entries("access.refused")
    assert before["actor"]["role"] == "participant"
    assert (after["actor"], after["details"]["user_agent"]) == ("unproven", "agent")


def test_a_refusal_is_answered_though_it_cannot_be_written(
    http: FlaskClient,
    services: Services,
    app: Flask,
    entries: Entries,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A failing entry never hides the refusal: it is logged, and counted once the database is back."""
    audit_pending_name = audit_pending.name
    with services.engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE {audit_pending_name} RENAME TO away")

    answer = http.get(CLIENTS)

    with services.engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE away RENAME TO {audit_pending_name}")
    assert answer.status_code == 401
    assert "a refusal is counted only" in caplog.text
    assert flush_refusals(app) == 1
    (entry,) = entries("access.refused")
    assert entry["details"]["count"] == 1


def test_counts_that_cannot_be_written_take_a_bounded_memory(
    services: Services, clock: FixedClock, entries: Entries
) -> None:
    """A flood from ever new networks, while the database is away for minutes, is folded together."""
    desk = Refusals(services, most=3)
    with services.engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE {audit_pending.name} RENAME TO away")

    for number in range(8):
        desk.record(Kind(EventType.ACCESS_REFUSED, "UNAUTHORIZED", 401, f"2001:db8:{number}::/64"), dict)
        clock.advance(timedelta(seconds=61))

    with services.engine.begin() as conn:
        conn.exec_driver_sql(f"ALTER TABLE away RENAME TO {audit_pending.name}")
    desk.close()
    assert sorted(entry["details"]["count"] for entry in entries("access.refused")) == [1, 1, 1, 5]


def test_refusals_from_ever_new_networks_are_one_count(services: Services, entries: Entries) -> None:
    """RULES 25: a flood within one window, each from a network of its own, fills the log no faster than one network."""
    desk = Refusals(services, most=3)
    for number in range(40):
        desk.record(Kind(EventType.ACCESS_REFUSED, "UNAUTHORIZED", 401, f"2001:db8:{number}::/64"), dict)
    singles = len(entries("access.refused"))
    desk.close()

    assert singles == 3 + 20  # those that are told apart, and the first of the many
    assert [entry["details"].get("count") for entry in entries("access.refused")[singles:]] == [17]


def test_an_upload_that_is_turned_away_is_a_refused_update(http: FlaskClient, entries: Entries) -> None:
    """API.md: update.refused, with the route's template and never the path in clear."""
    http.post("/api/v1/rounds/7/updates", data=b"x")

    (entry,) = entries("update.refused")
    assert "<" in entry["details"]["route"]
    assert "7" not in json.dumps(entry["details"]["route"])


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.77", "192.0.2.0/24"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.77", "192.0.2.0/24"),
        ("", "unknown"),
        ("not an address", "unknown"),
    ],
)
def test_addresses_are_counted_by_network(address: str, network: str) -> None:
    """RULES 25: /24 of IPv4, /64 of IPv6."""
    assert network_of(address) == network


def _subject_of(services: Services) -> str:
    with services.engine.connect() as conn:
        return str(conn.execute(select(clients.c.subject_id)).scalar_one())
