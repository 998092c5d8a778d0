"""Models: registered once, served as uploaded, with ETag and Range (RFC 9110)."""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient

from gateway.config import Config
from gateway.services import Services

Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway that takes small bodies only."""
    from dataclasses import replace

    return replace(config, max_update_bytes=100_000)


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation without a model."""
    return Federation(services, http)


def test_a_model_is_served_as_it_was_uploaded(federation: Federation, entries: Entries) -> None:
    """API.md: 201 {model_id, version, checksum, size_bytes}; ETag is the quoted checksum."""
    body = file_of(tensors(0.25))

    made = federation.add_model(tensors(0.25))
    got = federation.download("1.0.0", **federation.register().headers)

    assert made.status_code == 201
    assert set(made.json) == {"model_id", "version", "checksum", "size_bytes"}
    assert (made.json["version"], made.json["size_bytes"]) == ("1.0.0", len(body))
    assert got.data == body
    assert got.headers["ETag"] == f'"{sha256(body).hexdigest()}"'
    assert got.headers["X-Model-Checksum"] == sha256(body).hexdigest()
    assert got.headers["X-Model-Version"] == "1.0.0"
    assert len(entries("model.published")) == len(entries("model.downloaded")) == 1


def test_a_part_of_a_model_can_be_asked_for(federation: Federation) -> None:
    """DESIGN: Range and conditional requests."""
    body = file_of(tensors(0.25))
    federation.add_model(tensors(0.25))

    part = federation.download("1.0.0", Range="bytes=8-15")
    beyond = federation.download("1.0.0", Range="bytes=999999-")
    unchanged = federation.download("1.0.0", If_None_Match=f'"{sha256(body).hexdigest()}"')

    assert (part.status_code, part.data) == (206, body[8:16])
    assert part.headers["Content-Range"] == f"bytes 8-15/{len(body)}"
    assert (beyond.status_code, beyond.json["code"]) == (416, "RANGE_NOT_SATISFIABLE")
    assert (unchanged.status_code, unchanged.data) == (304, b"")


@pytest.mark.parametrize("version", ["9.9.9", "..%2F..%2Fkeys", "1.0", "x" * 300])
def test_an_unknown_version_is_not_found(federation: Federation, version: str) -> None:
    """No path leads out of the store."""
    federation.add_model()

    answer = federation.http.get(f"/api/v1/models/{version}", headers=federation.operator)

    assert answer.status_code == 404


def test_a_model_too_large_is_refused_by_its_length(federation: Federation) -> None:
    """API.md: 413 PAYLOAD_TOO_LARGE from Content-Length alone."""
    before = federation.kept()

    answer = federation.add_model({"weight": np.zeros(100_000, np.float32)})

    assert (answer.status_code, answer.json["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert federation.kept() == before


BAD: dict[str, tuple[bytes, dict[str, str], str]] = {
    "no checksum": (file_of(tensors()), {"X-Model-Checksum": ""}, "VALIDATION_FAILED"),
    "another checksum": (file_of(tensors()), {"X-Model-Checksum": "0" * 64}, "CHECKSUM_MISMATCH"),
    "no model": (b"hello", {}, "INVALID_MODEL_FORMAT"),
    "integers alone": (file_of({"steps": np.zeros(3, np.int64)}), {}, "INVALID_MODEL_FORMAT"),
    "a budget below zero": (
        file_of(tensors()),
        {"X-Model-Metadata": json.dumps({"privacy_budget": {"epsilon": -1.0, "delta": 1e-5}})},
        "VALIDATION_FAILED",
    ),
    "a budget of NaN": (
        file_of(tensors()),
        {"X-Model-Metadata": '{"privacy_budget": {"epsilon": NaN, "delta": 1e-5}}'},
        "VALIDATION_FAILED",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_model_leaves_nothing(federation: Federation, what: str) -> None:
    """Promise 7."""
    body, headers, code = BAD[what]
    before = federation.kept()
    good = {"X-Model-Checksum": sha256(body).hexdigest()}

    answer = federation.http.post(
        "/api/v1/models", data=body, headers={**federation.operator, **good, **headers}
    )

    assert (answer.status_code, answer.json["code"]) == (422, code)
    assert federation.kept() == before


def test_the_list_pages_through_the_versions(federation: Federation) -> None:
    """API.md: lists answer data, pagination, links; a second lineage's versions start at 2.0.0."""
    federation.add_model()
    federation.add_model(tensors(0.5))

    answer = federation.http.get("/api/v1/models?per_page=1", headers=federation.operator).json

    assert [one["version"] for one in answer["data"]] == ["2.0.0"]
    assert answer["pagination"]["total_items"] == 2
    assert answer["links"]["next"] == "/api/v1/models?per_page=1&page=2"


def test_the_same_upload_again_gets_the_first_answer(federation: Federation) -> None:
    """API.md: Idempotency-Key on every POST that creates."""
    body = file_of(tensors())
    headers = {
        **federation.operator,
        "X-Model-Checksum": sha256(body).hexdigest(),
        "Idempotency-Key": "first model",
    }

    first = federation.http.post("/api/v1/models", data=body, headers=headers)
    again = federation.http.post("/api/v1/models", data=body, headers=headers)

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    assert federation.kept()["models"] == 1
