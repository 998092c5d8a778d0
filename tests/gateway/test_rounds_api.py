"""Rounds: created with a fixed policy and a reservation, ended by count, deadline or close, published at once."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from safetensors.numpy import load
from services.clock import FixedClock

from audit.reading import reading
from compliance.keyring.keys import SeedState
from gateway.rounds.ledger import LineStatus, read_lines
from gateway.services import Services

Entries = Callable[..., list[dict[str, Any]]]
GAUSSIAN = {
    "mechanism": "gaussian",
    "unit": "client",
    "clip_norm": 1.0,
    "noise_multiplier": 4.0,
    "delta": 1e-5,
}


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation without a model."""
    return Federation(services, http)


def test_a_created_round_is_active_and_says_what_it_is(federation: Federation) -> None:
    """DESIGN: a round as the API shows it."""
    model = federation.add_model().json

    answer = federation.open_round(training_config={"epochs": 3})
    current = federation.http.get("/api/v1/rounds/current", headers=federation.operator)

    assert answer.status_code == 201
    assert answer.json["status"] == "active"
    assert answer.json == current.json
    wanted = {"round_number", "status", "global_model", "global_model_url", "training_config", "deadline"}
    assert wanted | {"min_clients", "privacy"} <= set(answer.json)
    assert set(answer.json["global_model"]) == {
        "model_id",
        "version",
        "download_url",
        "checksum",
        "size_bytes",
    }
    assert answer.json["global_model"]["checksum"] == model["checksum"]
    assert answer.json["training_config"] == {"epochs": 3}


def test_without_a_model_there_is_no_round(federation: Federation) -> None:
    """Required: without a model there is no round."""
    answer = federation.open_round()
    current = federation.http.get("/api/v1/rounds/current", headers=federation.operator)

    assert answer.status_code == 404
    assert (current.status_code, current.json["code"]) == (404, "NO_OPEN_ROUND")


def test_a_lineage_has_one_open_round(federation: Federation) -> None:
    """API.md: one open round a lineage, else 409 ROUND_OPEN."""
    federation.add_model()
    federation.open_round()
    before = federation.kept()

    answer = federation.open_round()

    assert (answer.status_code, answer.json["code"]) == (409, "ROUND_OPEN")
    assert federation.kept() == before


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no clients": ({"planned_clients": 0}, "/planned_clients"),
    "more needed than planned": ({"min_clients": 3}, "/min_clients"),
    "a count that is a text": ({"planned_clients": "2"}, "/planned_clients"),
    "a member that is not known": ({"colour": "red"}, "/colour"),
    "a deadline in the past": ({"deadline": "2020-01-01T00:00:00Z"}, "/deadline"),
    "a deadline without a zone": ({"deadline": "2030-01-01T00:00:00"}, "/deadline"),
    "noise without a clipping norm": ({"privacy": GAUSSIAN | {"clip_norm": None}}, "/privacy/clip_norm"),
    "a negative clipping norm": ({"privacy": GAUSSIAN | {"clip_norm": -1.0}}, "/privacy/clip_norm"),
    "epsilon beside a multiplier": ({"privacy": GAUSSIAN | {"epsilon": 1.0}}, "/privacy/epsilon"),
    "unit record without a count": ({"privacy": GAUSSIAN | {"unit": "record"}}, "/privacy/planned_records"),
    "a median under noise": ({"privacy": GAUSSIAN, "aggregation": {"rule": "median"}}, "/aggregation/rule"),
    "a rule that is none": ({"aggregation": {"rule": "mode"}}, "/aggregation/rule"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_value_names_its_member(federation: Federation, what: str) -> None:
    """API.md: 422 VALIDATION_FAILED with `errors: [{pointer, detail}]`; no row, no seed, no reservation."""
    wish, pointer = WRONG[what]
    federation.add_model()
    before = federation.kept()

    answer = federation.open_round(**wish)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")
    assert pointer in [error["pointer"] for error in answer.json["errors"]]
    assert federation.kept() == before


def test_updates_become_the_mean_and_a_new_version(federation: Federation, entries: Entries) -> None:
    """API.md: new model = base + server_lr * sum of deltas / weights; `result_model` beside an unchanged base."""
    federation.add_model(tensors(1.0))
    base = federation.open_round(aggregation={"server_lr": 2.0}).json["global_model"]
    for value in (0.25, 0.75):
        federation.submit(federation.register(), file_of(tensors(value)))

    federation.work()

    done = federation.round()
    assert (done["status"], done["num_updates"], done["global_model"]) == ("completed", 2, base)
    assert done["result_model"]["version"] == "1.1.0"
    body = federation.download("1.1.0").data
    assert np.array_equal(load(body)["weight"], np.full((4, 3), 2.0, np.float32))
    (entry,) = entries("round.completed")
    assert entry["details"]["checksum"] == done["result_model"]["checksum"]


def test_a_release_under_noise_spends_once_and_destroys_its_seed(
    federation: Federation, services: Services, entries: Entries
) -> None:
    """RULES 7, 8: reserved, spent, seed destroyed; epsilon as Balle and Wang (2018) have it at mu = 1/4."""
    model = federation.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5}).json
    federation.open_round(privacy=GAUSSIAN)
    with reading(services.engine) as conn:
        (reserved,) = read_lines(conn, model["model_id"])
    seed_before = services.keystore.seed_state(reserved.ledger_id)
    for value in (0.25, 0.75):
        federation.submit(federation.register(), file_of(tensors(value)))

    federation.work()

    with reading(services.engine) as conn:
        (spent,) = read_lines(conn, model["model_id"])
    assert (reserved.status, spent.status) == (LineStatus.RESERVED, LineStatus.SPENT)
    assert (seed_before, services.keystore.seed_state(spent.ledger_id)) == (
        SeedState.SEALED,
        SeedState.ABSENT,
    )
    assert [one.ledger_id for one in services.state.spends()] == [spent.ledger_id]
    (entry,) = entries("privacy.spent")
    assert float(entry["details"]["epsilon_spent"]) == pytest.approx(0.9263, abs=1e-3)
    assert federation.round()["status"] == "completed"


def test_too_few_updates_fail_the_round_and_give_the_spend_back(
    federation: Federation, services: Services, entries: Entries, clock: FixedClock
) -> None:
    """RULES 6, 8: below min_clients the round fails; the seed was never opened, so the spend is released."""
    model = federation.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5}).json
    federation.open_round(privacy=GAUSSIAN, min_clients=2)
    federation.submit(federation.register(), file_of(tensors(0.5)))

    clock.advance(timedelta(hours=2))
    federation.work()
    federation.operator = federation.staff("operator")  # the first token has expired

    assert (federation.round()["status"], federation.round()["failure"]) == ("failed", "TOO_FEW_UPDATES")
    with reading(services.engine) as conn:
        assert read_lines(conn, model["model_id"]) == []
    assert services.state.spends() == []
    assert services.keystore.seeds() == []
    assert entries("round.failed")[0]["details"]["spend_stays"] is False


def test_a_closed_round_is_aggregated_with_what_came(federation: Federation, entries: Entries) -> None:
    """API.md: a round ends at planned_clients, deadline or close."""
    federation.add_model()
    federation.open_round(planned_clients=5)
    federation.submit(federation.register(), file_of(tensors(0.5)))
    federation.work()
    assert federation.round()["status"] == "active"

    closed = federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)
    again = federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)
    federation.work()

    assert closed.status_code == 202
    assert (again.status_code, again.json["code"]) == (409, "ROUND_EXPIRED")
    assert federation.round()["status"] == "completed"
    assert len(entries("round.closed")) == 1


def test_the_budget_ends_rounds_before_any_noise_is_drawn(federation: Federation, services: Services) -> None:
    """Required: budget exhausted 409 PRIVACY_BUDGET_EXCEEDED and no noise drawn: no seed, no line, no row."""
    federation.add_model(privacy_budget={"epsilon": 0.5, "delta": 1e-5})
    before = federation.kept()

    answer = federation.open_round(privacy=GAUSSIAN)
    without_noise = federation.open_round()

    assert (answer.status_code, answer.json["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")
    assert (without_noise.status_code, without_noise.json["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")
    assert federation.kept() == before
    assert services.state.spends() == []


def test_the_same_request_again_gets_the_first_round(federation: Federation) -> None:
    """API.md: Idempotency-Key on every POST that creates."""
    federation.add_model()
    wish = {"planned_clients": 2, "min_clients": 1, "privacy": {"mechanism": "none"}}
    headers = {**federation.operator, "Idempotency-Key": "round-1"}

    first = federation.http.post("/api/v1/rounds", json=wish, headers=headers)
    again = federation.http.post("/api/v1/rounds", json=wish, headers=headers)
    other = federation.http.post("/api/v1/rounds", json=wish | {"min_clients": 2}, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    assert (other.status_code, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert federation.kept()["rounds"] == 1


def test_the_list_has_the_current_round_beside_it(federation: Federation) -> None:
    """DESIGN: `GET /api/v1/rounds` answers the list with a member `current` beside it; pages as API.md says."""
    federation.add_model()
    for _ in range(3):
        federation.open_round()
        federation.submit(federation.register(), file_of(tensors(0.5)))
        federation.http.post("/api/v1/rounds/current", headers=federation.operator)
        number = federation.http.get("/api/v1/rounds/current", headers=federation.operator).json[
            "round_number"
        ]
        federation.http.post(f"/api/v1/rounds/{number}/close", headers=federation.operator)
        federation.work()
    federation.open_round()

    answer = federation.http.get("/api/v1/rounds?page=2&per_page=2", headers=federation.operator).json

    assert [one["round_number"] for one in answer["data"]] == [2, 1]
    assert answer["current"]["round_number"] == 4
    assert answer["pagination"] == {"page": 2, "per_page": 2, "total_pages": 2, "total_items": 4}
    assert answer["links"]["next"] is None
    assert answer["links"]["prev"] == "/api/v1/rounds?page=1&per_page=2"
    assert set(answer["links"]) == {"first", "prev", "next", "last"}


@pytest.mark.parametrize("query", ["page=0", "per_page=201", "page=x", "page=-1", "page=1e3"])
def test_a_wrong_page_is_refused(federation: Federation, query: str) -> None:
    """API.md: per_page at most 200; bad values are 422."""
    answer = federation.http.get(f"/api/v1/rounds?{query}", headers=federation.operator)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")


def test_clients_of_the_published_sdk_get_camel_case(federation: Federation) -> None:
    """DESIGN: camelCase is answered to a request that carries X-WIA-Platform; free-form objects stay."""
    federation.add_model()
    federation.open_round(training_config={"local_epochs": 3})
    silo = federation.register()

    answer = federation.http.get(
        "/api/v1/rounds/current", headers={**silo.headers, "X-WIA-Platform": "typescript"}
    ).json

    assert answer["globalModel"]["downloadUrl"].endswith("/api/v1/models/1.0.0")
    assert len(answer["globalModel"]["checksum"]) == 64
    assert answer["trainingConfig"] == {"local_epochs": 3}


def test_promoting_an_earlier_version_rolls_back(federation: Federation, entries: Entries) -> None:
    """Required: `model promote VERSION` rolls back: the next round builds on it, and versions go on."""
    federation.add_model()
    for _ in range(2):
        federation.open_round(planned_clients=1)
        number = federation.http.get("/api/v1/rounds/current", headers=federation.operator).json[
            "round_number"
        ]
        federation.submit(federation.register(), file_of(tensors(0.5)), number=number)
        federation.work()

    promoted = federation.http.post("/api/v1/models/1.0.0/promote", headers=federation.operator)
    opened = federation.open_round(planned_clients=1).json
    federation.submit(federation.register(), file_of(tensors(0.5)), number=3)
    federation.work()

    assert promoted.json["version"] == "1.0.0"
    assert opened["global_model"]["version"] == "1.0.0"
    assert federation.round(3)["result_model"]["version"] == "1.3.0"
    assert entries("model.promoted")[0]["details"]["model_version"] == "1.0.0"
