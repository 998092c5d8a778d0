"""No statement of the API, the worker, the sequencer or the forwarder reads a whole table on PostgreSQL.

A small federation lives a full life while every statement is noted; then the tables are filled, and PostgreSQL is
asked how it would carry each of them out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from crowd import Crowd, fill
from federation import Federation
from flask import Flask
from life import UNASKED, Notes, live
from services import postgresql
from sqlalchemy import Engine

import compliance.keyring.tables as keys
from audit.tables import audit_checkpoints, audit_log, audit_pending, audit_subjects
from compliance.tables import privacy_holds, privacy_requests, subjects
from gateway.app import create_app
from gateway.auth.refusals import close_refusals
from gateway.config import Config
from gateway.parts.starting import recover
from gateway.services import Services, open_services
from gateway.storage.migrating import upgrade
from gateway.tables import (
    authorization_codes,
    client_updates,
    clients,
    idempotency_keys,
    invitations,
    model_versions,
    notices,
    outbox,
    privacy_ledger,
    revoked_tokens,
    rounds,
    sessions,
    tokens,
    used_assertions,
    users,
)

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
    revoked_tokens: Crowd(columns={"expires_at": "now() + n * interval '1 second'"}),
    used_assertions: Crowd(columns={"expires_at": "now() + n * interval '1 second'"}),
    authorization_codes: Crowd(columns={"expires_at": "now() + n * interval '1 second'"}),
    users: Crowd(10_000, {"status": "'active'"}),
    sessions: Crowd(columns={"expires_at": "now() + n * interval '1 second'", "seen_at": "now()"}),
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
            "due_at": "now() + n * interval '1 second'",
            "owned_at": "CASE n % 3 WHEN 1 THEN now() END",
            "swept_at": "CASE n % 2 WHEN 1 THEN now() END",
        }
    ),
    privacy_holds: Crowd(10_000, {"lifted_at": "now()"}),
    notices: Crowd(columns={"status": "'sent'", "created_at": "now() + n * interval '1 second'"}),
    audit_log: Crowd(),
    audit_subjects: Crowd(),
    audit_checkpoints: Crowd(10_000),
    audit_pending: Crowd(),
}
KEY_CROWDS = {
    keys.subject_keys: Crowd(),
    keys.pseudonyms: Crowd(),
}  # a seed lives only as long as its round is open

# A list tells how many there are: counted on the narrowest index (decision 0073).
COUNTED = re.compile(
    r"SELECT count\(\*\) AS count_1 FROM (clients|rounds|model_versions|privacy_holds|privacy_requests)"
)

# An index of a few rows of a large table, which is read whole.
OF_A_FEW = frozenset({"ix_audit_log_rotations"})


def full_scans(plan: dict[str, Any], tables: frozenset[str], *, is_cut: bool = False) -> Iterator[str]:
    """The steps of a plan that read all of a large table; an index that is read in order up to a LIMIT does not."""
    kind = plan["Node Type"]
    is_cut = (
        is_cut if kind in ("Limit", "LockRows", "Nested Loop", "Subquery Scan") or "Scan" in kind else False
    )
    is_whole = kind == "Seq Scan" or (kind.startswith("Index") and "Index Cond" not in plan and not is_cut)
    is_whole = is_whole and plan.get("Index Name") not in OF_A_FEW
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
        tlog_publish=f"file:{directory / 'tlog'}",
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
