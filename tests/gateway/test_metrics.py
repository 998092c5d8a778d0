"""`/metrics`: what Prometheus reads is what the database says, shown to the addresses of `FLG_METRICS` alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread

import pytest
from federation import Federation, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from services.clock import FixedClock
from services.prometheus import complaints, prometheus
from sqlalchemy import event
from werkzeug.serving import make_server

from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.metrics import parse_readers
from gateway.services import Services

once_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
GAUSSIAN = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """Settings with one sink."""
    return replace(config, siem_sinks=f"file:{tmp_path / 'siem.jsonl'}")


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation that completed one round with noise."""
    made = Federation(services, http)
    made.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5})
    made.open_round(privacy=GAUSSIAN, planned_clients=1)
    made.submit(made.register(), file_of(tensors(0.5)))
    made.work()
    return made


def measured(http: FlaskClient) -> dict[tuple[str, ...], float]:
    answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_the_measures_are_those_of_the_database(
    federation: Federation, http: FlaskClient, clock: FixedClock, config: Config
) -> None:
    """DESIGN, metrics: rounds, clients, epsilon, the log, its lag, and each sink's."""
    before = measured(http)
    entries = federation.sequence()
    federation.register()
    clock.advance(timedelta(seconds=5))
    (model,) = federation.http.get("/api/v1/models", headers=federation.operator).json["data"][:1]

    after = measured(http)

    assert before[("fl_audit_entries_total",)] == 0
    assert after[("fl_audit_entries_total",)] == entries
    assert after[("fl_siem_lag_entries", config.siem_sinks)] == entries
    assert (after[("fl_rounds_total",)], after[("fl_active_clients",)]) == (1, 1)  # one never came
    assert after[("fl_audit_sequencer_lag_seconds",)] == 5
    assert after[("fl_privacy_epsilon_budget", model["model_id"])] == 3.0
    assert after[("fl_privacy_epsilon_spent", model["model_id"])] == pytest.approx(0.9263, abs=1e-3)


@once_only
@pytest.mark.usefixtures("federation")
def test_a_client_that_was_long_away_is_not_active(http: FlaskClient, clock: FixedClock) -> None:
    """Active is who was here within the hour."""
    now = measured(http)
    clock.advance(timedelta(hours=1, seconds=1))

    later = measured(http)

    assert (now[("fl_active_clients",)], later[("fl_active_clients",)]) == (1, 0)


@once_only
def test_a_scrape_costs_a_fixed_number_of_statements(
    federation: Federation, http: FlaskClient, services: Services
) -> None:
    """Cheap whatever the tables hold: more rounds, clients and entries cost no more statements."""
    statements: list[str] = []
    event.listen(services.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    measured(http)
    statements.clear()
    measured(http)
    few = len(statements)
    for number in (2, 3):
        federation.open_round(privacy=GAUSSIAN | {"noise_multiplier": 9.0}, planned_clients=1)
        federation.submit(federation.register(), file_of(tensors(0.5)), number=number)
        federation.work()
    federation.sequence()
    measured(http)
    statements.clear()

    measured(http)

    assert len(statements) == few
    assert few == 8  # the accountant is not asked again


@once_only
def test_a_model_without_a_claim_has_infinite_epsilon(services: Services, http: FlaskClient) -> None:
    """A release without noise: no finite number would be true."""
    federation = Federation(services, http)
    federation.add_model()
    federation.open_round(planned_clients=1)
    federation.submit(federation.register(), file_of(tensors(0.5)))
    federation.work()

    spent = [value for name, value in measured(http).items() if name[0] == "fl_privacy_epsilon_spent"]

    assert spent == [float("inf")]


@once_only
def test_both_forms_are_well_formed(federation: Federation, http: FlaskClient) -> None:
    """promtool finds nothing to say; OpenMetrics for who asks for it; odd wishes do no harm."""
    federation.sequence()
    plain = http.get("/metrics", headers={"Accept": "text/plain;version=odd;escaping=odd"})
    asked = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    openmetrics = http.get("/metrics", headers=asked)

    assert complaints(plain.text) == ""
    assert plain.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics.content_type.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(openmetrics.text)} >= {
        "fl_rounds",
        "fl_active_clients",
    }


@once_only
def test_a_real_prometheus_reads_them(federation: Federation, app: Flask, tmp_path: Path) -> None:
    """Issue 7's neighbours: monitoring as operators have it."""
    entries = federation.sequence()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        with prometheus(tmp_path, f"127.0.0.1:{server.server_port}") as reader:
            found = reader.await_value("fl_audit_entries_total")
            lag = reader.await_value("fl_siem_lag_entries")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

    assert float(found["value"][1]) == entries
    assert lag["metric"]["sink"].startswith("file:")


# Who may read


@once_only
@pytest.mark.parametrize(
    ("setting", "front", "peer", "headers", "status"),
    [
        ("loopback", "false", "127.0.0.1", {}, 200),
        ("loopback", "false", "::1", {}, 200),
        ("loopback", "false", "203.0.113.9", {}, 404),
        ("loopback", "false", "127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 404),
        ("loopback", "false", "127.0.0.1", {"Forwarded": "for=203.0.113.9"}, 404),
        ("loopback", "false", "127.0.0.1", {"X-Real-IP": "203.0.113.9"}, 404),
        ("loopback", "false", "127.0.0.1", {"Via": "1.1 proxy.example"}, 404),
        ("loopback", "false", "127.0.0.1", {"X-Forwarded-Proto": "https"}, 404),
        ("loopback", "true", "127.0.0.1", {"X-Forwarded-For": "203.0.113.9"}, 404),
        ("loopback", "true", "127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 200),
        ("10.1.0.0/16,fd00::/64", "false", "10.1.2.3", {}, 200),
        ("10.1.0.0/16,fd00::/64", "false", "::ffff:10.1.2.3", {}, 200),
        ("10.1.0.0/16", "false", "10.2.0.1", {}, 404),
        ("10.1.0.0/16", "false", "127.0.0.1", {}, 404),
        ("public", "false", "203.0.113.9", {"X-Forwarded-For": "198.51.100.1"}, 200),
        ("off", "false", "127.0.0.1", {}, 404),
        ("loopback", "true", "", {}, 404),
    ],
)
def test_measures_are_shown_to_the_set_addresses_alone(
    services: Services, setting: str, front: str, peer: str, headers: dict[str, str], status: int
) -> None:
    """DESIGN: no token, so its own network rule; a proxy that nobody trusts passes no stranger on."""
    config = replace(services.config, metrics=setting, trusted_proxy=front)

    with _application(replace(services, config=config)) as http:
        answer = http.get("/metrics", headers=headers, environ_overrides={"REMOTE_ADDR": peer})

    assert answer.status_code == status


@pytest.mark.parametrize("text", ["", "everybody", "10.0.0.0/40", "10.0.0.1/8", "loopback,10.0.0.0/8"])
def test_a_wrong_setting_is_refused(text: str) -> None:
    """At the start, by its name."""
    with pytest.raises(ConfigError, match="FLG_METRICS"):
        parse_readers(text)


@contextmanager
def _application(services: Services) -> Iterator[FlaskClient]:
    app = create_app(services)
    yield app.test_client()
    close_refusals(app)
