"""What is told: the desk's alarms, budgets near their end, sinks that lag, certificates that nobody renewed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from compliance.parts import DeskAlarm
from gateway.config import Config
from gateway.notices import NoticeKind, notice_of_alarm
from gateway.notices.watching import Watch
from gateway.privacy import desk_parts
from gateway.services import Services
from gateway.tables import notices

GAUSSIAN = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """Settings with somebody to tell; nothing is sent here."""
    told = "smtp://localhost:25?from=gateway@fl.example&to=ops@fl.example"
    sink = f"file:{tmp_path / 'siem.jsonl'}"
    return replace(config, notices=told, siem_sinks=sink, certificates_dir=str(tmp_path / "certificates"))


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation without a model."""
    return Federation(services, http)


def filed(services: Services) -> list[tuple[str, str]]:
    with services.engine.connect() as conn:
        found = conn.execute(select(notices.c.kind, notices.c.text).order_by(notices.c.created_at)).all()
        return [(row.kind, row.text) for row in found]


def test_an_alarm_of_the_desk_becomes_a_notice_that_names_the_case_alone(services: Services) -> None:
    """`parts.notify`, in the transaction that raises the alarm; the same alarm twice is one notice."""
    alarm = DeskAlarm(str(uuid4()), "days_left_5", datetime(2026, 12, 24, 23, 59, tzinfo=UTC))
    parts = desk_parts(services)
    for _ in range(2):
        with services.engine.begin() as conn:
            parts.notify(conn, alarm)

    ((kind, text),) = filed(services)

    assert kind == "deadline"
    assert text == (
        f"The privacy request {alarm.case_id} has five days left. Its term ends on 2026-12-24 23:59 UTC. "
        "Answer it, or extend it with a reason."
    )


def test_an_alarm_without_words_of_its_own_is_told_by_its_name() -> None:
    """A new alarm is not lost for want of a sentence; a hold's review is a hold's."""
    at = datetime(2026, 12, 24, tzinfo=UTC)

    unknown = notice_of_alarm(DeskAlarm("1", "odd", at))
    hold = notice_of_alarm(DeskAlarm("2", "review_overdue", at))

    assert "raised the alarm odd" in unknown.text
    assert (hold.kind, hold.subject_line) == (NoticeKind.HOLD, "A legal hold is overdue for its review")
    assert "Its review was due on 2026-12-24" in hold.text


def test_a_budget_at_eighty_percent_is_told_once(federation: Federation, services: Services) -> None:
    """Issue 7: budget at 80 %; what is reserved counts, and a raise of the same share says nothing new."""
    federation.add_model(privacy_budget={"epsilon": 1.5, "delta": 1e-5})
    watch = Watch(services)
    watch.look()
    before = filed(services)
    federation.open_round(privacy=GAUSSIAN, planned_clients=1)
    federation.submit(federation.register(), file_of(tensors(0.5)))
    federation.work()
    watch.look()
    low = filed(services)
    federation.open_round(privacy=GAUSSIAN, planned_clients=1)

    watch.look()
    Watch(services).look()

    assert (before, low) == ([], [])
    ((kind, text),) = filed(services)
    assert kind == "budget"
    assert "has spent epsilon 1.3" in text
    assert "of 1.5" in text


def test_a_budget_is_told_although_the_database_did_not_answer_at_first(
    federation: Federation, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cause counts as known once its notice is filed, not before: an outage loses nothing."""
    federation.add_model(privacy_budget={"epsilon": 1.5, "delta": 1e-5})
    for _ in range(2):
        federation.open_round(privacy=GAUSSIAN, planned_clients=1)
        federation.submit(federation.register(), file_of(tensors(0.5)))
        federation.work()
    watch = Watch(services)
    with monkeypatch.context() as outage:
        outage.setattr(services.engine, "begin", _away)
        with pytest.raises(OperationalError):
            watch.look()

    filed_later = watch.look()

    assert filed_later == 1
    assert [kind for kind, _ in filed(services)] == ["budget"]


def test_a_sink_that_lags_is_told_once_a_day(
    federation: Federation, services: Services, clock: FixedClock
) -> None:
    """By the age of the next entry for it, not by a number of entries."""
    federation.register()
    federation.sequence()
    watch = Watch(services)
    clock.advance(timedelta(seconds=services.config.notices_siem_lag_s - 1))
    soon = watch.look()
    clock.advance(timedelta(seconds=2))

    late = watch.look()
    clock.advance(timedelta(minutes=1))
    again = Watch(services).look()
    clock.advance(timedelta(days=1))
    next_day = watch.look()

    assert (soon, late, again, next_day) == (0, 1, 0, 1)
    assert {kind for kind, _ in filed(services)} == {"siem_lag"}
    assert "fl-gateway siem status" in filed(services)[0][1]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("days_left", "life_days", "told"),
    [(31, 90, 0), (29.5, 90, 0), (28, 90, 1), (13, 90, 1), (-1, 90, 1), (4, 6, 0), (0.9, 6, 1), (14, 40, 0)],
)
def test_a_certificate_that_nobody_renewed_is_told(
    services: Services, config: Config, clock: FixedClock, days_left: float, life_days: int, told: int
) -> None:
    """At 30 days (a day after its renewal was due), 14 and 7; one of a short life in its last sixth."""
    write_certificate(Path(config.certificates_dir), clock() + timedelta(days=days_left), life_days)

    found = Watch(services).look()

    assert found == told


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_each_step_of_a_certificate_is_told_once(
    services: Services, config: Config, clock: FixedClock
) -> None:
    """Three steps, three notices, however often it is looked at."""
    write_certificate(Path(config.certificates_dir), clock() + timedelta(days=40), 90)
    seen: list[int] = []
    for _ in range(40):
        seen += [Watch(services).look(), Watch(services).look()]
        clock.advance(timedelta(days=1))

    assert sum(seen) == 3
    assert "fl.example.com" in filed(services)[0][1]


def _away() -> None:
    raise OperationalError("", {}, OSError("the database does not answer"))


def write_certificate(folder: Path, ends: datetime, life_days: int) -> None:
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    names = x509.SubjectAlternativeName([x509.DNSName("fl.example.com")])
    built = x509.CertificateBuilder(name, name, key.public_key(), 7).add_extension(names, critical=True)
    built = built.not_valid_before(ends - timedelta(days=life_days)).not_valid_after(ends)
    for part in ("renewal", "live/fl.example.com"):
        (folder / "config" / part).mkdir(parents=True)
    (folder / "config" / "renewal" / "fl.example.com.conf").touch()
    pem = built.sign(key, SHA256()).public_bytes(Encoding.PEM)
    (folder / "config" / "live" / "fl.example.com" / "cert.pem").write_bytes(pem)
