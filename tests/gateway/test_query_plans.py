"""No statement of the API, the worker, the sequencer or the forwarder reads a whole table on PostgreSQL.

A small federation lives a full life while every statement is noted; then the tables are filled, and PostgreSQL is
asked how it would carry each of them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from crowd import Crowd, fill
from federation import Federation, Silo, file_of, tensors
from flask import Flask, Response, request
from services import postgresql
from sqlalchemy import Engine, event

import compliance.keystore_tables as keys
from audit.draft import Personal
from audit.siem.sinks import parse_sinks
from audit.tables import audit_checkpoints, audit_log, audit_pending, audit_subjects
from compliance.tables import privacy_holds, privacy_requests, subjects
from gateway.app import create_app
from gateway.auth.clients import add_client
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.config import Config
from gateway.parts import forwarder_of, recover
from gateway.privacy import privacy_desk
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade
from gateway.tables import (
    client_updates,
    clients,
    idempotency_keys,
    invitations,
    model_versions,
    outbox,
    privacy_ledger,
    rounds,
    tokens,
)

GOOD = file_of(tensors(0.5))
NOISED = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0, "delta": 1e-5}
OFFICER = Personal("system", "officer")

# Tables that stay small: `models` has a row a lineage, `switches`, `siem_cursors`, `index_keys` and `signing_keys` a
# handful, `audit_tiles` one row for 256 entries and read by its key alone, `alembic_version` one.
CROWDS = {
    clients: Crowd(
        columns={
            "status": "'active'",
            "role": "'participant'",
            "last_seen_at": "now() - (n - 1000000) * interval '1 minute'",
        }
    ),
    tokens: Crowd(columns={"kind": "'access'", "expires_at": "now() + n * interval '1 second'"}),
    rounds: Crowd(10_000, {"status": "'completed'", "ledger_id": "lpad(to_hex(n), 32, '0')::uuid"}),
    client_updates: Crowd(columns={"round_id": "1000000 + n % 10000", "status": "'counted'"}),
    invitations: Crowd(
        columns={
            "round_id": "1000000 + n % 10000",
            "rank": "n % 10",
            "status": "'invited'",
            "invited_at": "now()",
            "delivered_at": "now()",
        }
    ),
    model_versions: Crowd(10_000, {"round_number": "n"}),
    privacy_ledger: Crowd(10_000, {"status": "'spent'"}),
    outbox: Crowd(columns={"queue": "'training_invitations'"}),
    idempotency_keys: Crowd(columns={"created_at": "now()"}),
    subjects: Crowd(columns={"state": "'active'"}),
    privacy_requests: Crowd(
        columns={
            "status": "'completed'",
            "type": "(ARRAY['access', 'erasure'])[1 + n % 2]",
            "swept_at": "CASE n % 2 WHEN 1 THEN now() END",
        }
    ),
    privacy_holds: Crowd(10_000, {"lifted_at": "now()"}),
    audit_log: Crowd(),
    audit_subjects: Crowd(),
    audit_checkpoints: Crowd(10_000),
    audit_pending: Crowd(10_000),
}
KEY_CROWDS = {
    keys.subject_keys: Crowd(),
    keys.pseudonyms: Crowd(),
}  # a seed lives only as long as its round is open

# A list tells how many there are: counted on the narrowest index (decision 0073).
COUNTED = re.compile(r"SELECT count\(\*\) AS count_1 FROM (clients|rounds|model_versions)")
UNASKED = {  # they read no table
    ("GET", "/.well-known/oauth-authorization-server"),
    ("GET", "/.well-known/oauth-protected-resource"),
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


def full_scans(plan: dict[str, Any], tables: frozenset[str], *, is_cut: bool = False) -> Iterator[str]:
    """The steps of a plan that read all of a large table; an index that is read in order up to a LIMIT does not."""
    kind = plan["Node Type"]
    is_cut = (
        is_cut if kind in ("Limit", "LockRows", "Nested Loop", "Subquery Scan") or "Scan" in kind else False
    )
    is_whole = kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in plan and not is_cut)
    if is_whole and plan.get("Relation Name") in tables:
        yield f"{kind} on {plan['Relation Name']} ({plan.get('Filter', 'all of it')})"
    for child in plan.get("Plans", ()):
        yield from full_scans(child, tables, is_cut=is_cut or kind == "Limit")


def plan_of(engine: Engine, statement: str, values: Any) -> dict[str, Any]:
    """How PostgreSQL would carry a statement out."""
    with engine.connect() as conn:
        raw = conn.connection.driver_connection
        assert raw is not None
        told = raw.execute(f"EXPLAIN (FORMAT JSON) {statement}", values).fetchone()
    plan: dict[str, Any] = told[0][0]["Plan"]
    return plan


@pytest.fixture(scope="module")
def lived(
    postgresql_server: postgresql.PostgreSQL, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Services, Flask, Notes]]:
    """The stores of a federation that has lived a full life, crowded afterwards, and what it sent meanwhile."""
    directory = tmp_path_factory.mktemp("plans")
    main, keystore = postgresql_server.create_database(), postgresql_server.create_database()
    config = Config(
        database_url=postgresql_server.url(main),
        keystore_url=postgresql_server.url(keystore),
        blob_url=f"file:{directory / 'blobs'}",
        state_url=f"file:{directory / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks=f"file:{directory / 'siem.jsonl'}",
        blob_grace_s=0.0,
        rate_limits="models=900/minute;updates=900/minute;rounds=900/minute;register=900/minute;auth_failures=9/minute",
    )
    services = open_services(config, part="console")
    upgrade(services.engine, "main")
    upgrade(services.keystore_engine, "keystore")
    recover(services)
    app, notes = create_app(services), Notes()
    app.after_request(notes.note_route)
    notes.listen(services.engine)
    notes.listen(services.keystore_engine)
    try:
        live(services, Federation(services, app.test_client()))
        close_refusals(app)
        fill(services.engine, CROWDS)
        fill(services.keystore_engine, KEY_CROWDS)
        yield services, app, notes
    finally:
        services.close()
        for name in (main, keystore):
            postgresql_server.drop_database(name)


def live(services: Services, federation: Federation) -> None:
    """Everything that a federation does: rounds of every kind, controls, look-ups, the log, the officer's work."""
    run_rounds(federation)
    control_rounds(federation)
    look_up(federation)
    read_the_log(services, federation)
    answer_people(services, federation)
    manage_tokens(services, federation)
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
    federation.http.get("/api/v1/privacy/budget", headers=auditor)
    for model in federation.http.get("/api/v1/models", headers=federation.operator).json["data"]:
        federation.http.get(f"/api/v1/privacy/report/{model['version']}", headers=auditor)


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
    federation.http.get("/api/v1/rounds", headers={"Authorization": "Bearer nobody"})


def test_the_life_asks_every_route(lived: tuple[Services, Flask, Notes]) -> None:
    """A route that is not asked below has queries that nobody looks at."""
    _, app, notes = lived
    served = {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }

    assert served - notes.routes <= UNASKED


def test_no_statement_reads_a_whole_table(lived: tuple[Services, Flask, Notes]) -> None:
    """100,000 clients, updates and entries: each query finds its rows by an index."""
    services, _, notes = lived
    bad: dict[str, list[str]] = {}

    for statement, values in notes.statements.items():
        large = {table.name for table in (*CROWDS, *KEY_CROWDS)}
        of_keys = re.search(r"\b(subject_keys|pseudonyms|index_keys|signing_keys|round_seeds)\b", statement)
        engine = services.keystore_engine if of_keys else services.engine
        if found := list(full_scans(plan_of(engine, statement, values), frozenset(large))):
            bad[" ".join(statement.split())] = found
    counted = {statement: found for statement, found in bad.items() if COUNTED.fullmatch(statement)}

    told = "\n".join(
        f"{statement}\n    {found}" for statement, found in bad.items() if statement not in counted
    )
    assert len(notes.statements) > 100
    assert not told, told
    assert all(one.startswith("Index Only Scan") for found in counted.values() for one in found)
