"""JWTs of our own (RFC 9068): issued to clients that wish them, judged strictly, ended before their time."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask.testing import FlaskClient
from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import OKPKey
from services.clock import FixedClock
from services.pebble import make_certificate
from signed_tokens import CLIENTS, GRANT, ISSUER, bearer, parts_of, signed_client, token_of
from sqlalchemy import func, select, update

from compliance.keyring.keys import SigningUse
from compliance.keyring.tables import signing_keys
from gateway.app import create_app
from gateway.auth.clients import Move, NewClient, add_client, move_client
from gateway.auth.issuing import new_access_token, store_access_token
from gateway.auth.jose import LONGEST_JWT
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import BUNDLES, Role
from gateway.auth.tokens import find, hash_of_jwt, purge_expired
from gateway.auth.tokens.signed import LEEWAY_S, MOST_KEPT
from gateway.config import Config
from gateway.services import Services
from gateway.storage.verdicts import LONGEST_S, Verdicts
from gateway.tables import clients, revoked_tokens, tokens


@pytest.fixture
def config(config: Config) -> Config:
    """A gateway that knows its name, behind a TLS front."""
    return replace(config, public_url=ISSUER, trusted_proxy="true")


@pytest.fixture
def signed(services: Services) -> NewClient:
    """An operator whose tokens are JWTs."""
    return signed_client(services)


def resigned(services: Services, token: str, header: dict[str, Any], claims: dict[str, Any]) -> str:
    """The token with other content, signed with our own key all the same; None takes a member away."""
    old_header, old_claims = parts_of(token)

    def written(old: dict[str, Any], new: dict[str, Any]) -> str:
        members = {name: value for name, value in (old | new).items() if value is not None}
        return base64.urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()

    text = f"{written(old_header, header)}.{written(old_claims, claims)}"
    key = services.keystore.signing_key(SigningUse.TOKEN).private
    return f"{text}.{base64.urlsafe_b64encode(key.sign(text.encode())).rstrip(b'=').decode()}"


def test_a_jwt_says_what_rfc_9068_wants(http: FlaskClient, signed: NewClient, clock: FixedClock) -> None:
    """Section 2.2: the claims, exactly; it opens the API, and another library verifies it by our jwks.json."""
    token = token_of(http, signed)

    header, claims = parts_of(token)
    assert {name: header[name] for name in ("alg", "typ")} == {"alg": "EdDSA", "typ": "at+jwt"}
    assert claims.pop("jti")
    assert claims == {
        "iss": ISSUER,
        "aud": ISSUER,
        "sub": signed.client_id,
        "client_id": signed.client_id,
        "iat": int(clock().timestamp()),
        "exp": int(clock().timestamp()) + 900,
        "scope": "client:manage client:register round:manage",
    }
    keys = {key["kid"]: key for key in http.get("/.well-known/jwks.json").get_json()["keys"]}
    with pytest.warns(SecurityWarning, match="EdDSA"):  # it knows the name, and would rather have Ed25519
        jws.deserialize_compact(token, OKPKey.import_key(keys[header["kid"]]), algorithms=["EdDSA"])
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200


@pytest.mark.parametrize(
    ("header", "claims"),
    [
        ({"typ": None}, {}),
        ({"typ": "JWT"}, {}),
        ({"typ": "fl-receipt+jwt"}, {}),
        ({"alg": "ES256"}, {}),
        ({"alg": "none"}, {}),
        ({"kid": "unknown"}, {}),
        ({"jku": "https://evil.example/jwks"}, {}),
        ({}, {"iss": "https://evil.example"}),
        ({}, {"iss": None}),
        ({}, {"aud": "https://other.example"}),
        ({}, {"aud": None}),
        ({}, {"exp": 1}),
        ({}, {"exp": None}),
        ({}, {"iat": None}),
        ({}, {"nbf": 1e11}),
        ({}, {"scope": 5}),
        ({}, {"scope": ["client:manage"]}),
        ({}, {"scope": None}),
        ({}, {"sub": None}),
        ({}, {"sub": "somebody else"}),
        ({}, {"client_id": 5}),
        ({}, {"jti": None}),
        ({}, {"cnf": {"jkt": "a" * 43}}),
        ({}, {"cnf": {"x5t#S256": "a" * 43, "jkt": "a" * 43}}),
        ({}, {"cnf": {"x5t#S256": "a" * 43}}),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_jwt_with_anything_amiss_is_refused(
    http: FlaskClient, services: Services, signed: NewClient, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Even with our own signature: RFC 9068, section 4; RFC 8725; RFC 8705, section 3."""
    token = token_of(http, signed)
    assert http.get(CLIENTS, headers=bearer(resigned(services, token, {}, {"extra": 1}))).status_code == 200

    answer = http.get(CLIENTS, headers=bearer(resigned(services, token, header, claims)))

    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


def test_a_false_signature_does_not_pass_after_the_right_one(http: FlaskClient, signed: NewClient) -> None:
    """The cache knows a JWT with its signature, not without."""
    token = token_of(http, signed)
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200

    signature = token.rpartition(".")[2]
    forged = token.replace(signature, signature[::-1])

    assert http.get(CLIENTS, headers=bearer(forged)).status_code == 401


def test_a_jwt_ends_at_its_time_and_with_its_client(
    http: FlaskClient, services: Services, signed: NewClient, clock: FixedClock
) -> None:
    """Suspension counts at once, though the token speaks for itself; exp counts to the second."""
    token = token_of(http, signed)
    move_client(services, signed.client_id, Move.SUSPEND)
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    move_client(services, signed.client_id, Move.RESUME)
    clock.advance(timedelta(seconds=899))
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200

    clock.advance(timedelta(seconds=1))

    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    assert find(services, token) is not None
    assert LEEWAY_S < 10


@pytest.mark.parametrize("is_at_hand", [True, False])
def test_a_revoked_jwt_opens_nothing(
    http: FlaskClient, services: Services, signed: NewClient, clock: FixedClock, *, is_at_hand: bool
) -> None:
    """RFC 7009: seen at once though it was cached, whether few are revoked or many; purged when it would have ended."""
    token, other = token_of(http, signed), token_of(http, signed)
    auth = (signed.client_id, signed.client_secret)
    if not is_at_hand:
        ended = [
            {
                "token_hash": sha256(str(number).encode()).hexdigest(),
                "client_id": signed.client_id,
                "expires_at": clock() + timedelta(minutes=5),
            }
            for number in range(MOST_KEPT + 1)
        ]
        with services.engine.begin() as conn:
            conn.execute(revoked_tokens.insert(), ended)
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200

    answer = http.post("/oauth/revoke", data={"token": token, "token_type_hint": "nonsense"}, auth=auth)

    assert answer.status_code == 200
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    assert http.post("/oauth/introspect", data={"token": token}, auth=auth).get_json() == {"active": False}
    assert http.get(CLIENTS, headers=bearer(other)).status_code == 200
    clock.advance(timedelta(seconds=901))
    purge_expired(services)
    clock.advance(timedelta(seconds=-2))  # another machine's clock is behind the one that purged
    services.state.endings.tell_of_every()
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    clock.advance(timedelta(minutes=2, seconds=2))
    purge_expired(services)
    with services.engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(revoked_tokens)).scalar_one() == 0


@pytest.mark.parametrize("what", ["token", "client", "key"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_another_machine_ends_is_refused_within_half_a_second(services: Services, what: str) -> None:
    """A verdict on a JWT rests on others: together they are no older than that."""
    now_s = [100.0]
    here = replace(services, verdicts=Verdicts(services.state.token_epoch, clock=lambda: now_s[0]))
    new = add_client(services, "signed", Role.OPERATOR)
    first, token = (
        new_access_token(here, Holder(new.client_id, "jwt"), BUNDLES[Role.OPERATOR]) for _ in "ab"
    )
    assert (
        find(here, first.text) is not None
    )  # the list of ended ones, the client and the keys are at hand now

    until = token.issued_at + timedelta(hours=1)
    ended = {"token_hash": hash_of_jwt(token.text), "client_id": new.client_id, "expires_at": until}
    with services.engine.begin() as conn, services.keystore_engine.begin() as keys:  # nobody here is told
        if what == "token":
            conn.execute(revoked_tokens.insert(), ended)
        elif what == "client":
            conn.execute(update(clients).values(status="suspended"))
        else:
            keys.execute(update(signing_keys).where(signing_keys.c.use == "token").values(public=bytes(32)))
    now_s[0] += LONGEST_S / 2 - 0.01
    find(here, token.text)
    now_s[0] = 100.0 + LONGEST_S

    found = find(here, token.text)
    assert found is None or not found.is_good(services.clock())


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_jwt_may_have_eight_thousand_characters(
    http: FlaskClient, services: Services, signed: NewClient
) -> None:
    """Issuers that list groups in tokens send as much; beyond it, it is refused unread."""
    token = token_of(http, signed)
    large, larger = (resigned(services, token, {}, {"groups": ["a" * 30] * number}) for number in (160, 180))

    assert 7000 < len(large) < LONGEST_JWT < len(larger) < 9000
    assert http.get(CLIENTS, headers=bearer(large)).status_code == 200
    assert http.get(CLIENTS, headers=bearer(larger)).status_code == 401


def test_a_jwt_without_its_row_can_be_revoked(
    http: FlaskClient, services: Services, signed: NewClient
) -> None:
    """A restore leaves access tokens out; a JWT is good all the same, and must be able to end."""
    token = token_of(http, signed)
    with services.engine.begin() as conn:
        conn.execute(tokens.delete())

    http.post("/oauth/revoke", data={"token": token}, auth=(signed.client_id, signed.client_secret))

    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401


def test_introspection_tells_of_a_jwt(
    http: FlaskClient, services: Services, signed: NewClient, clock: FixedClock
) -> None:
    """RFC 7662, section 2.2, with the binding of RFC 8705, section 3.2; of another's JWT nothing."""
    holder = replace_format(services, signed)
    token = new_access_token(services, holder, BUNDLES[Role.OPERATOR], thumbprint="t" * 43)
    other = add_client(services, "other", Role.PARTICIPANT)

    told = http.post(
        "/oauth/introspect", data={"token": token.text}, auth=(signed.client_id, signed.client_secret)
    )
    hidden = http.post(
        "/oauth/introspect", data={"token": token.text}, auth=(other.client_id, other.client_secret)
    )

    assert hidden.get_json() == {"active": False}
    assert told.get_json() == {
        "active": True,
        "token_type": "Bearer",
        "client_id": signed.client_id,
        "sub": signed.client_id,
        "scope": "client:manage client:register round:manage",
        "iat": int(clock().timestamp()),
        "exp": int(clock().timestamp()) + 900,
        "cnf": {"x5t#S256": "t" * 43},
    }


class Holder:
    """A client as `issuing` sees it."""

    def __init__(self, client_id: str, token_format: str) -> None:
        self.client_id, self.token_format = client_id, token_format


def replace_format(_services: Services, client: NewClient, token_format: str = "jwt") -> Holder:  # noqa: S107
    return Holder(client.client_id, token_format)


@pytest.mark.parametrize("token_format", ["opaque", "jwt"])
def test_a_bound_token_opens_with_its_certificate_alone(
    http: FlaskClient, services: Services, signed: NewClient, tmp_path: Any, token_format: str
) -> None:
    """RFC 8705, section 3: without the certificate, or with another, it is invalid_token."""
    shown = {name: certificate(tmp_path, name) for name in ("own", "other")}
    holder = replace_format(services, signed, token_format)
    token = new_access_token(services, holder, BUNDLES[Role.OPERATOR], thumbprint=shown["own"][1])
    with services.engine.begin() as conn:
        store_access_token(conn, services, token, client_id=signed.client_id)

    def status(**headers: str) -> int:
        verified = {"X-SSL-Client-Verify": "SUCCESS"} if headers else {}
        return http.get(
            CLIENTS,
            headers=bearer(token.text)
            | verified
            | {name.replace("_", "-"): value for name, value in headers.items()},
        ).status_code

    assert status(X_SSL_Client_Cert=shown["own"][0]) == 200
    assert status(X_SSL_Client_Cert=shown["other"][0]) == 401
    assert status() == 401


def certificate(folder: Any, name: str) -> tuple[str, str]:
    """A certificate as nginx hands it on, and its thumbprint."""
    make_certificate(folder / f"{name}.pem", folder / f"{name}.key", f"{name}.example")
    pem = (folder / f"{name}.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return quote(pem.decode(), safe=""), base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_jwt_names_no_issuer_that_a_host_header_made_up(services: Services, config: Config) -> None:
    """Where no setting names the issuer, only the machine itself gets a JWT."""
    nameless = replace(services, config=replace(config, public_url="", trusted_proxy="true"))
    client = add_client(nameless, "signed", Role.OPERATOR)
    with services.engine.begin() as conn:
        conn.execute(update(clients).values(token_format="jwt"))
    app = create_app(nameless)
    http = app.test_client()
    auth = (client.client_id, client.client_secret)

    def ask(host: str) -> Any:
        return http.post("/oauth/token", data=GRANT, auth=auth, headers={"Host": host})

    here, there = ask("127.0.0.1:8080"), ask("evil.example")
    opened = http.get(CLIENTS, headers=bearer(here.get_json()["access_token"]) | {"Host": "localhost"})
    close_refusals(app)

    assert parts_of(here.get_json()["access_token"])[1]["iss"] == "http://127.0.0.1:8080"
    assert opened.status_code == 200
    assert there.status_code == 421
    assert there.get_json()["error"] == "invalid_request"


def test_a_challenge_tells_where_the_metadata_is(http: FlaskClient, token_for: Callable[..., str]) -> None:
    """RFC 9728, section 5.1, beside the scope of RFC 6750 in a 403; without credentials no error code."""
    place = f'resource_metadata="{ISSUER}/.well-known/oauth-protected-resource"'

    without = http.get(CLIENTS).headers["WWW-Authenticate"]
    other = http.get(CLIENTS, headers=bearer(token_for("auditor")))

    assert without == f'Bearer realm="fl-gateway", {place}'
    assert other.status_code == 403
    assert other.headers["WWW-Authenticate"] == (
        f'Bearer realm="fl-gateway", error="insufficient_scope", scope="client:manage", {place}'
    )
