"""Tokens of outside issuers at the door, and the clients behind them: added once, followed, shut out, erased."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from services.clock import FixedClock
from services.issuer import SECRET, USER, OutsideIssuer, forged, issuing, new_key, sign
from sqlalchemy import select

from gateway.app import create_app
from gateway.auth.clients import Move, move_client
from gateway.auth.issuers import outside_issuers
from gateway.auth.refusals import close_refusals
from gateway.auth.roster import client_record
from gateway.errors import ConfigError
from gateway.services import Services
from gateway.tables import clients

ROUNDS, CLIENTS, ENTRIES = "/api/v1/rounds", "/api/v1/clients", "/api/v1/audit/entries"
OPERATOR = {"scopes": {"fl-ops": ["client:manage"]}, "roles": {"fl-ops": "operator"}}
Entries = Callable[..., list[dict[str, Any]]]
sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def issuer() -> Iterator[OutsideIssuer]:
    """An issuer that nobody trusts yet."""
    with issuing() as running:
        yield running


@pytest.fixture
def trusting(services: Services, issuer: OutsideIssuer) -> Iterator[Callable[..., FlaskClient]]:
    """A client of a gateway that trusts the issuer: `trusting(typ=["JWT"])`."""
    outside_issuers.cache_clear()  # a port may come again
    with ExitStack() as opened:

        def open_one(text: str = "", **members: Any) -> FlaskClient:
            config = replace(services.config, trusted_issuers=text or issuer.trusted(**members))
            app = create_app(replace(services, config=config))
            opened.callback(close_refusals, app)
            for trusted in outside_issuers(config.trusted_issuers).values():
                opened.callback(trusted.introspector.close if trusted.introspector else lambda: None)
            return app.test_client()

        yield open_one


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def found_clients(services: Services) -> list[Any]:
    with services.engine.connect() as conn:
        return list(conn.execute(select(clients)))


# At the door


@sqlite
def test_a_token_of_a_trusted_issuer_opens_what_it_is_worth(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], clock: FixedClock
) -> None:
    """200 for a scope that it has, 403 with the scope needed for another (RFC 6750, section 3.1)."""
    http = trusting()
    token = bearer(issuer.token(clock().timestamp()))

    taken, refused = http.get(ROUNDS, headers=token), http.get(CLIENTS, headers=token)

    assert taken.status_code == 200, taken.text
    assert refused.status_code == 403
    assert 'scope="client:manage"' in refused.headers["WWW-Authenticate"]


@sqlite
def test_a_bad_token_is_a_401_and_leaves_nothing(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    entries: Entries,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No row, no reason that helps a stranger, an entry, and a line for the operator that repeats no value."""
    http, now_s = trusting(), clock().timestamp()
    bad = [
        sign(new_key("one"), issuer.claims(now_s)),
        sign(issuer.keys[0], issuer.claims(now_s), kid=None),
        issuer.token(now_s, aud="https://other.example"),
        issuer.token(now_s, aud="https://another.example"),
        issuer.token(now_s - 3600),
        issuer.token(now_s, scope="openid"),
        issuer.token(now_s, iss="https://nobody.example"),
        forged({"alg": "none", "typ": "at+jwt"}, issuer.claims(now_s)),
    ]

    answers = [http.get(ROUNDS, headers=bearer(token)) for token in bad]

    assert [answer.status_code for answer in answers] == [401] * len(bad)
    assert all('error="invalid_token"' in answer.headers["WWW-Authenticate"] for answer in answers)
    assert len({answer.get_json()["detail"] for answer in answers}) == 1
    assert found_clients(services) == []
    assert entries("access.refused")
    assert all(reason in caplog.text for reason in ("signature", "audience", "expired", "no scope"))
    assert caplog.text.count("audience") == 1  # a flood of them fills no disk
    assert "silo-7" not in caplog.text


@sqlite
def test_a_token_s_own_key_or_address_is_never_looked_at(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], clock: FixedClock
) -> None:
    """RFC 8725, section 3.10: a canary server at the named place is not asked, whatever the token says."""
    http, thief = trusting(), new_key("thief")
    with issuing() as canary:
        claims = issuer.claims(clock().timestamp())
        headers = [
            {"jku": f"{canary.url}/jwks"},
            {"x5u": f"{canary.url}/cert"},
            {"jwk": thief.as_dict()},
            {"kid": f"{canary.url}/jwks"},
        ]
        tokens = [sign(thief, claims, **header) for header in headers]
        tokens.append(sign(thief, claims | {"iss": canary.name}))  # nobody trusts it
        tokens.append(sign(thief, claims | {"jwks_uri": f"{canary.url}/jwks"}))

        statuses = {http.get(ROUNDS, headers=bearer(token)).status_code for token in tokens}

        assert statuses == {401}
        assert not canary.asked


@sqlite
def test_a_flood_of_made_up_keys_does_not_reach_the_issuer(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], clock: FixedClock
) -> None:
    """A hostile token costs no fetch: the keys are asked for once."""
    http, claims = trusting(), issuer.claims(clock().timestamp())
    header = {"alg": "ES256", "typ": "at+jwt"}

    statuses = {
        http.get(ROUNDS, headers=bearer(forged(header | {"kid": str(uuid4())}, claims))).status_code
        for _ in range(200)
    }

    assert statuses == {401}
    assert issuer.asked["/jwks"] == 1
    assert http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp()))).status_code == 200


@sqlite
def test_while_the_issuer_is_away_the_answer_is_503(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    token_for: Callable[..., str],
) -> None:
    """Nobody can say whether the token is good; our own tokens do not care."""
    http = trusting()
    issuer.answers["/jwks"] = (503, {}, b"")

    away = http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp())))

    assert away.status_code == 503
    assert away.get_json()["code"] == "ISSUER_AWAY"
    assert away.headers["Retry-After"] == "5"
    assert http.get(ROUNDS, headers=bearer(token_for("participant"))).status_code == 200


@sqlite
def test_a_token_bound_to_a_certificate_is_refused_without_it(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], clock: FixedClock
) -> None:
    """RFC 8705, section 3: whoever stole it does not have the certificate's key."""
    token = issuer.token(clock().timestamp(), cnf={"x5t#S256": "x" * 43})

    assert trusting().get(ROUNDS, headers=bearer(token)).status_code == 401


@sqlite
def test_tokens_of_ours_are_never_shown_to_another_issuer(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], token_for: Callable[..., str], tmp_path: Path
) -> None:
    """Good, unknown or misspelt: what begins like one of ours is judged here alone."""
    (tmp_path / "secret").write_text(SECRET, "ascii")
    asking = {
        "endpoint": f"{issuer.url}/introspect",
        "client_id": USER,
        "client_secret_file": str(tmp_path / "secret"),
    }
    http = trusting(introspection=asking)
    ours = ["flg_token_" + "x" * 43, "flg_key_short", "flg_", "flg_reg_" + "x" * 50]

    statuses = [http.get(ROUNDS, headers=bearer(token)).status_code for token in ours]
    good = http.get(ROUNDS, headers=bearer(token_for("participant"))).status_code

    assert (statuses, good) == ([401] * 4, 200)
    assert not issuer.asked
    assert http.get(ROUNDS, headers=bearer("of-somebody-else")).status_code == 401
    assert issuer.asked == {"/introspect": 1}


@sqlite
def test_without_the_setting_no_token_of_others_is_taken(
    http: FlaskClient, issuer: OutsideIssuer, clock: FixedClock
) -> None:
    """And nobody is asked about it."""
    assert http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp()))).status_code == 401
    assert not issuer.asked


@sqlite
def test_the_metadata_names_the_outside_issuers(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient]
) -> None:
    """RFC 9728: a client learns where it may get its token, the gateway's own first."""
    told = trusting().get("/.well-known/oauth-protected-resource").get_json()

    assert told["authorization_servers"] == ["http://localhost", issuer.name]


def test_a_setting_that_cannot_be_read_stops_the_start(services: Services) -> None:
    """And not the first request with such a token."""
    config = replace(services.config, trusted_issuers='[{"issuer": "https://idp.example"}]')

    with pytest.raises(ConfigError, match="audience"):
        create_app(replace(services, config=config))


# The clients behind them


def test_a_client_is_added_at_its_first_token(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    entries: Entries,
) -> None:
    """A random id, a subject of its own, a sealed name, a keyed index, and an entry: once."""
    http = trusting()

    for _ in range(3):
        assert http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp()))).status_code == 200
        clock.advance(timedelta(seconds=1))

    (row,) = found_clients(services)
    assert (row.role, row.auth_method, row.status) == ("participant", "outside", "active")
    assert client_record(services, row.client_id).name == f"{issuer.name}#silo-7"
    assert "silo-7" not in repr(tuple(row))
    assert row.last_seen_at is not None
    (entry,) = entries("client.registered")
    assert entry["actor"] == {"client_id": row.client_id, "role": "participant"}
    assert entry["details"] == {
        "client_id": row.client_id,
        "role": "participant",
        "signs": False,
        "auth": "outside",
    }
    assert entry["sealed"] == {"client_id"}


def test_first_requests_at_once_add_one_client(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    entries: Entries,
) -> None:
    """The unique index decides; whoever comes second uses the row of the first."""
    http = trusting()
    tokens = [issuer.token(clock().timestamp(), jti=str(n)) for n in range(8)]

    with ThreadPoolExecutor(8) as pool:
        apps = [http.application.test_client() for _ in tokens]
        answers = list(pool.map(lambda app, token: app.get(ROUNDS, headers=bearer(token)), apps, tokens))

    assert [answer.status_code for answer in answers] == [200] * 8
    assert len(found_clients(services)) == 1
    assert len(entries("client.registered")) == 1


@sqlite
def test_the_same_name_at_two_issuers_is_two_clients(
    issuer: OutsideIssuer, trusting: Callable[..., FlaskClient], clock: FixedClock, services: Services
) -> None:
    """A subject is unique at its issuer alone (RFC 7519, section 4.1.2)."""
    with issuing() as other:
        http = trusting(json.dumps(json.loads(issuer.trusted()) + json.loads(other.trusted())))
        for one in (issuer, other):
            assert http.get(ROUNDS, headers=bearer(one.token(clock().timestamp()))).status_code == 200

    assert len({row.subject_id for row in found_clients(services)}) == 2


@sqlite
def test_a_role_follows_the_token(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    entries: Entries,
) -> None:
    """When the issuer, or the operator's table, gives another one: row and entry in one transaction."""
    http = trusting(**OPERATOR)
    now_s = clock().timestamp()
    first = http.get(CLIENTS, headers=bearer(issuer.token(now_s, scope="fl-ops")))
    changed = trusting().get(ROUNDS, headers=bearer(issuer.token(now_s)))

    assert (first.status_code, changed.status_code) == (200, 200)
    (row,) = found_clients(services)
    assert row.role == "participant"
    (entry,) = entries("client.changed")
    assert entry["details"] == {"client_id": row.client_id, "role": "participant", "changed": ["role"]}


@sqlite
def test_tokens_that_alternate_their_roles_do_not_flood_the_log(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    entries: Entries,
) -> None:
    """Each request goes by its own token; the row follows once a minute, and so do its entries."""
    http, now_s = trusting(**OPERATOR, scope_claim="roles"), clock().timestamp()
    both = [issuer.token(now_s, roles=["fl-ops"], jti=str(n)) for n in range(3)]
    both += [issuer.token(now_s, roles=["other"], jti=str(n)) for n in range(3)]

    answers = [
        http.get(CLIENTS, headers=bearer(token)).status_code for token in both[::3] + both[1::3] + both
    ]
    clock.advance(timedelta(minutes=1))
    later = http.get(CLIENTS, headers=bearer(issuer.token(clock().timestamp(), roles=["fl-ops"])))

    assert answers[:2] == [200, 403]
    assert len(entries("client.changed")) == 2
    assert later.status_code == 200
    assert [row.role for row in found_clients(services)] == ["operator"]


@pytest.mark.parametrize("move", [Move.SUSPEND, Move.REVOKE])
def test_a_client_that_was_shut_out_stays_out(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    move: Move,
) -> None:
    """However good its tokens are, and whatever role they have now."""
    http = trusting(**OPERATOR, scope_claim="roles")
    now_s = clock().timestamp()
    good = issuer.token(now_s, roles=["fl-ops"])
    assert http.get(CLIENTS, headers=bearer(good)).status_code == 200
    (row,) = found_clients(services)

    move_client(services, row.client_id, move)
    clock.advance(timedelta(seconds=1))
    later = issuer.token(clock().timestamp(), roles=["other"])
    fresh = issuer.token(clock().timestamp(), roles=["fl-ops"])

    statuses = [http.get(CLIENTS, headers=bearer(token)).status_code for token in (good, fresh, later)]
    assert statuses == [401, 401, 401]
    assert [row.role for row in found_clients(services)] == ["operator"]
    if move is Move.SUSPEND:
        move_client(services, row.client_id, Move.RESUME)
        assert http.get(CLIENTS, headers=bearer(fresh)).status_code == 200


@sqlite
def test_an_erased_person_that_comes_again_is_somebody_new(
    issuer: OutsideIssuer,
    trusting: Callable[..., FlaskClient],
    clock: FixedClock,
    services: Services,
    token_for: Callable[..., str],
) -> None:
    """Decision 0137: no index, no name and no row of the erased one are left to know it by."""
    http = trusting()
    assert http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp()))).status_code == 200
    (before,) = found_clients(services)
    wish = {"type": "erasure", "subject": {"client_id": before.client_id}}
    dpo = bearer(token_for("dpo"))
    opened = http.post("/api/v1/privacy/requests", json=wish, headers=dpo).get_json()
    erased = http.post(f"/api/v1/privacy/requests/{opened['id']}/approve", headers=dpo).get_json()
    left = [row.client_id for row in found_clients(services)]

    clock.advance(timedelta(seconds=1))
    again = http.get(ROUNDS, headers=bearer(issuer.token(clock().timestamp())))

    assert erased["status"] == "completed"
    assert before.client_id not in left
    assert again.status_code == 200
    (after,) = [row for row in found_clients(services) if row.auth_method == "outside"]
    assert after.client_id != before.client_id
    assert after.subject_id != before.subject_id
