"""A federation's full life through every route: rounds of every kind, the log, the officer's work, tokens.

A new route is asked here. `test_query_plans.py` then looks at its statements, `test_every_change_is_audited.py` at what
it changed.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
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
from compliance.keeping.retention import Retention
from compliance.keeping.terms import Term
from compliance.requests.desk import PrivacyDesk
from gateway.auth.clients import add_client
from gateway.auth.people.accounts import Move, Proofs, change_person, move_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.signing_in import EXTENSION as PASSWORDS
from gateway.auth.roster import AuthMethod
from gateway.auth.scopes import Role
from gateway.auth.tokens import purge_expired
from gateway.notices.sending import Sender
from gateway.notices.watching import Watch
from gateway.parts.forwarding import forwarder_of
from gateway.privacy import desk_parts
from gateway.publishing import open_target
from gateway.retention import kinds
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
    look_around(services, federation)
    work_at_the_desk(services, federation)
    explore_the_log(services, federation)
    let_a_tool_act(services, federation)
    federation.worker.tidy()
    run_out(services)


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
    for path in ("/metrics", "/api/v1/privacy/records", "/api/v1/privacy/budget"):
        assert federation.http.get(path, headers=auditor).status_code == 200
    tell_of_it(services)
    for model in federation.http.get("/api/v1/models", headers=federation.operator).json["data"]:
        federation.http.get(f"/api/v1/privacy/report/{model['version']}", headers=auditor)


def tell_of_it(services: Services) -> None:
    """Look for causes of notices, and send those that there are."""
    Watch(services).look()
    sender = Sender(services)
    sender.look()
    sender.forget()
    sender.close()


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
        for path in ("", "/package", "/receipt", "/receipt/proof"):
            federation.http.get(f"/api/v1/privacy/requests/{case}{path}", headers=dpo)
        federation.http.post(f"/api/v1/privacy/requests/{case}/commitment-key", headers=dpo)
        made = federation.http.post(f"/api/v1/privacy/requests/{case}/link", headers=dpo).json
        if link := made.get("url", "").partition("/packages/")[2]:
            federation.http.get(f"/packages/{link}")
            federation.http.post(f"/packages/{link}", buffered=True)
    file_requests(services, federation, dpo)
    restrict_and_correct(services, federation, dpo)
    held = federation.register()
    hold = place_hold(services, federation, held, dpo)
    wish = {"type": "erasure", "subject": {"client_id": held.client_id}}
    case = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo).json["id"]
    for officer in (dpo, federation.staff("dpo")):
        federation.http.delete(hold, headers=officer)
    federation.http.post(f"/api/v1/privacy/requests/{case}/resume", headers=dpo)
    federation.worker._desk.resume_open()


def file_requests(services: Services, federation: Federation, dpo: dict[str, str]) -> None:
    """A silo's patient gets a statement, a request is taken in hand, the lists, the alarms of the clock."""
    http, path, silo = federation.http, "/api/v1/privacy/requests", federation.register()
    wish = {"type": "access", "subject": {"reference": "patient", "silo": silo.client_id}}
    case = http.post(path, json=wish, headers=dpo).json["id"]
    http.get(f"{path}/{case}/statement", headers=dpo)
    desk = PrivacyDesk(replace(desk_parts(services), clock=lambda: services.clock() + timedelta(days=28)))
    waits = desk.open("access", desk.show(case).subject_id, requested_by=OFFICER)
    http.post(f"{path}/{waits.id}/take", headers=dpo)
    desk.raise_alarms()
    for query in (
        "",
        "?status=received",
        "?type=access",
        f"?client_id={silo.client_id}",
        f"?due_before={waits.due_at:%Y-%m-%dT%H:%M:%SZ}",
        "?owned=true",
        "?owned=false",
    ):
        assert http.get(path + query, headers=dpo).status_code == 200
    http.post(f"{path}/{waits.id}/withdraw", headers=dpo)


def place_hold(services: Services, federation: Federation, held: Silo, dpo: dict[str, str]) -> str:
    """A hold, looked at, told of when its review is late, and reviewed; the path of it."""
    http, ahead = federation.http, services.clock() + timedelta(days=30)
    wish = {
        "subject": {"client_id": held.client_id},
        "matter": "a lawsuit",
        "basis": "e",
        "review_at": ahead.isoformat(),
    }
    path = str(http.post("/api/v1/privacy/holds", json=wish, headers=dpo).headers["Location"])
    for route in ("/api/v1/privacy/holds", f"/api/v1/privacy/holds?subject_id={held.client_id}", path):
        http.get(route, headers=dpo)
    late = replace(desk_parts(services), clock=lambda: ahead)
    PrivacyDesk(late).holds.raise_alarms()
    later = (ahead + timedelta(days=30)).isoformat()
    http.post(f"{path}/review", json={"review_at": later}, headers=dpo)
    return path


def restrict_and_correct(services: Services, federation: Federation, dpo: dict[str, str]) -> None:
    """A client with an update in an open round: restricted, told, lifted, and put right."""
    http, silo, path = federation.http, federation.register(), "/api/v1/privacy/requests"
    federation.add_model(name="restricted")
    number = federation.open_round().json["round_number"]
    federation.submit(silo, GOOD, number=number)
    subject = {"client_id": silo.client_id}
    for wish in ({"type": "restriction"}, {"type": "rectification", "correction": {"name": "right"}}):
        done = http.post(path, json={"subject": subject, **wish}, headers=dpo)
        assert done.json["status"] == "completed", done.text
        if wish["type"] == "restriction":
            lifted = http.post(f"{path}/{done.json['id']}/lift", json={"notice": "a letter"}, headers=dpo)
            assert lifted.status_code == 200
    http.post(f"/api/v1/rounds/{number}/close", headers=federation.operator)
    federation.work()


def run_out(services: Services) -> None:
    """Every kind of data that has a term, as if its time were over: last, for it empties the tables."""
    ours = kinds(services)
    late = replace(desk_parts(services), clock=lambda: services.clock() + timedelta(seconds=1))
    for days in (9000, 0):  # little is over on most days, and that is the look that must be cheap
        schedule = Retention(late, ours, {kind.name: Term(timedelta(days=days)) for kind in ours})
        schedule.look()
        schedule.run()


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


def look_around(services: Services, federation: Federation) -> None:
    """An operator and others open the parts of the console, and do what its buttons do."""
    app = federation.http.application
    olga, browser = add_member(services, app.extensions[PASSWORDS], "Olga"), Browser(app.test_client())
    assert browser.sign_in(olga).status_code == 303
    federation.add_model(name="looked at")
    opened = federation.open_round()
    assert opened.status_code == 201, opened.text
    rounds, clients = "/console/rounds", "/console/clients"
    here, client = f"{rounds}/{opened.json['round_number']}", f"{clients}/{federation.register().client_id}"
    for page in (
        "/console/",
        rounds,
        f"{rounds}?page=2",
        here,
        clients,
        client,
        "/console/models",
        "/console/health",
    ):
        assert browser.get(page).status_code == 200, page
    assert browser.get("/console/static/style.css").status_code == 200
    for page, moves in ((here, ("pause", "resume", "close")), (client, ("suspend", "resume", "revoke"))):
        for move in moves:
            assert browser.send(page, f"{page}/{move}").status_code == 303
    for role in ("dpo", "auditor"):
        member, other = (
            add_member(services, app.extensions[PASSWORDS], role, role=role),
            Browser(app.test_client()),
        )
        assert other.sign_in(member).status_code == 303
        assert other.get("/console/").status_code == 200


def work_at_the_desk(services: Services, federation: Federation) -> None:
    """An officer takes requests down, moves them, places a hold and keeps it, and hands out what comes of it."""
    federation.sequence()  # in small batches, as on most days
    app, desk, held = federation.http.application, "/console/requests", "/console/holds"
    dana, otto = (Browser(app.test_client()) for _ in range(2))
    for browser, name in ((dana, "Dana"), (otto, "Otto")):
        browser.sign_in(add_member(services, app.extensions[PASSWORDS], name, role="dpo"))
    silo = federation.register()

    def ask(kind: str, **more: str) -> str:
        fields = {"type": kind, "client": silo.client_id, **more}
        return str(dana.send(f"{desk}/new", f"{desk}/new", **fields).headers["Location"])

    access, patient = ask("access"), ask("access", reference="patient")
    for path in (access, patient):
        for move in ("take", "review", "approve"):
            assert dana.send(path, f"{path}/{move}").status_code == 303
    for page in (f"{access}/package", f"{patient}/statement"):
        assert dana.get(page, buffered=True).status_code == 200
    assert dana.send(access, f"{access}/link").status_code == 200
    assert dana.send(patient, f"{patient}/reveal").status_code == 200
    erasure = ask("erasure")
    fields = {"request": erasure.rpartition("/")[2], "matter": "a lawsuit", "basis": "e", "scope": "*"}
    review = (services.clock() + timedelta(days=30)).date().isoformat()
    hold = str(dana.send(f"{held}/new", f"{held}/new", **fields, review=review).headers["Location"])
    lists = (desk, f"{desk}?status=all", f"{desk}?type=access&owned=yes", held, f"{held}?state=lifted")
    for page in (*lists, erasure, hold):
        assert dana.get(page).status_code == 200, page
    assert dana.send(hold, f"{hold}/review", review=review).status_code == 303
    assert dana.send(hold, f"{hold}/ask").status_code == 303
    assert otto.send(hold, f"{hold}/release").status_code == 303
    for move in ("review", "approve"):
        assert dana.send(erasure, f"{erasure}/{move}").status_code == 303
    federation.worker._desk.resume_open()
    federation.sequence()
    for page in ("receipt", "receipt/proof"):
        assert dana.get(f"{erasure}/{page}").status_code == 200, page
    assert dana.send(erasure, f"{erasure}/key").status_code == 200


def explore_the_log(services: Services, federation: Federation) -> None:
    """An auditor finds entries, looks at one with its proof, and opens its sealed fields with a reason."""
    app, reason = federation.http.application, "a question of the court"
    ada, browser = (
        add_member(services, app.extensions[PASSWORDS], "Ada L", role="auditor", extra=["audit:reveal"]),
        Browser(app.test_client()),
    )
    assert browser.sign_in(ada).status_code == 303
    day = services.clock().date().isoformat()
    for query in (
        "",
        "?before=30",
        "?after=2&type=client.registered",
        "?type=privacy.",
        "?outcome=failure",
        "?outcome=denied&first=1&last=50",
        f"?since={day}T00:00&until={day}T23:59",
    ):
        assert browser.get(f"/console/log{query}").status_code == 200, query
    assert browser.get("/console/log/3").status_code == 200
    assert browser.get("/console/log/3/proof").status_code == 200
    assert browser.send("/console/log/3", "/console/log/3/reveal", reason=reason).status_code == 200
    tool = add_client(services, "a tool", Role.AUDITOR, extra=["audit:reveal"])
    form = {"grant_type": "client_credentials", "scope": "audit:reveal"}
    token = federation.http.post("/oauth/token", data=form, auth=(tool.client_id, tool.client_secret)).json
    headers = {"Authorization": f"Bearer {token['access_token']}"}
    federation.http.post("/api/v1/audit/entries/3/reveal", json={"reason": reason}, headers=headers)


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
