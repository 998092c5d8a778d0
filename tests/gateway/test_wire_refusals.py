"""Refusals over the wire, beside test_wire_forms.py: what HTTP itself wants of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from living.home import home_in
from living.processes import gateway_in

from gateway.services import Services


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/oauth/token"), ("GET", "/oauth/nothing"), ("DELETE", "/oauth/revoke")]
)
def test_oauth_answers_rfc_6749_json_on_every_path(http: FlaskClient, method: str, path: str) -> None:
    """API.md, Common: `/oauth/*` answers RFC 6749 JSON (`error` a string)."""
    answer = http.open(path, method=method)

    assert answer.status_code in (404, 405)
    assert answer.mimetype == "application/json"
    assert json.loads(answer.data)["error"] == "invalid_request"


def test_a_wrong_method_is_told_the_right_ones(http: FlaskClient) -> None:
    """RFC 9110, section 15.5.6: a 405 has Allow."""
    answer = http.put("/api/v1/rounds")

    assert json.loads(answer.data)["code"] == "METHOD_NOT_ALLOWED"
    assert {"GET", "POST"} <= set(answer.headers["Allow"].split(", "))


def test_a_range_beyond_the_model_is_told_its_size(services: Services, http: FlaskClient) -> None:
    """RFC 9110, section 15.5.17: a 416 has Content-Range."""
    federation = Federation(services, http)
    size = federation.add_model().json["size_bytes"]

    answer = federation.download("1.0.0", Range="bytes=99999-")

    assert answer.json["code"] == "RANGE_NOT_SATISFIABLE"
    assert answer.headers["Content-Range"] == f"bytes */{size}"


@pytest.mark.parametrize(
    ("number", "headers", "reason"),
    [(99, {}, "NOT_FOUND"), (1, {"X-Update-Checksum": ""}, "VALIDATION_FAILED")],
)
def test_every_refused_update_has_its_entry(
    services: Services, http: FlaskClient, entries: Any, number: int, headers: dict[str, str], reason: str
) -> None:
    """Bad input: unknown round 404, and after each refusal one entry."""
    federation = Federation(services, http)
    federation.add_model()
    federation.open_round()

    answer = federation.submit(federation.register(), file_of(tensors(0.5)), number=number, headers=headers)

    (refused,) = entries("update.refused")
    assert refused["details"]["reason"] == answer.json["code"] == reason


def test_a_connection_whose_body_stays_unread_is_said_to_close(tmp_path: Any) -> None:
    """RFC 9112, section 9.6: a client whose large update was refused must not send its next request into it."""
    with home_in(tmp_path / "home", max_update_bytes="100000") as home, gateway_in(home) as gateway:
        headers = gateway.as_role("operator") | {"X-Model-Checksum": "0" * 64}
        for size in (100_001, 300_000, 3_000_000):
            refused = gateway.http.post("/api/v1/models", content=b"x" * size, headers=headers)
            after = gateway.http.get("/health")

            assert (refused.status_code, refused.headers["Connection"]) == (413, "close")
            assert after.status_code == 200
        small: httpx.Response = gateway.http.get("/health")
        assert small.headers["Connection"] == "keep-alive"
