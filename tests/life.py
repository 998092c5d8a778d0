"""A federation's full life through every route: rounds of every kind, the log, the officer's work, tokens.

A new route is asked here. `test_query_plans.py` then looks at its statements, `test_every_change_is_audited.py` at what
it changed.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import timedelta
from typing import Any

from consent import add_tool, code_for, exchange, refresh, tokens_for
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation import Federation, Silo, file_of, tensors
from flask import Response, request
from proof_keys import assertion_form, jwk, key_set
from sqlalchemy import Engine, event
from staff import CHEAP, Browser, add_member

from audit.draft import Personal
from audit.following import signed_places
from audit.reading import reading
from audit.siem.sinks import parse_sinks
from audit.tiles.publish import Publisher
from gateway.auth.clients import add_client
from gateway.auth.people.accounts import Move, Proofs, change_person, move_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION as PASSWORDS
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.auth.tokens import purge_expired
from gateway.parts.forwarding import forwarder_of
from gateway.privacy import privacy_desk
from gateway.publishing import open_target
from gateway.services import Services

GOOD = file_of(tensors(0.5))
NOISED = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}
OFFICER = Personal("system", "officer")

UNASKED = {  # they read no table, or need somebody else
    ("GET", "/console/sign-in/openid"),  # an OpenID provider: tests/gateway/people/test_openid.py
    ("GET", "/console/sign-in/openid/return"),
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-protected-resource"),
    ("GET", "/.well-known/oauth-authorization-server/<path:suffix>"),
    ("GET", "/.well-known/oauth-protected-resource/<path:suffix>"),
    ("GET", "/api/v1/openapi.json"),
}


class Notes:
    """Each statement that was sent, with one set of its values; and each route that answered well."""

    def __init__(self) -> None:
        self.statements: dict[str, Any] = {}
        self.routes: set[tuple[str, str]] = set()

    def listen(self, engine: Engine) -> None:
        """Note what this engine sends."""

        @event.listens_for(engine, "before_cursor_execute")
        def _note(_conn: Any, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
            if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                self.statements.setdefault(statement, values[0] if many else values)

    def note_route(self, answer: Response) -> Response:
        """Note the route of a request that went well."""
        if request.url_rule is not None and answer.status_code < 400:
            self.routes.add((request.method, request.url_rule.rule))
        return answer


def live(services: Services, federation: Federation) -> None:
    """Everything that a federation does: rounds of every kind, controls, look-ups, the log, the officer's work."""
    run_rounds(federation)
    control_rounds(federation)
    look_up(federation)
    read_the_log(services, federation)
    answer_people(services, federation)
    manage_tokens(services, federation)
    sign_staff_in(services, federation)
    let_a_tool_act(services, federation)
    federation.worker.tidy()


def run_rounds(federation: Federation) -> None:
    """A bare one with a body sent twice, one with noise, one that chooses its clients, one that fails."""
    assert federation.add_model(privacy_budget={"epsilon": 8.0, "delta": 1e-5}).status_code == 201
    silos = [federation.register(f"silo {number}") for number in range(3)]
    for wish in (
        {"privacy": NOISED},
        {
            "privacy": NOISED,
            "selection": {"strategy": "fair", "reserves": 1, "respond_within_s": 60, "seen_within_s": 3600},
        },
    ):
        opened = federation.open_round(**wish)
        assert opened.status_code == 201, opened.text
        number = opened.json["round_number"]
        federation.work()  # it may choose its clients first
        for silo in silos[:2]:
            sent = federation.submit(
                silo, GOOD, number=number, headers={"Idempotency-Key": f"{silo.client_id}-{number}"}
            )
            assert sent.status_code in (202, 409), sent.text
        federation.work()
        for _ in range(3):
            federation.work()


def control_rounds(federation: Federation) -> None:
    """Pause, resume, extend, close; stop all intake and take it up again."""
    federation.http.post("/api/v1/intake/stop", headers=federation.operator)
    federation.http.post("/api/v1/intake/resume", headers=federation.operator)
    federation.http.get("/api/v1/intake", headers=federation.operator)
    later = (federation.services.clock() + timedelta(days=2)).isoformat()
    number = federation.open_round(privacy=NOISED).json["round_number"]
    federation.http.get("/api/v1/rounds/current", headers=federation.operator)
    for word, body in (("pause", {}), ("resume", {}), ("extend", {"deadline": later}), ("close", {})):
        federation.http.post(f"/api/v1/rounds/{number}/{word}", json=body, headers=federation.operator)
    federation.work()


def look_up(federation: Federation) -> None:
    """What clients and operators read."""
    silo, operator = federation.register(), federation.operator
    number = federation.open_round(privacy=NOISED).json["round_number"]
    sent = federation.submit(silo, GOOD, number=number)
    for path in (
        f"/api/v1/updates/{sent.json['update_id']}",
        f"/api/v1/updates/{sent.json['update_id']}/receipt",
    ):
        federation.http.get(path, headers=silo.headers)
    federation.http.get("/api/v1/invitations", headers=silo.headers)
    key = b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
    federation.http.put("/api/v1/clients/me/public-key", json={"public_key": key}, headers=silo.headers)
    for path in (
        "/api/v1/rounds",
        "/api/v1/rounds?page=2&per_page=5",
        f"/api/v1/rounds/{number}",
        "/api/v1/models",
        "/api/v1/clients",
    ):
        federation.http.get(path, headers=operator)
    federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=operator)
    version = federation.http.get("/api/v1/models", headers=operator).json["data"][-1]["version"]
    federation.download(version)
    federation.http.post(f"/api/v1/rounds/{number}/close", headers=operator)
    federation.work()
    federation.work()
    federation.http.post(f"/api/v1/models/{version}/promote", headers=operator)
    federation.http.delete(f"/api/v1/clients/{federation.register().client_id}", headers=operator)
    for path in ("/health", "/ready", "/.well-known/jwks.json"):
        federation.http.get(path)


def read_the_log(services: Services, federation: Federation) -> None:
    """Sequence, forward, and what an auditor asks for."""
    federation.sequence()
    for sink in parse_sinks(services.config.siem_sinks):
        forwarder_of(services, sink).run_once()
    auditor = federation.staff("auditor")
    for path in (
        "entries",
        "entries?page=2&per_page=3",
        "entries?after=3&limit=5",
        "entries/3",
        "checkpoint",
        "bundle",
        "proof/inclusion?seq=2",
        "proof/consistency?from=3",
    ):
        answer = federation.http.get(f"/api/v1/audit/{path}", headers=auditor, buffered=True)
        assert answer.status_code == 200, answer.text
    follow_the_log(services, federation, auditor)
    for path in ("checkpoint", "tile/0/000.p/3", "tile/entries/000.p/3"):
        answer = federation.http.get(f"/tlog/{path}", headers=auditor)
        assert answer.status_code == 200, answer.text
    publish(services)
    federation.http.get("/api/v1/privacy/budget", headers=auditor)
    for model in federation.http.get("/api/v1/models", headers=federation.operator).json["data"]:
        federation.http.get(f"/api/v1/privacy/report/{model['version']}", headers=auditor)


def follow_the_log(services: Services, federation: Federation, auditor: dict[str, str]) -> None:
    """A stream, and a request that waits for the places of its entries."""
    stream = federation.http.get("/api/v1/audit/stream?after=1", headers=auditor)
    pieces = stream.iter_encoded()
    assert [next(pieces)[:1], next(pieces)[:4]] == [b":", b"id: "]
    stream.close()
    entry = federation.http.get("/api/v1/audit/entries?limit=1", headers=auditor).json["data"][0]
    with reading(services.engine) as conn:
        assert signed_places(conn, {entry["id"]}) == [0]


def publish(services: Services) -> None:
    """The log as tiles, with and without witnesses, to a folder, and again from where that stands."""
    target = open_target(services.config)
    assert target is not None
    target.prepare()
    place = (services.engine, target, services.origin, services.state.last_checkpoint)
    for _ in range(2):
        assert Publisher(*place, quorum=1).run_once() == 0
        Publisher(*place).run_once()


def answer_people(services: Services, federation: Federation) -> None:
    """Access, erasure, a hold, moves of a request, what the worker does for them."""
    dpo = federation.staff("dpo")
    silo: Silo = federation.register()
    for kind in ("access", "erasure"):
        wish = {"type": kind, "subject": {"client_id": silo.client_id}}
        case = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo).json["id"]
        federation.worker._desk.resume_open()
        for path in ("", "/package", "/receipt"):
            federation.http.get(f"/api/v1/privacy/requests/{case}{path}", headers=dpo)
    held, desk = federation.register(), privacy_desk(services)
    subject = federation.http.get(f"/api/v1/clients/{held.client_id}", headers=federation.operator).json[
        "subject_id"
    ]
    hold = desk.holds.place(subject, "a lawsuit", by=OFFICER)
    wish = {"type": "erasure", "subject": {"client_id": held.client_id}}
    case = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo).json["id"]
    desk.holds.lift(hold.id, by=OFFICER)
    federation.http.post(f"/api/v1/privacy/requests/{case}/resume", headers=dpo)
    federation.worker._desk.resume_open()


def manage_tokens(services: Services, federation: Federation) -> None:
    """Issue, look at, revoke; and a stranger who is refused."""
    new = add_client(services, "an operator", Role.OPERATOR)
    auth = (new.client_id, new.client_secret)
    token = federation.http.post("/oauth/token", data={"grant_type": "client_credentials"}, auth=auth).json[
        "access_token"
    ]
    for word in ("introspect", "revoke"):
        federation.http.post(f"/oauth/{word}", data={"token": token}, auth=auth)
    show_assertions(services, federation)
    purge_expired(services)
    federation.http.get("/api/v1/rounds", headers={"Authorization": "Bearer nobody"})


def show_assertions(services: Services, federation: Federation) -> None:
    """A client that signs gets a JWT, uses it, and ends it."""
    keys = key_set(jwk("Ed25519"))
    method = AuthMethod.PRIVATE_KEY_JWT
    signing = add_client(
        services, "a signer", Role.AUDITOR, auth=method, jwks=keys, token_format="jwt"
    ).client_id

    def post(word: str, **form: str) -> Any:
        proof = assertion_form(signing, "http://localhost", services.clock())
        return federation.http.post(f"/oauth/{word}", data=proof | form).json

    token = post("token")["access_token"]
    federation.http.get("/api/v1/audit/checkpoint", headers={"Authorization": f"Bearer {token}"})
    post("revoke", token=token)


def sign_staff_in(services: Services, federation: Federation) -> None:
    """Somebody of the staff comes with a password and a code, comes back later, and goes; a stranger is refused."""
    app = federation.http.application
    app.extensions[PASSWORDS] = passwords = Passwords(CHEAP)
    ada, browser = add_member(services, passwords), Browser(app.test_client())
    assert Browser(app.test_client()).sign_in(ada, password="a guess of a stranger").status_code == 403
    assert browser.get("/console/sign-in").status_code == 200
    assert browser.sign_in(ada).status_code == 303
    assert browser.is_in()
    change_person(services, ada.user_id, Proofs(has_totp=False), passwords=passwords)
    assert browser.sign_in(ada, code="").status_code == 303
    assert browser.send("/console/", "/console/sign-out").status_code == 303
    for move in Move:
        move_person(services, ada.user_id, move)


def let_a_tool_act(services: Services, federation: Federation) -> None:
    """A person allows a tool to act for them; it refreshes; a code and a refresh token come twice; one is suspended."""
    tool, app = add_tool(services), federation.http.application
    eve = add_member(services, app.extensions[PASSWORDS], "Eve", role="auditor", has_totp=False)
    browser = Browser(app.test_client())
    assert browser.sign_in(eve).status_code == 303
    http = browser.http
    code = code_for(http, tool)
    assert exchange(http, tool, code).status_code == 200
    assert exchange(http, tool, code).status_code == 400
    token = tokens_for(http, tool)["refresh_token"]
    assert refresh(http, tool, token).status_code == 200
    assert refresh(http, tool, token).status_code == 400
    last = tokens_for(http, tool, scope="audit:read")["refresh_token"]
    move_person(services, eve.user_id, Move.SUSPEND)
    assert refresh(http, tool, last).status_code == 400
