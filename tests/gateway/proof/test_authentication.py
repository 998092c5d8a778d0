"""Every way to prove a client, over HTTP: what it gives, and that no other way opens the door (RFC 6749, 2.3)."""

from __future__ import annotations

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from living.home import home_in
from proof_keys import (
    assertion_form,
    certificate,
    from_nginx,
    jwk,
    key_set,
    of_unknown_version,
    pem,
    with_bits_for_a_name,
    x5c,
)
from services.clock import FixedClock
from sqlalchemy import func, select, update

from audit.reading import reading
from audit.tables import audit_pending
from gateway.app import create_app
from gateway.auth.client_certificate import read_certificate
from gateway.auth.client_changes import ClientChange, change_client
from gateway.auth.clients import NewClient, add_client
from gateway.auth.proof import ClientRefused, confirm, find_client
from gateway.auth.proof.assertion import Assertion, read_assertion
from gateway.auth.proof.presented import ShownAssertion
from gateway.auth.proof.replay import KEPT_LONGER, take_once
from gateway.auth.proof.terms import ADDABLE
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.auth.tokens import purge_expired
from gateway.config import Config, load_config
from gateway.places import ClientsPlace
from gateway.services import Services, open_services
from gateway.tables import clients, tokens, used_assertions

GRANT = {"grant_type": "client_credentials"}
ISSUER = "https://fl.example.com"
FRONT = {"REMOTE_ADDR": "10.9.0.1"}
SETTINGS = {"public_url": ISSUER, "trusted_proxy": "10.9.0.0/16", "siem_sinks": ""}
MINE, OTHER = certificate(), certificate("P-256", 1)


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway behind a TLS front."""
    return replace(config, public_url=ISSUER, trusted_proxy="10.9.0.0/16")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Services, Flask]]:
    """One gateway on SQLite, behind a TLS front at 10.9.0.0/16, for the tests that end nothing."""
    with home_in(tmp_path_factory.mktemp("proof"), **SETTINGS) as home:
        services = open_services(load_config(home.environment()), part="web", clock=FixedClock())
        app = create_app(services)
        yield services, app
        close_refusals(app)
        services.close()


def added(services: Services, auth: AuthMethod, **proof: Any) -> NewClient:
    return add_client(services, f"by {auth.value}", Role.AUDITOR, auth=auth, **proof)


def signing(services: Services) -> NewClient:
    return added(services, AuthMethod.PRIVATE_KEY_JWT, jwks=key_set(jwk("Ed25519", kid="a")))


def signed_form(services: Services, client_id: str) -> dict[str, str]:
    return assertion_form(client_id, ISSUER, services.clock())


def newest_entry(services: Services) -> dict[str, Any]:
    with reading(services.engine) as conn:
        newest = select(audit_pending.c.body).order_by(audit_pending.c.id.desc()).limit(1)
        return dict(json.loads(conn.execute(newest).scalar_one()))


Sent = dict[str, Any]
Way = Callable[[Services], tuple[str, str, Sent]]


def _basic(services: Services) -> tuple[str, str, Sent]:
    new = added(services, AuthMethod.CLIENT_SECRET)
    return "client_secret_basic", new.client_id, {"data": GRANT, "auth": (new.client_id, new.client_secret)}


def _basic_encoded(services: Services) -> tuple[str, str, Sent]:
    """As RFC 6749, section 2.3.1 wants it, with every character escaped that may be."""
    new = added(services, AuthMethod.CLIENT_SECRET)
    parts = ["".join(f"%{byte:02X}" for byte in part.encode()) for part in (new.client_id, new.client_secret)]
    header = f"Basic {b64encode(':'.join(parts).encode()).decode()}"
    return "client_secret_basic", new.client_id, {"data": GRANT, "headers": {"Authorization": header}}


def _post(services: Services) -> tuple[str, str, Sent]:
    new = added(services, AuthMethod.CLIENT_SECRET)
    form = {"client_id": new.client_id, "client_secret": new.client_secret}
    return "client_secret_post", new.client_id, {"data": GRANT | form}


def _signed(services: Services) -> tuple[str, str, Sent]:
    new = signing(services)
    return "private_key_jwt", new.client_id, {"data": signed_form(services, new.client_id)}


def _by_authority(services: Services) -> tuple[str, str, Sent]:
    new = added(services, AuthMethod.TLS_CLIENT_AUTH, subject_dn="CN=silo-a,O=Hospital")
    sent = {"headers": from_nginx(MINE), "environ_base": FRONT}
    return "tls_client_auth", new.client_id, {"data": GRANT | {"client_id": new.client_id}, **sent}


def _self_signed(services: Services) -> tuple[str, str, Sent]:
    jwks = key_set(jwk("P-256", x5c=x5c(MINE)))
    new = added(services, AuthMethod.SELF_SIGNED_TLS_CLIENT_AUTH, jwks=jwks)
    sent = {"headers": from_nginx(MINE, "FAILED:self-signed certificate"), "environ_base": FRONT}
    return (
        "self_signed_tls_client_auth",
        new.client_id,
        {"data": GRANT | {"client_id": new.client_id}, **sent},
    )


WAYS = (_basic, _basic_encoded, _post, _signed, _by_authority, _self_signed)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_gives_a_token_and_the_entry_says_which(house: tuple[Services, Flask], way: Way) -> None:
    """Issue 6, 1; a token of a client that came with its certificate is bound to it (RFC 8705, section 3)."""
    services, app = house
    method, client_id, sent = way(services)

    answer = app.test_client().post("/oauth/token", **sent)

    assert answer.status_code == 200, answer.text
    entry = newest_entry(services)
    assert (entry["event_type"], entry["details"]["auth"]) == ("token.issued", method)
    with reading(services.engine) as conn:
        bound_to = conn.execute(
            select(tokens.c.thumbprint).where(tokens.c.client_id == client_id)
        ).scalar_one()
    assert bound_to == (read_certificate(pem(MINE)).thumbprint if "tls" in method else None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", ["/oauth/revoke", "/oauth/introspect"])
def test_a_way_is_open_at_every_endpoint(house: tuple[Services, Flask], way: Way, path: str) -> None:
    """RFC 7009, section 2.1 and RFC 7662, section 2.1: the same proof as at the token endpoint."""
    services, app = house
    _, _, sent = way(services)

    answer = app.test_client().post(path, **sent | {"data": sent["data"] | {"token": "flg_token_unknown"}})

    assert answer.status_code == 200


@pytest.mark.parametrize("way", WAYS)
def test_a_proof_opens_nothing_for_a_client_of_another_method(
    house: tuple[Services, Flask], way: Way
) -> None:
    """Exactly the registered method: the row is changed under the client's feet, its proof stays the same."""
    services, app = house
    method, client_id, sent = way(services)
    registered = method.removesuffix("_basic").removesuffix("_post")
    others = {other.value for other in ADDABLE} - {registered}

    for other in sorted(others):
        with services.engine.begin() as conn:
            conn.execute(update(clients).where(clients.c.client_id == client_id).values(auth_method=other))

        answer = app.test_client().post("/oauth/token", **sent)

        assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client"), other


@pytest.mark.parametrize(
    ("header", "error", "status"),
    [
        ("Basic !!!", "invalid_client", 401),
        ("Basic \xe9", "invalid_client", 401),
        ("Basic", "invalid_client", 401),
        ("Basic " + b64encode(b"\xff\xfe:x").decode(), "invalid_client", 401),
        ("Basic " + b64encode(b"%FF%FE:x").decode(), "invalid_client", 401),
        ("Basic " + b64encode(b"no colon").decode(), "invalid_client", 401),
        ("Basic " + b64encode(b"a%3Ab").decode(), "invalid_client", 401),
        ("Bearer flg_token_x", "invalid_client", 401),
        ("DPoP x", "invalid_client", 401),
    ],
)
def test_a_header_that_proves_nothing_is_refused_with_a_challenge(
    house: tuple[Services, Flask], header: str, error: str, status: int
) -> None:
    """RFC 6749, section 5.2: whoever used the header gets 401 and the scheme to use; never 500."""
    _, app = house

    answer = app.test_client().post("/oauth/token", data=GRANT, headers={"Authorization": header})

    assert (answer.status_code, answer.get_json()["error"]) == (status, error)
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


@pytest.mark.parametrize(
    ("headers", "environ", "reason"),
    [
        (from_nginx(MINE), {}, "CERTIFICATE_FORGED"),
        ({"X-SSL-Client-Verify": "SUCCESS"}, {}, "CERTIFICATE_FORGED"),
        ({}, FRONT, "PROOF_MISSING"),
        (from_nginx(MINE, "NONE"), FRONT, "PROOF_MISSING"),
        (from_nginx(MINE, "success"), FRONT, "PROOF_MISSING"),
        (from_nginx(MINE, "FAILED:unable to verify"), FRONT, "CERTIFICATE_UNKNOWN"),
        (from_nginx(OTHER, "FAILED:x"), FRONT, "CERTIFICATE_UNKNOWN"),
        (from_nginx(MINE) | {"X-SSL-Client-Cert": "canary"}, FRONT, "PROOF_MISSING"),
        (
            from_nginx(MINE)
            | {
                "X-SSL-Client-Cert": from_nginx(OTHER)["X-SSL-Client-Cert"]
                + from_nginx(MINE)["X-SSL-Client-Cert"]
            },
            FRONT,
            "PROOF_MISSING",
        ),
        (from_nginx(MINE) | {"X-SSL-Client-Cert": "a" * 20_000}, FRONT, "PROOF_MISSING"),
        (from_nginx(certificate(days=(-9, -2))), FRONT, "CERTIFICATE_OUT_OF_TIME"),
        (from_nginx(of_unknown_version(MINE), "FAILED:x"), FRONT, "PROOF_MISSING"),
        (from_nginx(with_bits_for_a_name(MINE), "FAILED:x"), FRONT, "PROOF_MISSING"),
    ],
)
def test_a_certificate_counts_from_the_front_alone(
    house: tuple[Services, Flask], headers: dict[str, str], environ: dict[str, str], reason: str
) -> None:
    """From anybody else the headers are as if absent, and the entry says that they were forged."""
    services, app = house
    new = added(services, AuthMethod.TLS_CLIENT_AUTH, subject_dn="CN=silo-a,O=Hospital")
    form = GRANT | {"client_id": new.client_id}

    answer = app.test_client().post("/oauth/token", data=form, headers=headers, environ_base=environ)

    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")
    entry = newest_entry(services)
    assert (entry["event_type"], entry["details"]["reason"]) == ("token.refused", reason)


def read_one(services: Services, client_id: str) -> Assertion:
    shown = ShownAssertion("", signed_form(services, client_id)["client_assertion"])
    return read_assertion(shown, frozenset({ISSUER}), services.clock())


def test_of_two_assertions_at_the_same_moment_one_is_taken(services: Services, config: Config) -> None:
    """RFC 7523, section 3, point 7: also by two replicas, which share nothing but the database."""
    other = open_services(config, part="web", clock=services.clock)
    client_id, tries = signing(services).client_id, 8

    for _ in range(5):
        assertion, start = read_one(services, client_id), threading.Barrier(tries)

        def take(number: int, assertion: Assertion = assertion, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                take_once((services, other)[number % 2], assertion)
            except ClientRefused:
                return False
            return True

        with ThreadPoolExecutor(tries) as pool:
            taken = list(pool.map(take, range(tries)))
        assert taken.count(True) == 1
    other.close()


def test_a_used_assertion_is_remembered_until_it_is_too_old_for_every_replica(
    services: Services, http: FlaskClient, clock: FixedClock
) -> None:
    """A row for each right signature, none for a wrong one; gone once nobody would take it any more."""
    client_id = signing(services).client_id
    good, wrong = signed_form(services, client_id), signed_form(services, client_id)
    wrong["client_assertion"] = wrong["client_assertion"][:-8] + "AAAAAAAA"

    def rows() -> int:
        with reading(services.engine) as conn:
            return int(conn.execute(select(func.count()).select_from(used_assertions)).scalar_one())

    assert [http.post("/oauth/token", data=form).status_code for form in (wrong, good, good)] == [
        401,
        200,
        401,
    ]
    assert rows() == 1
    clock.advance(timedelta(seconds=84))
    assert http.post("/oauth/token", data=good).status_code == 401
    assert (purge_expired(services), rows()) == (0, 1)
    clock.advance(KEPT_LONGER + timedelta(seconds=10))
    purge_expired(services)
    assert rows() == 0


def test_an_erasure_takes_what_was_used_with_it(services: Services, http: FlaskClient) -> None:
    """Art. 15 and 17: exported while it is there, gone with the client, and not written for a client that is gone."""
    new = signing(services)
    assert http.post("/oauth/token", data=signed_form(services, new.client_id)).status_code == 200
    place, late = ClientsPlace(services), read_one(services, new.client_id)

    exported = {part.category: list(part.rows) for part in place.export(new.subject_id)}
    place.erase(new.subject_id)

    assert exported["assertions"][0]["client_id"] == new.client_id
    assert exported["clients"][0]["jwks"]["keys"][0]["kid"] == "a"
    assert place.count(new.subject_id) == 0
    with pytest.raises(ClientRefused):
        take_once(services, late)


@pytest.mark.parametrize("change", [ClientChange(rotates_secret=True), None])
def test_a_proof_that_changes_while_a_token_is_issued_gives_none(
    services: Services, change: ClientChange | None
) -> None:
    """A token of the old proof must not be stored after the change has ended all the others."""
    new = added(services, AuthMethod.CLIENT_SECRET)
    client = find_client(services, new.client_id)
    assert client is not None

    if change is not None:
        change_client(services, new.client_id, change)

    with services.engine.begin() as conn:
        if change is None:
            confirm(conn, client)
        else:
            with pytest.raises(ClientRefused):
                confirm(conn, client)
