"""Outside issuers that are real ones: an OpenID provider in a process of its own, and a second gateway."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask.testing import FlaskClient
from services.clock import FixedClock
from services.openid_provider import CLIENT, SECRET, OpenIdProvider, running
from sqlalchemy import func, select
from werkzeug.serving import make_server

import audit.tables
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from compliance.keyring.keys import SigningUse
from gateway.app import create_app
from gateway.auth.clients import NewClient, add_client
from gateway.auth.issuers import outside_issuers
from gateway.auth.jose import read_jwt
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.key_rotation import begin_announced, rotate_signing_key
from gateway.services import Services, open_services
from gateway.tables import clients

ROUNDS, MODELS = "/api/v1/rounds", "/api/v1/models"
Trusting = Callable[[dict[str, Any]], FlaskClient]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdProvider]:
    """An OpenID provider, one for all tests here; its key changes in one of them."""
    with running() as started:
        yield started


@pytest.fixture
def clock() -> FixedClock:
    """The time of this machine, since the provider's process goes by it."""
    return FixedClock(datetime.now(UTC))


@pytest.fixture
def trusting(services: Services) -> Iterator[Trusting]:
    """A client of a gateway with that issuer in its setting."""
    outside_issuers.cache_clear()
    with ExitStack() as opened:

        def open_one(trust: dict[str, Any]) -> FlaskClient:
            config = replace(services.config, trusted_issuers=json.dumps([trust]))
            app = create_app(replace(services, config=config))
            opened.callback(close_refusals, app)
            return app.test_client()

        yield open_one


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def claims_of(clock: FixedClock, **claims: Any) -> dict[str, Any]:
    now_s = int(clock().timestamp())
    return {"sub": "silo", "aud": "fl", "iat": now_s, "exp": now_s + 600, "client_id": "silo"} | claims


def by_keys(provider: OpenIdProvider, **members: Any) -> dict[str, Any]:
    return {"issuer": provider.issuer, "audience": "fl", "algorithms": ["RS256"]} | members


def test_a_provider_is_found_by_its_name_and_its_change_of_key_followed(
    provider: OpenIdProvider, trusting: Trusting, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discovery, keys, a token, another key: without a restart, and the key that is gone counts no more."""
    monkeypatch.setattr("gateway.auth.issuers.keys.AGAIN_S", 0.0)
    http = trusting(by_keys(provider))
    first = provider.access_token(**claims_of(clock, scope="model:download"))
    assert http.get(MODELS, headers=bearer(first)).status_code == 200

    provider.change_key()
    clock.advance(timedelta(seconds=1))
    second = provider.access_token(**claims_of(clock, scope="model:download"))

    assert http.get(MODELS, headers=bearer(second)).status_code == 200
    assert http.get(ROUNDS, headers=bearer(second)).status_code == 403
    other = provider.access_token(**claims_of(clock, aud="another"))
    assert http.get(MODELS, headers=bearer(other)).status_code == 401


def test_an_id_token_is_no_access_token(
    provider: OpenIdProvider, trusting: Trusting, clock: FixedClock
) -> None:
    """RFC 9068, section 5: signed by the same key, for the same audience, and refused all the same."""
    id_token = provider.sign_in("alice")["id_token"]
    strict = trusting(by_keys(provider, audience=CLIENT))
    loose = trusting(by_keys(provider, audience=CLIENT, typ=["JWT", "none"], scope_claim="email"))

    assert strict.get(MODELS, headers=bearer(id_token)).status_code == 401
    assert loose.get(MODELS, headers=bearer(id_token)).status_code == 401


def test_an_opaque_token_is_asked_about(
    provider: OpenIdProvider, trusting: Trusting, clock: FixedClock, tmp_path: Path
) -> None:
    """RFC 7662: good while its issuer says so; ours are never shown to it."""
    (tmp_path / "secret").write_text(SECRET, "ascii")
    asking = {
        "endpoint": f"{provider.issuer}/added/introspect",
        "client_id": CLIENT,
        "client_secret_file": str(tmp_path / "secret"),
        "cache_s": 0,
    }
    trust = {"issuer": provider.issuer, "audience": CLIENT, "introspection": asking}
    http = trusting(trust | {"scopes": {"email": ["model:download"]}})
    token = provider.sign_in("bob")["access_token"]

    taken = http.get(MODELS, headers=bearer(token)).status_code
    beyond = http.get(ROUNDS, headers=bearer(token)).status_code
    unknown = http.get(MODELS, headers=bearer("never-issued")).status_code
    provider.http.post("/users/bob/revoke-tokens").raise_for_status()
    time.sleep(0.55)  # verdicts stand for half a second, here too
    revoked = http.get(MODELS, headers=bearer(token)).status_code

    assert (taken, beyond, unknown, revoked) == (200, 403, 401, 401)


@dataclass(frozen=True, slots=True)
class SecondGateway:
    """Another gateway, served on a port of its own."""

    services: Services
    url: str
    client: NewClient

    def token(self) -> str:
        """An access token of its client, a JWT."""
        answer = httpx.post(
            f"{self.url}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(self.client.client_id, self.client.client_secret),
            timeout=20,
        )
        return str(answer.raise_for_status().json()["access_token"])


@pytest.fixture
def second(tmp_path: Path, clock: FixedClock) -> Iterator[SecondGateway]:
    """An issuer of JWTs: our own server, with stores of its own."""
    server = make_server("127.0.0.1", 0, lambda _environ, _start: [], threaded=True)
    url, home = f"http://127.0.0.1:{server.server_port}", tmp_path / "second"
    config = Config(
        database_url=f"sqlite:///{home / 'main.db'}",
        keystore_url=f"sqlite:///{home / 'keys.db'}",
        blob_url=f"file:{home / 'blobs'}",
        state_url=f"file:{home / 'state'}",
        master_key="5a" * 32,
        siem_sinks="",
        issuer=url,
        token_ttl_s=60,
    )
    services = open_services(config, part="console", clock=clock)
    for metadata in (audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata):
        metadata.create_all(services.engine)
    compliance.keyring.tables.metadata.create_all(services.keystore_engine)
    server.app = create_app(services)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield SecondGateway(services, url, add_client(services, "a silo", Role.PARTICIPANT, token_format="jwt"))
    server.shutdown()
    thread.join()
    server.server_close()
    close_refusals(server.app)
    services.close()


def test_a_second_gateway_is_an_issuer_like_any_other(
    second: SecondGateway,
    trusting: Trusting,
    clock: FixedClock,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Our own RFC 9068 JWTs pass the judgement for others', found by RFC 8414 alone, whatever key signs them."""
    monkeypatch.setattr("gateway.auth.issuers.keys.AGAIN_S", 0.0)
    http = trusting({"issuer": second.url, "audience": second.url})
    before = second.token()
    assert http.get(ROUNDS, headers=bearer(before)).status_code == 200

    rotate_signing_key(second.services, SigningUse.TOKEN, both_for=timedelta(0))
    clock.advance(timedelta(minutes=30))
    begin_announced(second.services)
    time.sleep(0.55)
    after = second.token()

    assert read_jwt(after).kid != read_jwt(before).kid
    assert http.get(ROUNDS, headers=bearer(before)).status_code == 401  # its time is over
    assert http.get(ROUNDS, headers=bearer(after)).status_code == 200
    with services.engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(clients)).scalar_one() == 1


def test_a_token_for_the_second_gateway_is_none_for_this_one(
    second: SecondGateway, trusting: Trusting
) -> None:
    """Trusted as an issuer, but its token is meant for itself alone."""
    http = trusting({"issuer": second.url, "audience": "https://gateway.example"})

    assert http.get(ROUNDS, headers=bearer(second.token())).status_code == 401
