"""Authorisation in one place: the table of rules is what the door keeps, the document says, and the routes are."""

from __future__ import annotations

import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation import Federation, Silo, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from gateway.auth.client_keys import set_public_key
from gateway.auth.clients import add_client
from gateway.auth.roster import public_key_of
from gateway.auth.rules import RULES, Owner, Proof, RouteWithoutRule, check_rules, rules_of
from gateway.auth.scopes import BUNDLES, Role, Scope
from gateway.auth.tokens import AuthenticatedClient
from gateway.config import Config
from gateway.errors import Conflict
from gateway.services import Services

pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite"], indirect=True
)  # no query of its own is tested
Entries = Callable[..., list]
Verdict = tuple[dict[str, Any], dict[str, Any]]  # what was got of another's object, and what may be
TokenFor = Callable[..., str]
KEY = "/api/v1/clients/me/public-key"
_VALUES = {"int": "1", "uuid": str(uuid4()), "path": "x/000", "": "x"}


@pytest.fixture
def config(config: Config) -> Config:
    """No limit stands in the way of walking all routes."""
    classes = ("models", "updates", "rounds", "register", "auth_failures", "auth_addresses", "sign_ins")
    return replace(config, rate_limits=";".join(f"{name}=9000/second" for name in classes))


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and an open round."""
    made = Federation(services, http)
    made.add_model()
    made.open_round()
    return made


@dataclass(frozen=True, slots=True)
class Visit:
    """A request to a route, with what its template needs filled in."""

    endpoint: str
    method: str
    url: str

    def by(self, http: FlaskClient, token: str | None = None) -> TestResponse:
        """The answer to a caller with that token, or with nothing."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return http.open(self.url, method=self.method, headers=headers, buffered=True)


def visits(app: Flask, proof: Proof) -> Iterator[Visit]:
    """A request by each method to each route that asks for this proof."""
    for route in app.url_map.iter_rules():
        url = re.sub(r"<(?:(\w+):)?\w+>", lambda found: _VALUES[found[1] or ""], route.rule)
        for method in sorted((route.methods or set()) - {"HEAD", "OPTIONS"}):
            if rules_of(app)[route.endpoint].proof is proof:
                yield Visit(route.endpoint, method, url)


def test_the_table_has_each_route_and_no_other(app: Flask) -> None:
    """A route without a row, and a row without a route."""
    routes = {route.endpoint for route in app.url_map.iter_rules()}

    assert routes == set(RULES)


def test_a_route_without_a_row_does_not_start(app: Flask, http: FlaskClient) -> None:
    """Deny by default: the gateway refuses to start; and a row that is gone is an answer of 500, never an open door."""
    del rules_of(app)["clients.show_clients"]
    app.testing = False

    with pytest.raises(RouteWithoutRule, match=r"add a row to RULES .* clients\.show_clients"):
        check_rules(app)
    assert http.get("/api/v1/clients").status_code == 500


def test_no_token_no_way_in(app: Flask, http: FlaskClient) -> None:
    """Each route that asks for a token answers 401 to who has none, or a made-up one."""
    walked = list(visits(app, Proof.TOKEN))

    for visit in walked:
        bare, made_up = visit.by(http), visit.by(http, "flg_token_made_up")
        assert (bare.status_code, made_up.status_code) == (401, 401), visit
        assert bare.headers["WWW-Authenticate"] == 'Bearer realm="fl-gateway"', visit
    assert len(walked) > 30


def test_a_token_for_something_else_is_no_way_in(
    app: Flask, http: FlaskClient, federation: Federation, token_for: TokenFor
) -> None:
    """Each role at each route: 403 with a scope that would do exactly where the table gives the role none of them."""
    federation.sequence()
    roles = (Role.PARTICIPANT, Role.OPERATOR, Role.DPO, Role.AUDITOR)
    tokens = {role: token_for(role.value) for role in roles}

    for visit in visits(app, Proof.TOKEN):
        needed = rules_of(app)[visit.endpoint].scopes
        for role, token in tokens.items():
            if visit.endpoint == "audit_stream.show_stream" and role is Role.AUDITOR:
                continue  # it would go on and on
            answer = visit.by(http, token)
            is_shut_out = answer.status_code == 403 and answer.json["code"] == "INSUFFICIENT_SCOPE"
            assert is_shut_out is set(needed).isdisjoint(BUNDLES[role]), (visit, role, answer.status_code)
            if is_shut_out:
                assert f'scope="{needed[0]}"' in answer.headers["WWW-Authenticate"], visit


def test_who_proves_nothing_is_no_client_and_no_person(app: Flask, http: FlaskClient) -> None:
    """Routes whose view looks at the proof refuse who has none: clients by an error, people by the sign-in page."""
    clients, people = list(visits(app, Proof.CLIENT)), list(visits(app, Proof.PERSON))

    refused = {visit: visit.by(http).status_code for visit in clients}
    sent_away = {visit: visit.by(http) for visit in people}

    assert set(refused.values()) <= {400, 401}, refused
    for visit, answer in sent_away.items():
        assert answer.status_code in (302, 303, 400, 401, 403), (visit, answer.status_code)
    assert len(clients) >= 3


def test_the_document_says_what_the_table_says(app: Flask, http: FlaskClient) -> None:
    """Issue point 9: the OpenAPI document's security is made from the table."""
    document = http.get("/api/v1/openapi.json").json
    schemes = document["components"]["securitySchemes"]
    assert {"clientCredentials", "authorizationCode"} == set(schemes["oauth2"]["flows"])

    for route in app.url_map.iter_rules():
        path, rule = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.rule), rules_of(app)[route.endpoint]
        for method in {"GET", "POST", "PUT", "DELETE"} & (route.methods or set()):
            said = document["paths"].get(path, {}).get(method.lower())
            if said is None:
                continue  # a page for people, or metadata: test_openapi knows which may be missing
            wanted = {
                scope
                for one in said["security"]
                for kind in ("oauth2", "session")
                for scope in one.get(kind, [])
            }
            assert wanted == set(rule.scopes), path
            assert ({} in said["security"]) is bool(rule.open_by or rule.proof is Proof.CLIENT), path
            assert said.get("x-rate-limit") == rule.limit, path
            assert all(set(one) <= set(schemes) for one in said["security"]), path
    described = {scope for flow in schemes["oauth2"]["flows"].values() for scope in flow["scopes"]}
    assert described == set(Scope)


# Ownership: one client's object in the hands of another client of the same role


@dataclass(frozen=True, slots=True)
class Pair:
    """Two clients of one role; the first has sent an update, under an idempotency key."""

    federation: Federation
    first: Silo
    second: Silo
    update_id: str


@pytest.fixture
def pair(federation: Federation) -> Pair:
    """The two clients."""
    first, second = federation.register("a"), federation.register("b")
    sent = federation.submit(first, file_of(tensors(0.5)), headers={"Idempotency-Key": "once"})
    federation.sequence()
    return Pair(federation, first, second, sent.json["update_id"])


def _not_found(pair: Pair, url: str) -> Verdict:
    """The owner sees it; the other gets what it gets for an object that nobody has, and no entry tells of it."""
    http, other = pair.federation.http, url.replace(pair.update_id, str(uuid4()))
    own = http.get(url, headers=pair.first.headers)
    before = pair.federation.sequence()

    strange, none = (http.get(one, headers=pair.second.headers) for one in (url, other))

    return (
        {
            "owner": own.status_code,
            "other": strange.status_code,
            "what nobody has": none.status_code,
            "told": _without_ids(strange),
            "entries": [before, pair.federation.sequence()],
        },
        {
            "owner": 200,
            "other": 404,
            "what nobody has": 404,
            "told": _without_ids(none),
            "entries": [0, 0],
        },
    )


def _without_ids(answer: TestResponse) -> dict[str, Any]:
    told: dict[str, Any] = answer.json
    return {**told, "error": {**told.get("error", {}), "request_id": "", "timestamp": ""}}


def _own_update(pair: Pair) -> Verdict:
    return _not_found(pair, f"/api/v1/updates/{pair.update_id}")


def _own_receipt(pair: Pair) -> Verdict:
    return _not_found(pair, f"/api/v1/updates/{pair.update_id}/receipt")


def _own_answer_to_an_update(pair: Pair) -> Verdict:
    """The first one's idempotency key is nothing to the second, whose update is its own."""
    sent = pair.federation.submit(pair.second, file_of(tensors(0.5)), headers={"Idempotency-Key": "once"})

    is_the_firsts = sent.json.get("update_id") == pair.update_id
    return (
        {"answer": sent.status_code, "is the first one's": is_the_firsts},
        {"answer": 202, "is the first one's": False},
    )


def _own_answer_to_a_registration(pair: Pair) -> Verdict:
    """Two owners of API keys that think of one idempotency key get a client each."""
    http, body = pair.federation.http, {"name": "a"}
    headers = [{**pair.federation.staff("operator"), "Idempotency-Key": "once"} for _ in "ab"]

    first, second = (http.post("/api/v1/clients/register", json=body, headers=one) for one in headers)

    same = [
        name for name in ("client_id", "registration_token") if first.json.get(name) == second.json.get(name)
    ]
    return (
        {"answers": [first.status_code, second.status_code], "what is the same": same},
        {"answers": [201, 201], "what is the same": []},
    )


def _own_invitations(pair: Pair) -> Verdict:
    """Whoever was not drawn sees no invitation, and says nobody else's id to get one."""
    federation = pair.federation
    federation.add_model()
    federation.open_round(selection={"strategy": "random"}, planned_clients=1, base_version="2.0.0")
    federation.work()
    url = f"/api/v1/invitations?client_id={pair.first.client_id}"

    shown = [
        federation.http.get(url, headers=silo.headers).json["data"] for silo in (pair.first, pair.second)
    ]

    drawn = [[one for one in invitations if one["round_number"] == 2] for invitations in shown]
    return {"invitations": sorted(len(invitations) for invitations in drawn)}, {"invitations": [0, 1]}


def _own_key(pair: Pair) -> Verdict:
    """Each sets its own key and no other's."""
    key = b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()

    answer = pair.federation.http.put(KEY, json={"public_key": key}, headers=pair.second.headers)

    keys = [public_key_of(pair.federation.services, silo.client_id) for silo in (pair.second, pair.first)]
    return {"answer": answer.status_code, "keys": keys}, {"answer": 204, "keys": [key, None]}


def _strangers_token(pair: Pair, path: str) -> tuple[TestResponse, dict[str, str]]:
    headers = pair.federation.staff("participant")
    token = headers["Authorization"].removeprefix("Bearer ")
    services, http = pair.federation.services, pair.federation.http
    other = add_client(services, "another", Role.PARTICIPANT)
    answer = http.post(path, data={"token": token}, auth=(other.client_id, other.client_secret))
    return answer, headers


def _own_tokens_are_revoked(pair: Pair) -> Verdict:
    """RFC 7009, 2.1: another client's token is not revoked, and who holds it hears that it is not its own."""
    answer, headers = _strangers_token(pair, "/oauth/revoke")

    use = pair.federation.http.get("/api/v1/rounds", headers=headers)
    return (
        {"answer": answer.status_code, "told": answer.json.get("error"), "use": use.status_code},
        {"answer": 400, "told": "invalid_grant", "use": 200},
    )


def _own_tokens_are_shown(pair: Pair) -> Verdict:
    """RFC 7662, 2.2: another client's token is inactive, and nothing else is said of it."""
    answer, headers = _strangers_token(pair, "/oauth/introspect")

    use = pair.federation.http.get("/api/v1/rounds", headers=headers)
    return (
        {"answer": answer.status_code, "told": answer.json, "use": use.status_code},
        {"answer": 200, "told": {"active": False}, "use": 200},
    )


OWNED: dict[str, Callable[[Pair], Verdict]] = {
    "updates.show_update": _own_update,
    "updates.show_receipt": _own_receipt,
    "updates.send_update": _own_answer_to_an_update,
    "clients.register": _own_answer_to_a_registration,
    "clients.put_public_key": _own_key,
    "invitations.show_invitations": _own_invitations,
    "oauth.revoke_token": _own_tokens_are_revoked,
    "oauth.introspect_token": _own_tokens_are_shown,
}
_BY_SESSION = (Owner.OWN_ACCOUNT,)  # tests of the console: a session's cookie names the account


@pytest.mark.parametrize("endpoint", OWNED)
def test_one_client_never_sees_what_is_anothers(pair: Pair, endpoint: str) -> None:
    """Issue point 9: a client can only see its own; another's is not found, or is as if it were not there."""
    got, may_get = OWNED[endpoint](pair)

    assert got == may_get


def test_no_owned_route_is_forgotten(app: Flask) -> None:
    """Whoever gives a route an owner says above how another client is kept from it."""
    owned = {name for name, rule in rules_of(app).items() if rule.owner not in (Owner.EVERYONE, *_BY_SESSION)}

    assert owned == set(OWNED)


# The key that signs a client's updates


def _pair_of_keys() -> tuple[Ed25519PrivateKey, str]:
    private = Ed25519PrivateKey.generate()
    return private, b64encode(private.public_key().public_bytes_raw()).decode()


def _signed(private: Ed25519PrivateKey, body: bytes) -> dict[str, str]:
    return {"X-Client-Signature": b64encode(private.sign(sha256(body).digest())).decode()}


def test_a_client_registers_a_key_and_puts_another_in_its_place(
    federation: Federation, entries: Entries
) -> None:
    """Its updates must be signed from then on; the old key signs the change to the new one."""
    silo, http = federation.register(), federation.http
    (old, old_text), (new, new_text) = _pair_of_keys(), _pair_of_keys()
    body, update = f'{{"public_key": "{new_text}"}}'.encode(), file_of(tensors(0.5))
    json = {"Content-Type": "application/json", **silo.headers}

    first = http.put(KEY, json={"public_key": old_text}, headers=silo.headers)
    unsigned = federation.submit(silo, update)
    stolen = http.put(KEY, data=body, headers=json)
    forged = http.put(KEY, data=body, headers={**json, **_signed(new, body)})
    second = http.put(KEY, data=body, headers={**json, **_signed(old, body)})

    assert [first.status_code, second.status_code] == [204, 204]
    assert [answer.json["code"] for answer in (unsigned, stolen, forged)] == ["SIGNATURE_INVALID"] * 3
    assert federation.submit(silo, update, headers=_signed(old, update)).status_code == 422
    assert federation.submit(silo, update, headers=_signed(new, update)).status_code == 202
    changes = entries("client.changed")
    assert [entry["details"]["changed"] for entry in changes] == [["public_key"]] * 2
    assert changes[0]["actor"]["client_id"] == changes[0]["details"]["client_id"] == silo.client_id


def test_of_two_first_keys_at_once_one_counts(app: Flask, federation: Federation) -> None:
    """Nobody gets a 204 for a key that another request has replaced unseen."""
    silo, start = federation.register(), threading.Barrier(4)
    keys = [_pair_of_keys()[1] for _ in range(4)]

    def put(key: str) -> int:
        start.wait()
        return app.test_client().put(KEY, json={"public_key": key}, headers=silo.headers).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(put, keys))

    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409, 422}
    assert public_key_of(federation.services, silo.client_id) == keys[statuses.index(204)]


def test_who_acts_for_a_person_sets_no_client_s_key(federation: Federation) -> None:
    """The token of a tool speaks for a person; the key is the client's."""
    silo = federation.register()
    person = AuthenticatedClient(silo.client_id, str(uuid4()), Role.PARTICIPANT, frozenset())

    with pytest.raises(Conflict, match="acts for a person"):
        set_public_key(federation.services, person, _pair_of_keys()[1], body=b"", signature=None)


@pytest.mark.parametrize("wish", [{}, {"public_key": "AAAA"}, {"public_key": 7}, {"public_key": "!" * 44}])
def test_what_is_no_key_is_refused(federation: Federation, wish: dict[str, Any]) -> None:
    """Promise 7: the field is named, and nothing is left."""
    silo = federation.register()

    answer = federation.http.put(KEY, json=wish, headers=silo.headers)

    assert answer.status_code == 422
    assert answer.json["errors"][0]["pointer"] in ("/public_key", "/publicKey")
    assert public_key_of(federation.services, silo.client_id) is None
