"""The OpenAPI document, made from the code: it has every route, and what routes answer is as it says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from federation import Federation, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from gateway.services import Services

SPECIFIED = {
    "/api/v1/clients/register": {"post": "client:register"},
    "/api/v1/clients": {"get": "client:manage"},
    "/api/v1/clients/{client_id}": {"get": "client:manage", "delete": "client:manage"},
    "/api/v1/rounds": {"get": "training:participate", "post": "round:manage"},
    "/api/v1/rounds/current": {"get": "training:participate"},
    "/api/v1/rounds/{round_number}": {"get": "training:participate"},
    "/api/v1/rounds/{round_number}/close": {"post": "round:manage"},
    "/api/v1/rounds/{round_number}/updates": {"post": "training:participate"},
    "/api/v1/updates/{update_id}": {"get": "training:participate"},
    "/api/v1/updates/{update_id}/receipt": {"get": "training:participate"},
    "/api/v1/models": {"get": "model:download", "post": "round:manage"},
    "/api/v1/models/{version}": {"get": "model:download"},
    "/api/v1/models/{version}/promote": {"post": "round:manage"},
    "/api/v1/audit/entries": {"get": "audit:read"},
    "/api/v1/audit/checkpoint": {"get": "audit:read"},
    "/api/v1/audit/proof/inclusion": {"get": "audit:read"},
    "/api/v1/audit/proof/consistency": {"get": "audit:read"},
    "/api/v1/audit/bundle": {"get": "audit:read"},
    "/tlog/checkpoint": {"get": "audit:read"},
    "/tlog/tile/{kind}/{rest}": {"get": "audit:read"},
    "/api/v1/privacy/requests": {"post": "privacy:erase"},
    "/api/v1/privacy/requests/{case_id}/package": {"get": "privacy:export"},
    "/api/v1/privacy/requests/{case_id}/receipt": {"get": "privacy:erase"},
    "/api/v1/privacy/budget": {"get": "audit:read"},
    "/api/v1/privacy/report/{version}": {"get": "privacy:export"},
    "/oauth/token": {"post": None},
    "/oauth/revoke": {"post": None},
    "/oauth/introspect": {"post": None},
    "/health": {"get": None},
    "/ready": {"get": None},
    "/metrics": {"get": None},
    "/api/v1/privacy/records": {"get": "privacy:export"},
}


@pytest.fixture
def document(http: FlaskClient) -> dict[str, Any]:
    """The document as it is served."""
    found: dict[str, Any] = http.get("/api/v1/openapi.json").json
    return found


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    """OpenAPI 3.1."""
    validate(document)

    assert document["openapi"].startswith("3.1")


def test_each_number_of_a_query_is_read(
    services: Services, http: FlaskClient, document: dict[str, Any]
) -> None:
    """What is no whole number is refused by its name; a page's number and size are among what lists take."""
    federation = Federation(services, http)
    federation.add_model()
    federation.sequence()
    callers = [federation.staff(role) for role in ("operator", "auditor", "dpo")]
    callers.append(federation.register().headers)
    asked = {
        (path, parameter["name"])
        for path, methods in document["paths"].items()
        for parameter in methods.get("get", {}).get("parameters", [])
        if parameter["in"] == "query"
    }

    for path, name in asked:
        answers = [http.get(path, query_string={name: "none"}, headers=headers) for headers in callers]
        refused = {answer.json["errors"][0]["pointer"] for answer in answers if answer.status_code == 422}
        assert refused == {f"?{name}"}, path
    assert {("/api/v1/rounds", "page"), ("/api/v1/audit/entries", "per_page")} < asked
    assert {("/api/v1/invitations", "wait"), ("/api/v1/audit/proof/inclusion", "size")} < asked


def test_every_specified_route_is_there_with_its_scope(document: dict[str, Any]) -> None:
    """DESIGN's table of HTTP routes, as far as this version carries them out."""
    for path, methods in SPECIFIED.items():
        for method, scope in methods.items():
            security = document["paths"][path][method]["security"]
            scopes = [wanted for one in security for wanted in one.get("bearer", [])]
            assert (scope in scopes) if scope else not scopes, (path, method, security)


def test_every_route_is_described(app: Flask, document: dict[str, Any]) -> None:
    """No route of the application is missing from the document."""
    described = {path.replace("{", "<").replace("}", ">") for path in document["paths"]}
    kinds = re.compile(r"<(int|uuid|path):")
    served = {kinds.sub("<", rule.rule) for rule in app.url_map.iter_rules()}

    assert served - described <= {
        "/.well-known/oauth-authorization-server",
        "/.well-known/oauth-protected-resource",
        "/.well-known/jwks.json",
    }


def test_what_routes_answer_is_what_the_document_says(
    services: Services, http: FlaskClient, document: dict[str, Any]
) -> None:
    """Each JSON answer of a small training run validates against its schema."""
    federation = Federation(services, http)
    silo = None
    answers = [("post", "/api/v1/models", federation.add_model())]
    answers.append(("post", "/api/v1/rounds", federation.open_round(planned_clients=1)))
    silo = federation.register()
    sent = federation.submit(silo, file_of(tensors(0.5)))
    answers.append(("post", "/api/v1/rounds/{round_number}/updates", sent))
    federation.work()
    federation.sequence()
    dpo, auditor = federation.staff("dpo"), federation.staff("auditor")
    own = f"/api/v1/updates/{sent.json['update_id']}"
    wish = {"type": "access", "subject": {"client_id": silo.client_id}}
    asked = {
        "/api/v1/rounds": http.get("/api/v1/rounds", headers=federation.operator),
        "/api/v1/rounds/{round_number}": http.get("/api/v1/rounds/1", headers=federation.operator),
        "/api/v1/models": http.get("/api/v1/models", headers=federation.operator),
        "/api/v1/updates/{update_id}": http.get(own, headers=silo.headers),
        "/api/v1/clients": http.get("/api/v1/clients", headers=federation.operator),
        "/api/v1/audit/entries": http.get("/api/v1/audit/entries", headers=auditor),
        "/api/v1/audit/proof/inclusion": http.get("/api/v1/audit/proof/inclusion?seq=1", headers=auditor),
        "/api/v1/privacy/budget": http.get("/api/v1/privacy/budget", headers=auditor),
        "/health": http.get("/health"),
        "/ready": http.get("/ready"),
    }
    answers += [("get", path, answer) for path, answer in asked.items()]
    answers.append(
        ("post", "/api/v1/privacy/requests", http.post("/api/v1/privacy/requests", json=wish, headers=dpo))
    )

    for method, path, answer in answers:
        described = document["paths"][path][method]["responses"][str(answer.status_code)]
        schema = described["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        assert list(Draft202012Validator(whole).iter_errors(json.loads(answer.data))) == []


def test_a_refusal_is_a_problem_document(http: FlaskClient, document: dict[str, Any]) -> None:
    """RFC 9457, and API.md's members; `error.request_id` equals the answered X-Request-ID."""
    mine = "0a2f3f0e-58d5-4c1c-a3b5-2f7a3c1f9b11"

    answer = http.get("/api/v1/rounds", headers={"X-Request-ID": mine})
    strange = http.get("/api/v1/rounds", headers={"X-Request-ID": "Robert'); DROP TABLE"})
    unknown = http.get("/api/v1/nothing")

    schema = {**document["components"]["schemas"]["Problem"]}
    for one in (answer, strange, unknown):
        Draft202012Validator(schema).validate(one.json)
        assert one.mimetype == "application/problem+json"
        assert one.json["error"]["request_id"] == one.headers["X-Request-ID"]
    assert answer.headers["X-Request-ID"] == mine
    assert "Robert" not in strange.headers["X-Request-ID"]
    assert "Bearer" in answer.headers["WWW-Authenticate"]
