"""What goes over the wire, as API.md and DESIGN.md say it: a real `fl-gateway serve`, plain HTTP, real commands."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import click
import httpx
import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aggregation.wire import write_safetensors
from gateway.cli import main

MAX_UPDATE_BYTES = 300_000
MECHANISM_NONE = {"mechanism": "none"}
GAUSSIAN = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "delta": 1e-5}
Headers = dict[str, str]


def update_of(value: float = 0.5) -> bytes:
    """An update of the schema that every model here has."""
    return b"".join(write_safetensors({"w": np.full((4, 3), value, np.float32)}))


def checksum(body: bytes) -> str:
    return sha256(body).hexdigest()


@dataclass(frozen=True, slots=True)
class Served:
    """A gateway as a user starts it: a directory, an address."""

    directory: Path
    url: str
    http: httpx.Client
    tokens: dict[str, Headers]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `fl-gateway` in the gateway's directory, beside the running `serve`."""
        return _command(self.directory, *words)

    def staff(self, role: str) -> Headers:
        """Credentials of a client of that role, made at the first call."""
        if role not in self.tokens:
            added = json.loads(self.command("client", "add", role, "--role", role, "--json").stdout)
            self.tokens[role] = self.token_of(added)
        return self.tokens[role]

    def token_of(self, client: dict[str, str], **form: str) -> Headers:
        answer = self.http.post(
            "/oauth/token",
            data={"grant_type": "client_credentials", **form},
            auth=(client["client_id"], client["client_secret"]),
        )
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def register(self, **device: Any) -> tuple[str, Headers]:
        """A device of its own: its client id and credentials."""
        answer = self.http.post("/api/v1/clients/register", json=device, headers=self.staff("operator"))
        told = answer.json()
        return told["client_id"], {"Authorization": f"Bearer {told['registration_token']}"}

    def add_model(self, *, headers: Headers | None = None, **metadata: Any) -> httpx.Response:
        body = update_of(0.0)
        sent = {"X-Model-Checksum": checksum(body), "X-Model-Metadata": json.dumps({"name": "m", **metadata})}
        return self.http.post(
            "/api/v1/models", content=body, headers=self.staff("operator") | sent | (headers or {})
        )

    def ask_round(self, **wish: Any) -> httpx.Response:
        """Ask for a round on a new lineage, so that no test waits for another's round."""
        base = {} if "base_version" in wish else {"base_version": self.add_model().json()["version"]}
        body = {"planned_clients": 1, "min_clients": 1, "privacy": MECHANISM_NONE} | base | wish
        return self.http.post("/api/v1/rounds", json=body, headers=self.staff("operator"))

    def send(self, number: int, headers: Headers, body: bytes = b"") -> httpx.Response:
        body = body or update_of()
        sent = {"X-Update-Checksum": checksum(body)} | headers
        return self.http.post(f"/api/v1/rounds/{number}/updates", content=body, headers=sent)

    def raw(self, request: bytes, *, then_closed: bool = False) -> bytes:
        """What the gateway answers to these very bytes, as far as it comes within a moment."""
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname or "", address.port or 0), timeout=10) as peer:
            peer.sendall(request)
            if then_closed:
                peer.shutdown(socket.SHUT_WR)
            answer = b""
            while b"request_id" not in answer and (piece := peer.recv(65_536)):
                answer += piece
        return answer


def _environment(directory: Path) -> dict[str, str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("FLG_")}
    return plain | {
        "FLG_MAX_UPDATE_BYTES_FILE": str(directory / "max_update_bytes"),
        "OPENBLAS_NUM_THREADS": "1",
    }


def _command(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=directory,
        env=_environment(directory),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`fl-gateway serve --port 0` in an empty directory; one setting comes from a file, as containers give secrets."""
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "max_update_bytes").write_text(f"{MAX_UPDATE_BYTES}\n")
    with (directory / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "serve", "--port", "0"],
            cwd=directory,
            env=_environment(directory),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        try:
            word, url = process.stdout.readline().split()
            assert word == "ready"
            with httpx.Client(base_url=url, timeout=20, trust_env=False) as http:
                yield Served(directory, url, http, {})
        finally:
            process.send_signal(signal.SIGTERM)
            rest = process.communicate(timeout=40)[0]
    assert rest == "", "`ready` is the only line on standard output"


def eventually(look: Callable[[], Any], *, within_s: float = 15.0) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem document with all of its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    told: dict[str, Any] = answer.json()
    assert {"type", "title", "status", "detail", "code", "error"} <= set(told)
    assert set(told["error"]) == {"code", "message", "details", "request_id", "timestamp"}
    assert (told["status"], told["code"], told["error"]["code"]) == (status, code, code)
    assert told["error"]["request_id"] == answer.headers["X-Request-ID"]
    return told


def jws_part(token: str, part: int) -> dict[str, Any]:
    text = token.split(".")[part]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    return found


def public_key(served: Served, kid: str) -> Ed25519PublicKey:
    """The key of that id, from jwks.json."""
    keys = served.http.get("/.well-known/jwks.json").json()["keys"]
    x = next(key["x"] for key in keys if key["kid"] == kid)
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(x + "="))


def verify_jws(served: Served, token: str) -> None:
    signed, _, signature = token.rpartition(".")
    key = public_key(served, jws_part(token, 0)["kid"])
    key.verify(base64.urlsafe_b64decode(signature + "=="), signed.encode())


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
    assert {"private_key_jwt", "authorization_code"}.isdisjoint(
        server["grant_types_supported"] + server["token_endpoint_auth_methods_supported"]
    )


def test_health_and_ready_need_no_token(served: Served) -> None:
    """Issue: per-service states, version, uptime."""
    for path in ("/health", "/ready"):
        answer = served.http.get(path)

        assert answer.status_code == 200
        assert {"status", "version", "services"} <= set(answer.json())
        assert served.http.head(path).content == b""


def test_a_request_without_good_credentials_is_challenged(served: Served) -> None:
    """Issue, bad input: no token 401 with WWW-Authenticate; wrong scope 403 insufficient_scope."""
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
        f"/api/v1/clients/{uuid4()}",
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
    """Issue, bad input: 409 ROUND_EXPIRED."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    closed = served.http.post(f"/api/v1/rounds/{number}/close", headers=served.staff("operator"))
    late = served.send(number, silo)

    assert closed.status_code == 202
    assert_problem(late, 409, "ROUND_EXPIRED")


def test_a_budget_is_not_overspent(served: Served) -> None:
    """Issue, bad input: 409 PRIVACY_BUDGET_EXCEEDED."""
    version = served.add_model(privacy_budget={"epsilon": 0.5, "delta": 1e-5}).json()["version"]

    asked = served.ask_round(base_version=version, privacy=GAUSSIAN | {"epsilon": 2.0})

    assert_problem(asked, 409, "PRIVACY_BUDGET_EXCEEDED")


def test_a_model_is_served_as_uploaded_whole_or_in_part(served: Served) -> None:
    """API.md: ETag is the quoted checksum; Range; the bytes as uploaded."""
    made = served.add_model().json()
    operator, url = served.staff("operator"), f"/api/v1/models/{made['version']}"

    whole = served.http.get(url, headers=operator)
    part = served.http.get(url, headers=operator | {"Range": "bytes=4-9"})
    same = served.http.get(url, headers=operator | {"If-None-Match": whole.headers["ETag"]})
    other = served.http.get(url, headers=operator | {"If-Match": '"another"'})
    beyond = served.http.get(url, headers=operator | {"Range": "bytes=100000-"})

    assert set(made) == {"model_id", "version", "checksum", "size_bytes"}
    assert whole.content == update_of(0.0)
    assert whole.headers["ETag"] == f'"{made["checksum"]}"'
    assert whole.headers["X-Model-Checksum"] == made["checksum"]
    assert whole.headers["X-Model-Version"] == made["version"]
    assert (part.status_code, part.content) == (206, whole.content[4:10])
    assert part.headers["Content-Range"] == f"bytes 4-9/{len(whole.content)}"
    assert (same.status_code, same.content) == (304, b"")
    assert_problem(other, 412, "PRECONDITION_FAILED")
    assert_problem(beyond, 416, "RANGE_NOT_SATISFIABLE")


def test_a_model_with_bad_metadata_is_refused(served: Served) -> None:
    """The header is parsed as strictly as a body, and named."""
    for text in ('{"name":"a","name":"b"}', "nope", '{"name":"m","privacy_budget":{"epsilon":1e400}}'):
        answer = served.add_model(headers={"X-Model-Metadata": text})

        told = assert_problem(answer, 422, "VALIDATION_FAILED")
        assert told["errors"][0]["pointer"].startswith("X-Model-Metadata")


def test_every_post_that_creates_honours_an_idempotency_key(served: Served) -> None:
    """API.md, Common: same body, the first answer again; another body, 422 IDEMPOTENCY_KEY_REUSED."""
    operator, dpo = served.staff("operator"), served.staff("dpo")
    client_id, silo = served.register()
    version = served.add_model().json()["version"]
    wish = {"base_version": version, "planned_clients": 2, "min_clients": 1, "privacy": MECHANISM_NONE}
    ask = {"type": "access", "subject": {"client_id": client_id}}
    model = update_of(0.0)
    calls: list[tuple[str, Headers, bytes, bytes]] = [
        ("/api/v1/clients/register", operator, b'{"device_id":"a"}', b'{"device_id":"b"}'),
        ("/api/v1/models", operator | {"X-Model-Checksum": checksum(model)}, model, update_of(9.0)),
        (
            "/api/v1/rounds",
            operator,
            json.dumps(wish).encode(),
            json.dumps(wish | {"min_clients": 2}).encode(),
        ),
        ("/api/v1/privacy/requests", dpo, json.dumps(ask).encode(), b'{"type":"erasure"}'),
    ]

    for path, headers, body, another in calls:
        sent = {"Content-Type": "application/json", "Idempotency-Key": "k"} | headers
        first = served.http.post(path, content=body, headers=sent)
        second = served.http.post(path, content=body, headers=sent)
        reused = served.http.post(path, content=another, headers=sent)

        assert first.status_code == second.status_code == 201, first.text
        assert first.json() == second.json()
        assert_problem(reused, 422, "IDEMPOTENCY_KEY_REUSED")
    number = served.http.get("/api/v1/rounds/current", headers=silo).json()["round_number"]
    first, second = (served.send(number, silo | {"Idempotency-Key": "k"}) for _ in "ab")
    assert (first.status_code, first.json()) == (202, second.json())
    assert_problem(
        served.send(number, silo | {"Idempotency-Key": "k"}, update_of(2)), 422, "IDEMPOTENCY_KEY_REUSED"
    )
    assert_problem(served.send(number, silo), 409, "DUPLICATE_UPDATE")


def test_limited_routes_tell_the_limit_and_keep_it(served: Served) -> None:
    """API.md, Common: per client, 20 a minute for rounds; the reset in epoch seconds; operators have none."""
    _, silo = served.register()

    first, *_, last = [served.http.get("/api/v1/rounds", headers=silo) for _ in range(21)]

    assert first.headers["X-RateLimit-Limit"] == "20"
    assert first.headers["X-RateLimit-Remaining"] == "19"
    assert 0 < int(first.headers["X-RateLimit-Reset"]) - time.time() < 61
    assert_problem(last, 429, "RATE_LIMITED")
    assert last.headers["X-RateLimit-Remaining"] == "0"
    assert 0 < int(last.headers["Retry-After"]) <= 60
    unlimited = served.http.get("/api/v1/rounds", headers=served.staff("operator"))
    assert "X-RateLimit-Limit" not in unlimited.headers


def test_too_large_an_update_is_refused_by_its_length_alone(served: Served) -> None:
    """413 before the body is read: from Content-Length alone, or as soon as a chunked body passes the limit."""
    number = served.ask_round().json()["round_number"]
    (_, silo), (_, raw) = served.register(), served.register()
    head = f"POST /api/v1/rounds/{number}/updates HTTP/1.1\r\nHost: gateway\r\nAuthorization: {raw['Authorization']}"
    head += f"\r\nX-Update-Checksum: {'0' * 64}\r\nContent-Length: {{}}\r\n\r\n"
    body = update_of()

    announced = served.raw(head.format(10**12).encode())
    cut = served.raw(head.format(1000).encode() + b"abc", then_closed=True)
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as once:
        whole = once.post(
            f"/api/v1/rounds/{number}/updates",
            content=b"x" * (MAX_UPDATE_BYTES + 1),
            headers=silo | {"X-Update-Checksum": "0" * 64},
        )
    with httpx.Client(base_url=served.url, timeout=20, trust_env=False) as once:
        chunked = once.post(
            f"/api/v1/rounds/{number}/updates",
            content=iter([body[:-1], body[-1:]]),
            headers=silo | {"X-Update-Checksum": checksum(body)},
        )

    assert announced.startswith(b"HTTP/1.1 413 ")
    assert b'"PAYLOAD_TOO_LARGE"' in announced
    assert cut.startswith(b"HTTP/1.1 400 ")
    assert b'"TRUNCATED_BODY"' in cut
    assert_problem(whole, 413, "PAYLOAD_TOO_LARGE")
    assert chunked.status_code == 202, chunked.text


@pytest.mark.parametrize(
    ("metadata", "status"),
    [('{"loss":0.5,"n":3}', 202), ('{"a":1e400}', 422), ('{"a":"\\ud800"}', 422), ('{"a":1,"a":2}', 422)],
)
def test_update_metadata_is_a_json_object(served: Served, metadata: str, status: int) -> None:
    """X-Update-Metadata is parsed as strictly as a body."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    answer = served.send(number, silo | {"X-Update-Metadata": metadata})

    assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("body", "tensor"),
    [
        (b"\x80\x04N.", None),
        (update_of()[:-1], "w"),
        (update_of(float("nan")), "w"),
        (update_of(float("inf")), "w"),
        (b"".join(write_safetensors({"w": np.zeros((4, 4), np.float32)})), "w"),
        (b"".join(write_safetensors({"w": np.zeros((4, 3), np.float64)})), "w"),
    ],
)
def test_a_bad_update_is_refused_and_its_tensor_named(
    served: Served, body: bytes, tensor: str | None
) -> None:
    """Issue, bad input: pickle, truncated, NaN, Inf, wrong shape; wrong, missing and malformed checksums."""
    number = served.ask_round().json()["round_number"]
    _, silo = served.register()

    told = assert_problem(served.send(number, silo, body), 422, "INVALID_MODEL_FORMAT")
    mismatch = served.send(number, silo | {"X-Update-Checksum": "0" * 64})

    assert told["error"]["details"]["tensor"] == tensor
    assert_problem(mismatch, 422, "CHECKSUM_MISMATCH")
    unsaid = served.http.post(f"/api/v1/rounds/{number}/updates", content=body, headers=silo)
    assert_problem(unsaid, 400, "CHECKSUM_MISSING")


def test_a_receipt_becomes_a_proof(served: Served) -> None:
    """API.md, Receipts: a JWS whose kid is in jwks.json; 202 until sequenced, then a C2SP tlog-proof."""
    number = served.ask_round(planned_clients=2).json()["round_number"]
    _, silo = served.register()
    _, stranger = served.register()
    sent = served.send(number, silo).json()
    url = f"/api/v1/updates/{sent['update_id']}"

    proof = eventually(
        lambda: (
            answer if (answer := served.http.get(f"{url}/receipt", headers=silo)).status_code == 200 else None
        )
    )

    claims = jws_part(sent["receipt"], 1)
    verify_jws(served, sent["receipt"])
    assert jws_part(sent["receipt"], 0)["typ"] == "fl-receipt+jwt"
    assert set(claims) == {"entry_id", "entry_digest", "body_hash", "received_at", "origin", "max_delay"}
    assert (claims["body_hash"], claims["max_delay"]) == (checksum(update_of()), 86_400)
    first, extra, index, *_ = proof.text.split("\n")
    entry = json.loads(base64.b64decode(extra.removeprefix("extra ")))
    assert proof.headers["Content-Type"].startswith("text/plain")
    assert first == "c2sp.org/tlog-proof@v1"
    assert index == f"index {entry['seq']}"
    assert entry["id"] == claims["entry_id"]
    assert served.http.get(url, headers=silo).json()["receipt"] == sent["receipt"]
    assert_problem(served.http.get(url, headers=stranger), 404, "NOT_FOUND")


def test_the_log_is_read_over_http_and_verified_at_home(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """API.md, Receipts and DESIGN, audit bundle: entries, proofs, checkpoint, bundle; exit codes 0, 1, 2."""
    auditor, directory = served.staff("auditor"), served.directory

    def read(path: str) -> httpx.Response:
        return served.http.get(f"/api/v1/audit/{path}", headers=auditor)

    eventually(lambda: read("entries").json()["data"])

    bundle = read("bundle")
    (directory / "bundle.zip").write_bytes(bundle.content)
    with zipfile.ZipFile(BytesIO(bundle.content)) as packed:
        names, lines = packed.namelist(), packed.read("entries.jsonl").split(b"\n")[:-1]
        with zipfile.ZipFile(directory / "spoilt.zip", "w") as spoilt:
            for name in names:
                content = packed.read(name)
                spoilt.writestr(name, content.replace(b'"seq":3,', b'"seq":4,', 1))
    commands = (
        ("verify", "bundle.zip", "--json"),
        ("verify", "spoilt.zip", "--json"),
        ("verify", "nothing.zip"),
    )
    with ThreadPoolExecutor(len(commands)) as at_once:
        ran = at_once.map(lambda words: served.command("audit", *words), commands)
    verified, refused, missing = ran
    monkeypatch.chdir(directory)  # these three in this process: starting one takes a second
    proved, exported, checkpoint = (
        CliRunner().invoke(main, ["audit", *words, "--json"])
        for words in (["prove", "1"], ["export", "-o", "again.zip"], ["checkpoint"])
    )

    assert [entry["seq"] for entry in read("entries?limit=2").json()["data"]] == [0, 1]
    assert [entry["seq"] for entry in read("entries?after=1&limit=2").json()["data"]] == [2, 3]
    assert [entry["seq"] for entry in read("entries?page=2&per_page=2").json()["data"]] == [2, 3]
    assert read("entries/0").content == lines[0]
    assert set(read("proof/inclusion?seq=0&size=3").json()) == {"hashes"}
    assert set(read("proof/consistency?from=2&to=4").json()) == {"hashes"}
    assert_problem(read("proof/inclusion?seq=5&size=3"), 422, "VALIDATION_FAILED")
    assert_problem(read("entries/999999999999999999999"), 404, "NOT_FOUND")
    assert read("checkpoint").headers["Content-Type"].startswith("text/plain")
    assert set(names) == {"checkpoint", "entries.jsonl", "keys/log.vkey", "README.txt"}
    assert (verified.returncode, json.loads(verified.stdout)["ok"]) == (0, True)
    assert (refused.returncode, json.loads(refused.stdout)["first_bad_seq"]) == (1, 3)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert json.loads(proved.stdout)["proof"].startswith("c2sp.org/tlog-proof@v1\n")
    assert json.loads(exported.stdout)["entries"] >= len(lines)
    assert json.loads(checkpoint.stdout)["checkpoint"].count("\n\n") == 1


def test_a_person_is_told_and_erased(served: Served) -> None:
    """API.md, Privacy: the package's signed manifest, the receipt, and 401 for the erased from then on."""
    client_id, silo = served.register(device_id="the-device")
    dpo, url = served.staff("dpo"), "/api/v1/privacy/requests"
    subject = {"subject": {"client_id": client_id}}

    access = served.http.post(url, json={"type": "access", **subject}, headers=dpo)
    package = served.http.get(f"{url}/{access.json()['id']}/package", headers=dpo)
    erasure = served.http.post(url, json={"type": "erasure", **subject}, headers=dpo)
    receipt = served.http.get(f"{url}/{erasure.json()['id']}/receipt", headers=dpo)
    unnamed = served.http.post(url, json={"type": "access", "subject": {}}, headers=dpo)

    assert access.status_code == erasure.status_code == 201
    assert {"id", "type", "status", "due_at", "version"} <= set(access.json())
    with zipfile.ZipFile(BytesIO(package.content)) as packed:
        manifest = packed.read("manifest.json")
        key = public_key(served, json.loads(manifest)["kid"])
        key.verify(base64.b64decode(packed.read("manifest.sig")), manifest)
        for file in json.loads(manifest)["files"]:
            assert set(file) == {"path", "bytes", "sha256", "rows", "article"}
            assert sha256(packed.read(file["path"])).hexdigest() == file["sha256"]
        assert any(b"the-device" in packed.read(name) for name in packed.namelist())
    assert jws_part(receipt.text, 0)["typ"] == "fl-erasure+jwt"
    verify_jws(served, receipt.text)
    assert_problem(served.http.get("/api/v1/rounds", headers=silo), 401, "UNAUTHORIZED")
    assert_problem(unnamed, 422, "VALIDATION_FAILED")
    gone = served.http.get(f"{url}/{access.json()['id']}/package", headers=dpo)
    assert gone.status_code == 404


def test_a_release_is_reported(served: Served) -> None:
    """API.md, Privacy: the budget and a report in decimal strings, with the terms of the claim."""
    budget = {"epsilon": 3.0, "delta": 1e-5}
    version = served.add_model(privacy_budget=budget).json()["version"]
    asked = served.ask_round(base_version=version, privacy=GAUSSIAN | {"epsilon": 2.0}).json()
    _, silo = served.register()
    served.send(asked["round_number"], silo)
    operator, auditor = served.staff("operator"), served.staff("auditor")

    def ended() -> dict[str, Any] | None:
        found = served.http.get(f"/api/v1/rounds/{asked['round_number']}", headers=operator).json()
        return found if found["status"] in ("completed", "failed") else None

    result = eventually(ended)["result_model"]
    report = served.http.get(f"/api/v1/privacy/report/{result['version']}", headers=auditor).json()
    lines = served.http.get("/api/v1/privacy/budget", headers=auditor).json()["data"]

    terms = {"epsilon", "delta", "unit", "mechanism", "adjacency", "planned_clients"}
    assert terms <= set(report)
    assert 0 < float(report["epsilon"]) <= 2.0
    line = next(line for line in lines if line["model_id"] == result["model_id"])
    assert {"model_id", "epsilon_budget", "epsilon_spent", "delta"} <= set(line)
    assert all(isinstance(line[name], str) for name in ("epsilon_budget", "epsilon_spent", "delta"))


def _leaves(command: click.Command, *names: str) -> Iterator[tuple[str, ...]]:
    """The names of every command below."""
    if not isinstance(command, click.Group):
        yield names
        return
    for name in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), name)
        assert found is not None
        yield from _leaves(found, *names, name)


def test_every_command_has_help_and_refuses_wrong_usage() -> None:
    """DESIGN, CLI: `--help` exits 0, wrong usage 2."""
    for names in _leaves(main):
        assert CliRunner().invoke(main, [*names, "--help"]).exit_code == 0, names
        assert CliRunner().invoke(main, [*names, "--no-such-option"]).exit_code == 2, names
