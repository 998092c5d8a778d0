"""Promise 1, walked: every route and every command is used, and no transaction that changed something was silent.

A transaction is looked at as a whole: whatever it wrote, besides what is excused below by name, it wrote together
with an audit entry. A new route or command fails the test until it is used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from changes import Changes
from click.testing import CliRunner
from federation import Federation, file_of, tensors
from life import OFFICER, UNASKED, Notes, live
from living.home import Home, home_in
from sqlalchemy import Column, func, select, update
from werkzeug.routing import Rule

import gateway.tables
from audit.events import EventType
from audit.tables import audit_log, audit_pending
from compliance.requests.cases import RequestType
from compliance.tables import privacy_holds
from gateway.app import create_app
from gateway.auth.clients import add_client
from gateway.auth.refusals import close_refusals
from gateway.auth.scopes import Role
from gateway.cli import main
from gateway.cli.opening import prepared_services
from gateway.config import Config
from gateway.parts.starting import recover
from gateway.privacy import privacy_desk
from gateway.services import Services
from gateway.tables import clients, users

# Derived from entries, or from the log; the key store is a database of its own.
ELSEWHERE = (
    "audit_.*",
    "siem_.*",
    "subject_keys|pseudonyms|index_keys|signing_keys|round_seeds",
    "alembic_version",
)
NOT_BY_ROUTES = {
    "settings_at_start",  # written by starts: see test_starting.py
    "notices",  # written beside the cause, which has its entry: see test_notice_causes.py
    "used_assertions",  # written before what it lets in is told
}
# What needs no entry of its own, each with its reason.
UNTOLD = (
    r"UPDATE clients SET last_seen_at=",  # when a client was last here: once a minute at most
    r"INSERT INTO used_assertions",  # spent, whatever comes of it: the token or the refusal has its entry
    r"UPDATE sessions SET seen_at=",  # the same of a person who has signed in
    r"DELETE FROM tokens WHERE tokens\.expires_at",  # what has expired already let nobody in
    r"DELETE FROM idempotency_keys WHERE idempotency_keys\.created_at",  # answers kept for a day
    r"DELETE FROM outbox",  # sent: a hint, whose row has its entry
    r"DELETE FROM \w+ WHERE \S+ IN \(SELECT .* WHERE (clients|users)\.subject_id = ",  # steps of an erasure, within
    r"DELETE FROM \w+ WHERE \w+\.subject_id = ",  # the entries `intent.erase` that announce and conclude it
    r"UPDATE privacy_requests SET (version=\S+ )?attempts=",  # a try, and why it was not the last one
    r'UPDATE privacy_requests SET version=\S+ "?before"?=',  # how far an erasure is, within the same entries
    r"(UPDATE|DELETE FROM) client_updates (SET status=\S+ )?WHERE client_updates\.update_id IN",  # and its steps
    r"UPDATE privacy_requests SET version=\S+ package_blob=",  # the package went: erased, or its time was up
    r"DELETE FROM package_links",  # they go with the package, for the same reason
    r"UPDATE privacy_requests SET version=\S+ swept_at=",  # looked once more after an erasure
)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Services]:
    """The stores of a new gateway."""
    config = Config(
        database_url=f"sqlite:///{tmp_path / 'fl-gateway.db'}",
        keystore_url=f"sqlite:///{tmp_path / 'keys' / 'subjects.db'}",
        blob_url=f"file:{tmp_path / 'blobs'}",
        state_url=f"file:{tmp_path / 'keys' / 'state'}",
        master_key="5a" * 32,
        siem_sinks=f"file:{tmp_path / 'siem.jsonl'}",
        tlog_publish=f"file:{tmp_path / 'tlog'}",
        blob_grace_s=0.0,
        rate_limits="models=900/minute;updates=900/minute;rounds=900/minute;register=900/minute;auth_failures=9/minute",
    )
    services = prepared_services(config, part="console")
    yield services
    services.close()


def test_no_route_changes_anything_in_silence(stores: Services) -> None:
    """Issue 5, 6: the whole life of a federation through every route, the worker's steps among it."""
    recover(stores)
    app, notes, changes = create_app(stores), Notes(), Changes(UNTOLD, ELSEWHERE)
    app.after_request(notes.note_route)
    federation = Federation(stores, app.test_client())

    with changes.watched():
        live(stores, federation)
        move_requests(federation)
        close_refusals(app)

    served = {(method, rule.rule) for rule in app.url_map.iter_rules() for method in methods_of(rule)}
    assert served - notes.routes <= UNASKED
    assert sorted(set(changes.silent)) == []
    assert changes.told >= {table.name for table in gateway.tables.metadata.sorted_tables} - NOT_BY_ROUTES


def move_requests(federation: Federation) -> None:
    """Every transition of a privacy request: one route, nine changes."""
    dpo, desk = federation.staff("dpo"), privacy_desk(federation.services)
    for ways in (
        (("identify", {}), ("review", {}), ("approve", {})),
        (("hold", {"reason": "asked"}), ("resume", {}), ("refuse", {"reason": "not_covered"})),
        (("take", {}), ("extend", {"reason": "complex", "notice": "letter"}), ("withdraw", {})),
    ):
        silo = federation.register()
        subject = federation.http.get(f"/api/v1/clients/{silo.client_id}", headers=federation.operator).json
        case = desk.open("access", subject["subject_id"], requested_by=OFFICER).id
        for transition, body in ways:
            answer = federation.http.post(
                f"/api/v1/privacy/requests/{case}/{transition}", json=body, headers=dpo
            )
            assert answer.status_code == 200, answer.text


def methods_of(rule: Rule) -> set[str]:
    """What a route answers, besides what every one does."""
    return (rule.methods or set()) - {"HEAD", "OPTIONS"}


def test_the_watch_sees_a_silent_change(stores: Services) -> None:
    """Without this, the other tests could be blind: a change beside its entry is seen, one with it is not."""
    added = add_client(stores, "silo", Role.PARTICIPANT)
    chosen = clients.c.client_id == added.client_id
    entry = stores.trail.draft(EventType.INTAKE_STOPPED)
    changes = Changes(UNTOLD, ELSEWHERE)

    with changes.watched():
        with stores.engine.begin() as conn:
            conn.execute(update(clients).where(chosen).values(status="revoked"))
            stores.trail.write(conn, entry)
        with stores.engine.begin() as conn:
            conn.execute(update(clients).where(chosen).values(last_seen_at=stores.clock()))
        with stores.engine.begin() as conn:
            conn.execute(update(clients).where(chosen).values(status="active"))
        with stores.engine.connect() as conn:
            conn.execute(update(clients).where(chosen).values(role="operator"))
            conn.rollback()

    assert (changes.told, changes.transactions) == ({"clients"}, 3)
    assert [statement.partition(" WHERE")[0] for statement in changes.silent] == [
        "UPDATE clients SET status=?"
    ]


# Commands that change something, in an order in which each succeeds; `{client}` is the client that is added first.
CHANGING = (
    "client add silo --role participant",
    "client suspend {client}",
    "client resume {client}",
    "client change {client} --rotate-api-key",
    "client change {client} --rotate-secret --redirect-uri https://tool.example/back",
    "model add m.safetensors",
    "round start --planned 3 --min 1 --mechanism none",
    "round pause 1",
    "round resume 1",
    "round extend 1 --by 86400",
    "round close 1",
    "model promote 1.0.0",
    "intake stop",
    "intake resume",
    "user add Ada --role dpo --password-file password.txt",
    "user change Ada --no-totp",
    "user suspend Ada",
    "user resume Ada",
    "user revoke Ada",
    "client revoke {client}",
    "privacy requests open access {client}",
    "privacy requests take {case}",
    "privacy requests identify {case}",
    "privacy requests review {case}",
    "privacy requests hold {case} --reason asked",
    "privacy requests resume {case}",
    "privacy requests extend {case} --reason complex --notice letter",
    "privacy requests approve {case}",
    "privacy requests open access --reference patient --silo {client}",
    "privacy requests refuse {case} not_identifiable",
    "privacy requests open erasure {client}",
    "privacy requests withdraw {case}",
    "privacy export {client} -o package.zip",
    "privacy export {client} --portable -o portable.zip",
    "privacy erase {client}",
    "privacy commitment-key {erased}",
    "privacy requests open restriction {user}",
    "privacy requests approve {case}",
    "privacy lift {restricted} --notice letter",
    "privacy hold place {user} --matter claim --basis e --review 2099-01-01",
    "privacy hold review {hold} --until 2099-02-01",
    "privacy hold release {hold}",
    "audit export -o log.zip",
    "keys rotate receipt",
    "backup -o backup.zip",
    "backup --keys -o keys.zip",
    "forward --from 0",
)
LOOKING = {
    "notices list",
    "notices test",
    "privacy records",
    "privacy report",
    "audit checkpoint",
    "audit prove",
    "audit verifier",
    "audit verify",
    "client list",
    "doctor",
    "intake status",
    "keys list",
    "model list",
    "nginx",
    "privacy hold list",
    "privacy retention show",
    "privacy requests list",
    "privacy requests show",
    "privacy requests statement",
    "privacy verify",
    "round status",
    "siem status",
    "user list",
}
WALKED_ELSEWHERE = {
    "audit hammer": "audit.tried: tests/audit",
    "audit rebuild": "audit.rebuilt: tests/audit",
    "certs issue": "certificate.renewed, certificate.failed: test_certificates.py",
    "certs renew": "the same",
    "certs run": "the same",
    "db grant": "rights are the database's own",
    "db upgrade": "the schema is the database's own; the next start says its version",
    "demo": "a gateway of its own",
    "model rollback": "model.promoted: tests/docs/test_erasure_page.py",
    "privacy link": "privacy.linked: test_package_links.py",
    "privacy retention run": "retention.applied: test_retention.py",
    "restore": "backup.restored: tests/backup",
    "sequence": "server.started, server.stopped: test_starting.py",
    "serve": "the same",
    "siem dead-letters": "siem.replayed: tests/audit",
    "siem test": "asks the SIEM, and changes nothing here",
    "witness": "a server of somebody else, with a log of its own to look at",
    "worker": "server.started, server.stopped: test_starting.py",
}


@pytest.fixture
def console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An embedded gateway, its settings in the environment and its folder the working directory."""
    with home_in(tmp_path / "home", None) as home:
        monkeypatch.chdir(home.directory)
        for name, value in home.environment().items():
            monkeypatch.setenv(name, value)
        Path("m.safetensors").write_bytes(file_of(tensors()))
        Path("password.txt").write_text("a horse of another colour\n")
        yield home


def test_no_command_changes_anything_in_silence(console: Home) -> None:
    """Each command that changes something leaves at least one entry more, and no silent transaction."""
    changes = Changes(UNTOLD, ELSEWHERE)
    client, walked = "", set[str]()

    with changes.watched(), console.stores() as services:
        federation = Federation(services, create_app(services).test_client())
        for words in CHANGING:
            before = entry_count(services)
            named = {
                "user": newest_id(services, users.c.user_id),
                "hold": newest_id(services, privacy_holds.c.id),
                "case": open_case(services),
                "erased": erased_case(services),
                "restricted": restricting_case(services),
            }
            done = CliRunner().invoke(main, words.format(client=client, **named).split())
            assert done.exit_code == 0, (words, done.output)
            client = client or client_named(services)
            assert entry_count(services) > before, words
            if words.startswith(("round close", "audit export")):
                federation.work()
                federation.sequence()
            walked |= {name for name in leaves() if words.startswith(name)}

    assert sorted(set(changes.silent)) == []
    assert walked | LOOKING | set(WALKED_ELSEWHERE) == leaves()


def leaves() -> set[str]:
    """Every command, without the groups."""
    return {" ".join(path) for path, command in commands_of(main) if not isinstance(command, click.Group)}


def commands_of(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from commands_of(child, (*path, name))


def client_named(services: Services) -> str:
    """The id of the participant."""
    with services.engine.connect() as conn:
        found: str = conn.scalars(select(clients.c.client_id).where(clients.c.role == "participant")).one()
    return found


def open_case(services: Services) -> str:
    """The id of the one request that is still open, if there is one."""
    return next((case.id for case in privacy_desk(services).cases() if case.is_open), "")


def erased_case(services: Services) -> str:
    """The id of the erasure that has ended, if there is one."""
    return next((case.id for case in privacy_desk(services).cases() if case.receipt is not None), "")


def restricting_case(services: Services) -> str:
    """The id of the restriction that was carried out, if there is one."""
    cases = privacy_desk(services).cases()
    return next((case.id for case in cases if case.type is RequestType.RESTRICTION), "")


def newest_id(services: Services, column: Column[str]) -> str:
    """The id of the one row of a table that the walk has made; empty before."""
    with services.engine.connect() as conn:
        return conn.scalar(select(column)) or ""


def entry_count(services: Services) -> int:
    """How many entries there are, in the log and before it."""
    with services.engine.connect() as conn:
        return sum(
            conn.scalar(select(func.count()).select_from(table)) or 0 for table in (audit_log, audit_pending)
        )
