"""What goes over the wire, as API.md and DESIGN.md say it: a real `fl-gateway serve`, plain HTTP, real commands."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest
from living.served import (
    GAUSSIAN,
    Served,
    assert_problem,
    checksum,
    jws_part,
    update_of,
)


def test_the_published_typescript_client_takes_part(served: Served) -> None:
    """DESIGN: it sends X-WIA-Platform and camelCase, reads camelCase, and shows error.message; no signature."""
    added = json.loads(served.command("client", "add", "app", "--role", "participant", "--json").stdout)
    served.ask_round(training_config={"local_epochs": 5})
    node = {"X-WIA-Platform": "node", "Content-Type": "application/json"}
    device = {"deviceId": "d-1", "platform": "node", "capabilities": {"maxModelSizeMB": 500, "share": 0.5}}

    registered = served.http.post(
        "/api/v1/clients/register",
        json=device,
        headers=node | {"Authorization": f"Bearer {added['api_key']}"},
    )
    mine = node | {"Authorization": f"Bearer {registered.json()['registrationToken']}"}
    round_ = served.http.get("/api/v1/rounds/current", headers=mine).json()
    model = served.http.get(round_["globalModel"]["downloadUrl"], headers=mine)
    said = {"trainingMetrics": {"localLoss": 0.25}, "privacy": {"differentialPrivacy": {"epsilon": 1.0}}}
    more = {"Content-Type": "application/octet-stream", "X-Update-Metadata": json.dumps(said)}
    sent = served.send(round_["roundNumber"], mine | more)
    again = served.send(round_["roundNumber"], mine | more)

    assert set(registered.json()) == {"clientId", "registrationToken", "expiresAt"}
    assert checksum(model.content) == round_["globalModel"]["checksum"]
    assert set(round_["aggregation"]) == {"rule", "weights", "weightCap", "serverLr"}
    assert round_["trainingConfig"] == {"local_epochs": 5}  # a free-form object keeps its names
    assert sent.status_code == 202
    assert set(sent.json()) == {"updateId", "status", "receipt", "estimatedAggregationTime"}
    assert jws_part(sent.json()["receipt"], 1)["body_hash"] == checksum(update_of())  # and so does a receipt
    assert again.json()["error"]["message"]


@pytest.mark.parametrize("role", ["edge", "siem"])
def test_client_add_prints_what_the_role_has(served: Served, role: str) -> None:
    """DESIGN: `{client_id, client_secret, api_key?}`; the key carries client:register only."""
    added = json.loads(served.command("client", "add", "it", "--role", role, "--json").stdout)

    keys = {"client_id", "client_secret"} | ({"api_key"} if role == "edge" else set())
    assert set(added) == keys
    if role == "edge":
        key = {"Authorization": f"Bearer {added['api_key']}"}
        registered = [
            served.http.post("/api/v1/clients/register", json={}, headers=key).json()["client_id"]
            for _ in "ab"
        ]
        assert len(set(registered)) == 2  # each register makes a client of its own
        assert_problem(served.http.get("/api/v1/rounds", headers=key), 403, "INSUFFICIENT_SCOPE")


def test_tokens_are_issued_asked_about_and_revoked(served: Served) -> None:
    """RFC 6749, 7662, 7009 and API.md: basic or post, no scope gets all, `privacy:*` stands for four."""
    added = json.loads(served.command("client", "add", "officer", "--role", "dpo", "--json").stdout)
    basic = (added["client_id"], added["client_secret"])
    form = {"grant_type": "client_credentials"}

    whole = served.http.post("/oauth/token", data=form, auth=basic)
    starred = served.http.post("/oauth/token", data=form | added | {"scope": "privacy:*"})
    token = whole.json()["access_token"]
    good = served.http.post("/oauth/introspect", data={"token": token}, auth=basic).json()
    revoked = served.http.post("/oauth/revoke", data={"token": token}, auth=basic)
    gone = served.http.post("/oauth/introspect", data={"token": token}, auth=basic).json()
    refused = served.http.post("/oauth/token", data=form, auth=(basic[0], "wrong"))
    beyond = served.http.post("/oauth/token", data=form | {"scope": "round:manage"}, auth=basic)
    strange = served.http.post("/oauth/token", data={"grant_type": "password"}, auth=basic)

    scopes = {"privacy:export", "privacy:erase", "privacy:manage", "privacy:hold"}
    assert set(whole.json()["scope"].split()) == set(starred.json()["scope"].split()) == scopes
    assert (whole.json()["token_type"], whole.json()["expires_in"]) == ("Bearer", 900)
    assert whole.headers["Cache-Control"] == "no-store"
    assert good["active"]
    assert good["client_id"] == added["client_id"]
    assert revoked.status_code == 200
    assert gone == {"active": False}
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert refused.headers["WWW-Authenticate"].startswith("Basic")
    assert (beyond.status_code, beyond.json()["error"]) == (400, "invalid_scope")
    assert (strange.status_code, strange.json()["error"]) == (400, "unsupported_grant_type")


def test_metadata_tells_only_what_there_is(served: Served) -> None:
    """RFC 8414, RFC 9728: absolute URLs that answer."""
    server = served.http.get("/.well-known/oauth-authorization-server").json()
    resource = served.http.get("/.well-known/oauth-protected-resource").json()

    assert server["token_endpoint"] == f"{served.url}/oauth/token"
    assert server["jwks_uri"] == f"{served.url}/.well-known/jwks.json"
    assert resource["authorization_servers"] == [server["issuer"]]
    assert {"implicit", "password"}.isdisjoint(server["grant_types_supported"])
    assert "none" not in server["token_endpoint_auth_methods_supported"]
    assert "pushed_authorization_request_endpoint" not in server
    assert served.http.post("/oauth/par").status_code == 404


def test_health_and_ready_need_no_token(served: Served) -> None:
    """Required: per-service states, version, uptime."""
    for path in ("/health", "/ready"):
        answer = served.http.get(path)

        assert answer.status_code == 200
        assert {"status", "version", "services"} <= set(answer.json())
        assert served.http.head(path).content == b""


def test_a_request_without_good_credentials_is_challenged(served: Served) -> None:
    """Bad input: no token 401 with WWW-Authenticate; wrong scope 403 insufficient_scope."""
    none = served.http.get("/api/v1/rounds")
    wrong = served.http.get("/api/v1/rounds", headers={"Authorization": "Bearer nonsense"})
    other = served.http.get("/api/v1/rounds", headers=served.staff("auditor"))

    assert_problem(none, 401, "UNAUTHORIZED")
    assert none.headers["WWW-Authenticate"] == 'Bearer realm="fl-gateway"'
    assert_problem(wrong, 401, "UNAUTHORIZED")
    assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
    assert_problem(other, 403, "INSUFFICIENT_SCOPE")
    assert 'error="insufficient_scope"' in other.headers["WWW-Authenticate"]


def test_a_request_id_is_taken_only_if_it_is_a_uuid(served: Served) -> None:
    """API.md, Common."""
    mine = str(uuid4())

    taken = served.http.get("/nowhere", headers={"X-Request-ID": mine})
    made = served.http.get("/nowhere", headers={"X-Request-ID": "mine"})

    assert_problem(taken, 404, "NOT_FOUND")
    assert taken.headers["X-Request-ID"] == mine
    assert_problem(made, 404, "NOT_FOUND")
    assert made.headers["X-Request-ID"] != "mine"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "BAD_REQUEST"),
        (b"{", 400, "BAD_REQUEST"),
        (b"\xff\xfe{}", 400, "BAD_REQUEST"),
        (b'{"device_id":"a","device_id":"b"}', 400, "BAD_REQUEST"),
        (b'{"capabilities":{"a":1,"a":2}}', 400, "BAD_REQUEST"),
        (b'{"capabilities":{"x":1e400}}', 400, "BAD_REQUEST"),
        (b'{"capabilities":{"x":NaN}}', 400, "BAD_REQUEST"),
        (b'{"capabilities":{"x":"\\ud800"}}', 400, "BAD_REQUEST"),
        (b'{"capabilities":' + b"[" * 50_000 + b"]" * 50_000 + b"}", 400, "BAD_REQUEST"),
        (b'{"capabilities":' + b"1" * 10_000 + b"}", 400, "BAD_REQUEST"),
        (b"[]", 422, "VALIDATION_FAILED"),
        (b'{"device_id":7}', 422, "VALIDATION_FAILED"),
        (b'{"public_key":"AAAA"}', 422, "VALIDATION_FAILED"),
    ],
)
def test_bad_json_is_refused(served: Served, body: bytes, status: int, code: str) -> None:
    """Promise 7, strict parsing: no member twice, no number that is none, no bottomless nesting."""
    headers = served.staff("operator") | {"Content-Type": "application/json"}

    answer = served.http.post("/api/v1/clients/register", content=body, headers=headers)

    told = assert_problem(answer, status, code)
    assert (status != 422) or told["errors"][0].keys() == {"pointer", "detail"}


def test_a_body_that_is_no_json_or_too_large_is_refused(served: Served) -> None:
    """415 for another media type; 413 from Content-Length alone."""
    operator = served.staff("operator")
    url = "/api/v1/clients/register"

    other = served.http.post(url, content=b"{}", headers=operator | {"Content-Type": "text/plain"})
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as once:
        huge = once.post(url, json={"device_id": "x" * (1 << 20)}, headers=operator)

    assert_problem(other, 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_problem(huge, 413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/rounds/99",
        "/api/v1/rounds/99999999999999999999999",
        "/api/v1/rounds/x",
        "/api/v1/models/9.9.9",
        "/api/v1/models/%00",
        "/api/v1/clients/%00",
        "/api/v1/clients/00000000-0000-4000-8000-000000000000",
        "/api/v1/nothing",
    ],
)
def test_what_is_not_there_is_404(served: Served, path: str) -> None:
    """A problem document, whatever the path's form."""
    answer = served.http.get(path, headers=served.staff("operator"))

    assert_problem(answer, 404, "NOT_FOUND")


def test_lists_have_pages(served: Served) -> None:
    """API.md, Common: page, per_page (50, at most 200), relative links, null where none; `current` beside rounds."""
    operator = served.staff("operator")
    for _ in range(3):
        served.register()

    first = served.http.get("/api/v1/clients", params={"per_page": 2}, headers=operator).json()
    default = served.http.get("/api/v1/rounds", headers=operator).json()

    assert set(first) == {"data", "pagination", "links"}
    assert set(first["pagination"]) == {"page", "per_page", "total_pages", "total_items"}
    assert first["links"]["first"] == "/api/v1/clients?per_page=2&page=1"
    assert first["links"]["prev"] is None
    assert len(served.http.get(first["links"]["next"], headers=operator).json()["data"]) == 2
    assert set(default) == {"data", "current", "pagination", "links"}
    assert default["pagination"]["per_page"] == 50
    for query in ({"page": "0"}, {"page": "x"}, {"per_page": "201"}):
        bad = served.http.get("/api/v1/models", params=query, headers=operator)
        assert_problem(bad, 422, "VALIDATION_FAILED")


def test_a_round_is_as_the_design_shows_it(served: Served) -> None:
    """201, active within a second; epsilon becomes a noise multiplier; decimal strings; deadline in an hour."""
    made = served.ask_round(privacy=GAUSSIAN | {"epsilon": 1.0})
    round_ = made.json()

    assert made.status_code == 201
    assert round_["status"] == "active"
    assert set(round_["global_model"]) == {"model_id", "version", "download_url", "checksum", "size_bytes"}
    assert round_["global_model_url"] == round_["global_model"]["download_url"]
    assert float(round_["privacy"]["noise_multiplier"]) > 1.0
    assert isinstance(round_["privacy"]["delta"], str)
    assert served.http.get(made.headers["Location"], headers=served.staff("operator")).json() == round_
    again = served.ask_round(base_version=round_["global_model"]["version"])
    assert_problem(again, 409, "ROUND_OPEN")


@pytest.mark.parametrize(
    "wish",
    [
        {"privacy": GAUSSIAN},
        {"privacy": GAUSSIAN | {"epsilon": 1.0, "noise_multiplier": 2.0}},
        {"planned_clients": 0},
        {"planned_clients": 10**30},
        {"min_clients": 2},
        {"deadline": "2020-01-01T00:00:00Z"},
        {"deadline": "2030-01-01T00:00:00"},
        {"deadline": "9999-12-31T23:59:59-12:00"},
        {"base_version": "1.0.0\u0000"},
        {"selection": {"strategy": "coin"}},
        {"planed_clients": 1},
    ],
)
def test_a_round_with_a_bad_value_is_refused(served: Served, wish: dict[str, Any]) -> None:
    """422 VALIDATION_FAILED with a pointer."""
    told = assert_problem(served.ask_round(**wish), 422, "VALIDATION_FAILED")

    assert all(set(error) == {"pointer", "detail"} for error in told["errors"])


def test_a_closed_round_takes_no_more(served: Served) -> None:
    """Bad input: 409 ROUND_EXPIRED."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    closed = served.http.post(f"/api/v1/rounds/{number}/close", headers=served.staff("operator"))
    late = served.send(number, silo)

    assert closed.status_code == 202
    assert_problem(late, 409, "ROUND_EXPIRED")


def test_a_budget_is_not_overspent(served: Served) -> None:
    """Bad input: 409 PRIVACY_BUDGET_EXCEEDED."""
    version = served.add_model(privacy_budget={"epsilon": 0.5, "delta": 1e-5}).json()["version"]

    asked = served.ask_round(base_version=version, privacy=GAUSSIAN | {"epsilon": 2.0})

    assert_problem(asked, 409, "PRIVACY_BUDGET_EXCEEDED")
