"""The gateway's schedule: updates with their files, invitations, clients that are gone; daily, dry by default."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import Table, func, select

from audit.reading import reading
from compliance.keeping.retention import Over, Retention
from compliance.keeping.terms import Term
from gateway.app import create_app
from gateway.config import Config
from gateway.doctor.examination import examine
from gateway.errors import ConfigError
from gateway.privacy import desk_parts, privacy_desk
from gateway.retention import DailyRetention, kinds, retention, schedule_shown, terms_of
from gateway.services import Services
from gateway.tables import client_updates, clients, invitations, tokens

UPDATE = file_of(tensors(0.5))
HUNDRED_DAYS = timedelta(days=100)


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model."""
    made = Federation(services, http)
    made.add_model()
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """A client whose update went into a round that ended."""
    found = federation.register("a silo")
    federation.http.get("/api/v1/rounds", headers=found.headers)  # so that it was seen, and may be chosen
    federation.open_round(planned_clients=1, selection={"strategy": "random", "seen_within_s": 3600})
    federation.work()
    assert federation.submit(found, UPDATE).status_code == 202
    federation.work()
    assert federation.round()["status"] == "completed"
    return found


def _scheduled(services: Services, text: str, *, applies: bool = True) -> Services:
    return replace(services, config=replace(services.config, retention=text, retention_apply=applies))


def _pass(federation: Federation, clock: FixedClock) -> None:
    """A hundred days go by: the log is up to date, and the operator's old token has ended."""
    federation.sequence()
    clock.advance(HUNDRED_DAYS)
    federation.operator = federation.staff("operator")


def _run(services: Services, text: str) -> list[Over]:
    return retention(_scheduled(services, text), desk_parts(services)).run()


def _count(services: Services, table: Table) -> int:
    with reading(services.engine) as conn:
        return conn.scalar(select(func.count()).select_from(table)) or 0


def _blobs(services: Services) -> set[str]:
    return {blob.name for blob in services.blobs.stored()}


def test_updates_run_out_with_their_files(federation: Federation, silo: Silo, clock: FixedClock) -> None:
    """Issue: an update whose round ended long ago goes, row and file; one of an open round stays."""
    services = federation.services
    models = _blobs(services)
    with reading(services.engine) as conn:
        file = conn.scalar(select(client_updates.c.blob_id))
    assert file in models
    _pass(federation, clock)
    federation.open_round()
    assert federation.submit(federation.register("another"), UPDATE, number=2).status_code == 202

    assert [over.rows for over in _run(services, "updates=101d")] == [0]
    assert [over.rows for over in _run(services, "updates=99d")] == [1]

    assert file not in _blobs(services)
    with reading(services.engine) as conn:
        assert conn.scalar(select(client_updates.c.blob_id)) in _blobs(services)


def test_a_client_goes_last_and_only_when_nothing_of_it_is_left(
    federation: Federation, silo: Silo, clock: FixedClock
) -> None:
    """Issue: devices that are gone; the staff's clients stay, and a client that came back lately."""
    services = federation.services
    _pass(federation, clock)
    fresh = federation.register("fresh")
    schedule = "updates=90d;invitations=90d;clients=90d"

    first = {over.category: over.rows for over in _run(services, "updates=90d;invitations=99d;clients=101d")}
    assert first == {"updates": 1, "invitations": 1, "clients": 0}
    assert {over.category: over.rows for over in _run(services, schedule)}["clients"] == 1

    with reading(services.engine) as conn:
        left = set(conn.execute(select(clients.c.client_id)).scalars())
        let_in = set(conn.execute(select(tokens.c.client_id)).scalars())
    assert silo.client_id not in left | let_in
    assert fresh.client_id in left
    assert len(left) == 3  # and the operators
    assert _count(services, invitations) == 0


def test_a_hold_keeps_updates_and_lets_invitations_go(
    federation: Federation, silo: Silo, clock: FixedClock
) -> None:
    """Issue: legal holds block retention, place by place."""
    services = federation.services
    dpo = federation.staff("dpo")
    wish: dict[str, Any] = {
        "subject": {"client_id": silo.client_id},
        "matter": "a claim",
        "basis": "e",
        "review_at": (clock() + 4 * HUNDRED_DAYS).isoformat(),
        "scope": ["client_updates"],
    }
    assert federation.http.post("/api/v1/privacy/holds", json=wish, headers=dpo).status_code == 201
    clock.advance(HUNDRED_DAYS)

    found = _run(services, "updates=90d;invitations=90d")

    assert [(over.category, over.rows, over.kept_back) for over in found] == [
        ("updates", 0, 1),
        ("invitations", 1, 0),
    ]


def test_the_daily_run_is_dry_until_it_is_told_to_apply(
    federation: Federation, silo: Silo, clock: FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Issue: dry run first; FLG_RETENTION_APPLY lets it remove, once a day, names of nobody in the log file."""
    services = federation.services
    clock.advance(HUNDRED_DAYS)
    dry = DailyRetention(_scheduled(services, "updates=90d", applies=False), desk_parts(services))
    wet = DailyRetention(_scheduled(services, "updates=90d"), desk_parts(services))

    with caplog.at_level(logging.INFO, "gateway.retention"):
        dry.run_pending()
        assert _count(services, client_updates) == 1
        wet.run_pending()
        wet.run_pending()  # not again on the same day

    assert _count(services, client_updates) == 0
    assert [record.message for record in caplog.records] == [
        "updates: 1 older than 2026-12-04 would be removed",
        "updates: 1 older than 2026-12-04 removed",
    ]
    assert silo.client_id not in caplog.text


def test_without_a_schedule_nothing_runs_out(federation: Federation, silo: Silo, clock: FixedClock) -> None:
    """The default: everything is kept until its person is erased, or you say for how long."""
    clock.advance(50 * HUNDRED_DAYS)

    assert retention(federation.services, desk_parts(federation.services)).run() == []

    assert _count(federation.services, client_updates) == 1
    assert federation.services.config.retention_apply is False
    assert silo.client_id


@pytest.mark.parametrize(
    "text", ["updates=x", "clients=90d", "requests=90d", "clients=90d;updates=30d;invitations=91d"]
)
def test_a_schedule_that_contradicts_itself_keeps_the_gateway_from_starting(
    services: Services, text: str
) -> None:
    """Issue: minimum and maximum terms are checked against each other, at the start and by the doctor."""
    wrong = _scheduled(services, text)

    with pytest.raises(ConfigError, match="FLG_RETENTION"):
        create_app(wrong)
    with pytest.raises(ConfigError, match="FLG_RETENTION"):
        DailyRetention(wrong, desk_parts(services))


@pytest.mark.parametrize(("text", "is_good"), [("", True), ("updates=90d", True), ("requests=1d", False)])
def test_the_doctor_looks_at_the_schedule(tmp_path: Any, text: str, is_good: bool) -> None:
    """House rule: every setting has a check."""
    finding = next(
        one
        for one in examine(Config(retention=text, state_url=f"file:{tmp_path}"))
        if one.name == "retention"
    )

    assert finding.is_good == is_good


def test_every_kind_lies_in_a_place_that_a_hold_can_name(services: Services) -> None:
    """A hold that could not keep a kind of data would be an empty promise."""
    places = privacy_desk(services).holds.names

    assert {kind.place for kind in kinds()} <= set(places)
    assert [line["category"] for line in schedule_shown("")] == [kind.name for kind in kinds()]
    assert all(terms_of(f"{kind.name}=9999d;updates=9999d;invitations=9999d") for kind in kinds()[2:])


def test_one_run_clears_what_refers_to_others_first(
    federation: Federation, silo: Silo, clock: FixedClock
) -> None:
    """A client whose updates go in this run goes in it too; what counts is what is left when its turn comes."""
    services = federation.services
    clock.advance(timedelta(seconds=1))
    everything = Retention(
        desk_parts(services), kinds(services), {kind.name: Term(timedelta(0)) for kind in kinds()}
    )

    found = {over.category: over.rows for over in everything.look()}
    ran = {over.category: over.rows for over in everything.run()}

    assert found == {"updates": 1, "invitations": 1, "clients": 0, "requests": 0, "holds": 0}
    assert ran == found | {"clients": 1}
    assert silo.client_id
