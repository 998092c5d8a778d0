"""Getting, asking about and ending tokens over HTTP, on both databases (RFC 6749, 7009, 7662, 8414, 9728)."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import event, func, select

from compliance.keyring.keys import SigningUse
from compliance.subjects import mark_erasing
from gateway.auth.clients import Move, NewClient, move_client
from gateway.auth.tokens import purge_expired
from gateway.services import Services
from gateway.tables import tokens

CLIENTS = "/api/v1/clients"
GRANT = {"grant_type": "client_credentials"}
ClientOf = Callable[[str], NewClient]


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_a_secret_gets_a_token_that_opens_the_api(
    http: FlaskClient, client_of: ClientOf, entries: Callable[..., list]
) -> None:
    """RFC 6749, 4.4: basic authentication, all scopes of the role, no-store, and an entry."""
    operator = client_of("operator")

    answer = http.post("/oauth/token", data=GRANT, auth=(operator.client_id, operator.client_secret))

    body = answer.get_json()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 900
    assert body["scope"] == "client:manage client:register round:manage"
    assert http.get(CLIENTS, headers=bearer(body["access_token"])).status_code == 200
    (entry,) = entries("token.issued")
    assert entry["actor"] == {"client_id": operator.client_id, "role": "operator"}
    assert entry["details"]["scope"] == body["scope"]


def test_a_secret_in_the_form_is_as_good(http: FlaskClient, client_of: ClientOf) -> None:
    """client_secret_post."""
    auditor = client_of("auditor")

    answer = http.post(
        "/oauth/token",
        data=GRANT | {"client_id": auditor.client_id, "client_secret": auditor.client_secret},
    )

    assert answer.status_code == 200
    assert answer.get_json()["scope"] == "audit:read"


@pytest.mark.parametrize(
    ("role", "wish", "scope"),
    [
        ("dpo", "privacy:*", "privacy:export privacy:erase privacy:manage privacy:hold"),
        ("operator", "round:manage", "round:manage"),
        ("edge", "round:aggregate training:participate", "training:participate round:aggregate"),
        ("siem", "", "audit:read"),
    ],
)
def test_a_token_carries_what_was_wished(
    http: FlaskClient, client_of: ClientOf, role: str, wish: str, scope: str
) -> None:
    """API.md, Identity: the wish within the role; the wildcard is spelled out; an empty wish is all."""
    new = client_of(role)

    answer = http.post("/oauth/token", data=GRANT | {"scope": wish}, auth=(new.client_id, new.client_secret))

    assert answer.get_json()["scope"] == scope


@pytest.mark.parametrize("who", ["wrong secret", "unknown client", "no id at all", "suspended", "revoked"])
def test_whoever_is_not_let_in_gets_the_same_answer(
    http: FlaskClient, client_of: ClientOf, services: Services, entries: Callable[..., list], who: str
) -> None:
    """RFC 6749, 5.2: 401 invalid_client with a Basic challenge; the answer tells no state of any client."""
    new = client_of("participant")
    auth = {
        "wrong secret": (new.client_id, "flg_secret_wrong"),
        "unknown client": (str(uuid4()), new.client_secret),
        "no id at all": ("hospital-a", "password"),
    }.get(who, (new.client_id, new.client_secret))
    for state, move in (("suspended", Move.SUSPEND), ("revoked", Move.REVOKE)):
        if who == state:
            move_client(services, new.client_id, move)

    answer = http.post("/oauth/token", data=GRANT, auth=auth)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="fl-gateway", charset="UTF-8"'
    assert answer.get_json() == {
        "error": "invalid_client",
        "error_description": "The client id or its secret is wrong, or the client is suspended",
    }
    (entry,) = entries("token.refused")
    assert entry["outcome"] == "denied"
    assert entry["details"]["claimed_client_id"] == auth[0]
    assert "claimed_client_id" in entry["sealed"]


def test_guessing_a_secret_is_slowed_and_a_right_one_is_not(http: FlaskClient, client_of: ClientOf) -> None:
    """API.md: auth_failures per (address, client id); a right secret is never refused."""
    new, other = client_of("participant"), client_of("participant")
    wrong = (new.client_id, "flg_secret_wrong")

    answers = [http.post("/oauth/token", data=GRANT, auth=wrong) for _ in range(31)]

    assert [answer.status_code for answer in answers] == [401] * 30 + [429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
    right = http.post("/oauth/token", data=GRANT, auth=(new.client_id, new.client_secret))
    assert right.status_code == 200
    others = http.post("/oauth/token", data=GRANT, auth=(other.client_id, "flg_secret_wrong"))
    assert others.status_code == 401


@pytest.mark.parametrize("claimed", ["3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1", "hospital-a", ""])
def test_an_unknown_client_costs_what_a_wrong_secret_costs(
    http: FlaskClient, client_of: ClientOf, services: Services, monkeypatch: pytest.MonkeyPatch, claimed: str
) -> None:
    """No measurement of time tells whether a client exists: the same query and one comparison of equal length."""
    new, work = client_of("participant"), []
    compare = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: work.append((len(a), len(b))) or compare(a, b))
    event.listen(services.engine, "before_cursor_execute", lambda *about: work.append(about[2]))

    def work_of(client_id: str) -> list[object]:
        http.post("/oauth/token", data=GRANT, auth=(client_id, "flg_secret_wrong"))
        done = [step for step in work if step == (64, 64) or "FROM clients" in str(step)]
        work.clear()
        return done

    wrong = work_of(new.client_id)
    assert len(wrong) == 2
    assert work_of(claimed) == wrong


def test_an_expired_token_is_refused_and_purged(
    http: FlaskClient, token_for: Callable[..., str], clock: FixedClock, services: Services
) -> None:
    """A token lasts FLG_TOKEN_TTL_S; the worker deletes what has expired."""
    token = token_for("operator")
    clock.advance(timedelta(seconds=899))
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 200

    clock.advance(timedelta(seconds=1))
    answer = http.get(CLIENTS, headers=bearer(token))

    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    assert purge_expired(services) == 1
    with services.engine.connect() as conn:
        assert conn.execute(select(func.count()).select_from(tokens)).scalar_one() == 0


def test_a_client_ends_its_own_token(
    http: FlaskClient, client_of: ClientOf, entries: Callable[..., list]
) -> None:
    """RFC 7009: revoked at once, with an entry; again, or an unknown token, is 200 too."""
    new = client_of("operator")
    auth = (new.client_id, new.client_secret)
    token = http.post("/oauth/token", data=GRANT, auth=auth).get_json()["access_token"]

    answers = [
        http.post("/oauth/revoke", data={"token": token, "token_type_hint": "x"}, auth=auth) for _ in "ab"
    ]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert http.get(CLIENTS, headers=bearer(token)).status_code == 401
    assert len(entries("token.revoked")) == 1


def test_introspection_tells_of_ones_own_token_and_operators_of_any(
    http: FlaskClient, client_of: ClientOf
) -> None:
    """RFC 7662: others learn `active: false` and nothing else."""
    owner, operator, stranger = client_of("participant"), client_of("operator"), client_of("auditor")
    issued = http.post("/oauth/token", data=GRANT, auth=(owner.client_id, owner.client_secret)).get_json()

    def ask(new: NewClient) -> dict:
        form = {"token": issued["access_token"]}
        return http.post("/oauth/introspect", data=form, auth=(new.client_id, new.client_secret)).get_json()

    own = ask(owner)
    assert own["active"]
    assert own["client_id"] == owner.client_id
    assert set(own["scope"].split()) == {"training:participate", "model:download"}
    assert own["exp"] - own["iat"] == 900
    assert ask(operator) == own
    assert ask(stranger) == {"active": False}
    assert http.post("/oauth/introspect", data={"token": "x"}).status_code == 401


def test_a_person_who_is_being_erased_gets_no_token(
    http: FlaskClient, client_of: ClientOf, services: Services, entries: Callable[..., list]
) -> None:
    """RULES 18: nothing is written for it any more; the refusal is written without it."""
    new = client_of("participant")
    with services.engine.begin() as conn:
        mark_erasing(conn, new.subject_id)

    answer = http.post("/oauth/token", data=GRANT, auth=(new.client_id, new.client_secret))

    assert (answer.status_code, answer.get_json()["error"]) == (401, "invalid_client")
    assert entries("token.issued") == []
    (entry,) = entries("token.refused")
    assert entry["actor"] == "unproven"


def test_the_metadata_tells_what_is_offered(http: FlaskClient, services: Services) -> None:
    """RFC 8414 and RFC 9728; jwks.json has the keys that sign JWS, and not the log's."""
    receipt = services.keystore.signing_key(SigningUse.RECEIPT)
    services.keystore.signing_key(SigningUse.LOG)

    server = http.get("/.well-known/oauth-authorization-server").get_json()
    resource = http.get("/.well-known/oauth-protected-resource").get_json()
    keys = http.get("/.well-known/jwks.json").get_json()["keys"]

    assert server["issuer"] == "http://localhost"
    assert server["token_endpoint"] == "http://localhost/oauth/token"
    assert server["token_endpoint_auth_methods_supported"] == [
        "client_secret_basic",
        "client_secret_post",
        "private_key_jwt",
    ]
    assert resource["authorization_servers"] == [server["issuer"]]
    assert resource["bearer_methods_supported"] == ["header"]
    assert [(key["kid"], key["kty"], key["alg"], key["use"]) for key in keys] == [
        (receipt.kid, "OKP", "EdDSA", "sig")
    ]


def test_no_secret_is_in_any_stored_byte_or_log_line(
    http: FlaskClient,
    client_of: ClientOf,
    services: Services,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 8: tokens, secrets and API keys are kept as hashes, and never logged, not even at DEBUG."""
    caplog.set_level(logging.DEBUG)
    new = client_of("operator")
    token = http.post("/oauth/token", data=GRANT, auth=(new.client_id, new.client_secret)).get_json()
    registered = http.post(
        f"{CLIENTS}/register", json={}, headers=bearer(str(new.api_key)) | {"Idempotency-Key": "k"}
    ).get_json()
    http.post("/oauth/token", data=GRANT, auth=(new.client_id, f"{new.client_secret}x"))
    http.get(CLIENTS, headers=bearer(f"{token['access_token']}x"))
    secrets = [new.client_secret, new.api_key, token["access_token"], registered["registration_token"]]

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    if services.engine.dialect.name == "postgresql":
        kept += _dump(services).encode()

    assert new.client_id.replace("-", "").encode() in kept.replace(
        b"-", b""
    )  # so that the search would find it
    for secret in secrets:
        assert str(secret).encode() not in kept
        assert str(secret) not in caplog.text
        assert str(secret) not in repr(new)


def _dump(services: Services) -> str:
    with services.engine.connect() as conn:
        names = (
            conn.exec_driver_sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
            .scalars()
            .all()
        )
        rows = (conn.exec_driver_sql(f'SELECT * FROM "{name}"').all() for name in names)  # noqa: S608
        return "".join(map(str, rows))
