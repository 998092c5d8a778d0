"""A restore brings everything back that may come back, on either database, whatever kills it in between."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from living.driver import BARE, await_that
from living.home import Home, clean_environment, home_in
from living.restores import Past, back_up, back_up_keys, live, lose, put_back, run
from living.threads import local_gateway_in
from sqlalchemy import func, select
from staff import CHEAP, Browser, add_member

from audit.draft import Personal
from audit.reading import reading
from audit.store import each_entry
from compliance.errors import BadMasterKey, NoPackage
from gateway.app import create_app
from gateway.auth.client_changes import ClientChange, change_client
from gateway.auth.clients import Move, add_client, move_client
from gateway.auth.people.accounts import Move as PersonMove
from gateway.auth.people.accounts import Proofs, change_person, move_person
from gateway.auth.people.passwords import Passwords
from gateway.auth.people.person import list_people
from gateway.auth.scopes import Role
from gateway.backup.blobs import portable_name
from gateway.backup.errors import BackupError, LogIncomplete, Mismatch, NotEmpty
from gateway.backup.rows import emptied_tables, encode, main_tables
from gateway.parts.sequencing import sequencer_of
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.storage.leadership import Leadership
from gateway.tables import client_updates, clients, sessions, tokens

_CHANGED = {
    "rounds",
    "client_updates",
    "tokens",
    "audit_pending",
    "subjects",
}  # by the sieve, and what it has to say


def rows_of(home: Home) -> dict[str, list[bytes]]:
    """Every row of the tables that a restore does not change."""
    with home.stores() as services, reading(services.engine) as conn:
        return {
            table.name: [encode(table, dict(row)) for row in conn.execute(_ordered(table)).mappings()]
            for table in main_tables()
            if table.name not in _CHANGED
        }


def _ordered(table: Any) -> Any:
    return select(table).order_by(*table.primary_key.columns)


def with_state_of(past: Past, home: Home) -> Home:
    """The empty home, with the key store and the state of the gateway that was backed up."""
    return replace(
        home,
        settings={
            **home.settings,
            "keystore_url": f"sqlite:///{past.home.directory}/keys/subjects.db",
            "state_url": f"file:{past.home.directory}/keys/state",
        },
    )


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Past]:
    """A gateway on SQLite that the test may lose."""
    with home_in(tmp_path / "own") as home:
        people = live(home)
        yield Past(
            home, people, back_up(home, tmp_path / "data.zip"), back_up_keys(home, tmp_path / "keys.zip")
        )


def test_rows_and_blobs_come_back_as_they_were_on_either_database(past: Past, anywhere: Home) -> None:
    """From SQLite to SQLite and to PostgreSQL: times, numbers, binary, JSON; numbers of rows go on behind the last."""
    home = with_state_of(past, anywhere)

    put_back(home, past.data)

    assert rows_of(home) == rows_of(past.home)
    assert home.blob_names() == past.home.blob_names()


@pytest.mark.parametrize("anywhere", ["postgresql"], indirect=True)
def test_a_backup_of_postgresql_is_restored_on_sqlite(
    anywhere: Home, elsewhere: Home, tmp_path: Path
) -> None:
    """And the gateway goes on there."""
    people = live(anywhere)
    _sequence(anywhere)
    data = back_up(anywhere, tmp_path / "data.zip")
    home = with_state_of(Past(anywhere, people, data, data), elsewhere)
    before = rows_of(anywhere)

    put_back(home, data)

    assert rows_of(home) == before
    with local_gateway_in(home) as gateway:
        assert gateway.run_round(people[:2], BARE)["status"] == "completed"


def test_the_gateway_goes_on_after_a_restore(anywhere: Home, tmp_path: Path) -> None:
    """Sequences, tokens of participants, models, log: a round is run to its end, and the log verifies."""
    people = live(anywhere)
    _sequence(anywhere)
    data = back_up(anywhere, tmp_path / "data.zip")
    _sequence(anywhere)
    bundle = anywhere.bundle(tmp_path / "log.zip")

    home = lose(anywhere)
    done = put_back(home, data, log=bundle)

    with local_gateway_in(home) as gateway:
        ended = gateway.run_round(people[:2], BARE)
        assert (ended["status"], ended["round_number"]) == ("completed", 3)
        (told,) = await_that("the entry", lambda: gateway.entries("backup.restored"))
    assert told["details"]["replayed"] == done.replayed > 0
    assert home.verify_log().ok


def test_a_database_that_holds_anything_is_refused(past: Past) -> None:
    """And what to do is said; the exit status is 2."""
    with pytest.raises(NotEmpty, match="FLG_DATABASE_URL"):
        put_back(past.home, past.data)

    assert "empty database" in run(past.home, "restore", str(past.data), status=2)["told"]


def test_nothing_is_restored_beside_a_gateway_that_works(past: Past, elsewhere: Home) -> None:
    """Its worker has the lead."""
    with elsewhere.stores() as services:
        worker = Leadership(services.engine, "worker")
        assert worker.leads()
        with pytest.raises(BackupError, match="stop it first"):
            put_back(elsewhere, past.data, without_state=True)
        worker.close()


@pytest.mark.parametrize(
    "point", ["restore.keys", "restore.blobs", "restore.rows", "restore.succeeded", "restore.committed"]
)
def test_a_restore_that_was_killed_is_done_by_the_same_command(own: Past, point: str) -> None:
    """Kill -9 anywhere: the database is empty or whole, and never half of either; a second origin is never begun."""
    _sequence(own.home)  # what was signed after the backup is missing in it
    home = lose(own.home, keys=True)
    words = ("restore", str(own.data), "--keys", str(own.keys), "--new-origin")

    killed = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *words],
        cwd=home.directory,
        env=clean_environment() | home.environment() | {"FLG_CRASH_AT": point},
        capture_output=True,
        timeout=60,
        check=False,
    )
    left = _count(home)
    again = home.command(*words)

    assert killed.returncode == -9, killed.stderr
    if point == "restore.committed":
        assert left > 0
        assert (again.returncode, "empty database" in again.stderr) == (2, True)
    else:
        assert left == 0
        assert again.returncode == 0, again.stderr
    with local_gateway_in(home) as gateway:
        assert gateway.run_round(own.people[:2], BARE)["status"] == "completed"
    with home.stores() as services:
        assert len(services.state.predecessors()) == 1
    assert home.verify_log().ok


def test_keys_under_another_master_key_are_not_restored(past: Past, elsewhere: Home) -> None:
    """They would open nothing; the key store stays empty."""
    home = replace(elsewhere, settings={**elsewhere.settings, "master_key": "00" * 32})

    with pytest.raises(BadMasterKey):
        put_back(home, past.data, keys=past.keys, without_state=True)

    with home.stores() as services:
        assert services.keystore.subjects() == []


def test_without_its_keys_a_log_is_not_restored(past: Past, elsewhere: Home) -> None:
    """Nobody could tell whether it is the gateway's own."""
    with pytest.raises(Mismatch, match="--keys"):
        put_back(elsewhere, past.data, without_state=True)


def test_a_lost_state_is_not_passed_over_in_silence(past: Past, elsewhere: Home) -> None:
    """RULES 1: then what was erased or spent since the backup is not known; a new origin begins."""
    with pytest.raises(Mismatch, match="--without-state"):
        put_back(elsewhere, past.data, keys=past.keys)
    done = put_back(elsewhere, past.data, keys=past.keys, without_state=True)

    assert not done.course.goes_on
    with elsewhere.stores() as services:
        assert len(services.state.spends()) == 1
        assert services.state.predecessor() is not None
    _sequence(elsewhere)
    assert elsewhere.verify_log().ok


def test_a_backup_of_another_gateway_is_refused(past: Past, own: Past) -> None:
    """Its log is not the one that the state remembers."""
    home = lose(own.home, keys=True)

    with pytest.raises(Mismatch, match="two gateways"):
        put_back(home, past.data, keys=past.keys, new_origin=True)


def test_a_bundle_of_another_log_is_not_replayed(past: Past, own: Past, tmp_path: Path) -> None:
    """It does not verify with the key of this one."""
    foreign = past.home.bundle(tmp_path / "foreign.zip")
    home = lose(own.home)

    with pytest.raises(Mismatch):
        put_back(home, own.data, log=foreign)


def test_a_bundle_that_is_too_short_does_not_do(own: Past, tmp_path: Path) -> None:
    """The state remembers what was signed; how much is missing is said."""
    _sequence(own.home)
    short = own.home.bundle(tmp_path / "short.zip")
    back_up(own.home, tmp_path / "later.zip")  # which is an entry
    _sequence(own.home)
    home = lose(own.home)

    with pytest.raises(LogIncomplete, match="--log"):
        put_back(home, own.data, log=short)


def test_a_revocation_since_the_backup_is_done_again(own: Past, tmp_path: Path) -> None:
    """A client that was shut out stays out, if the log tells; access tokens never come back."""
    for person, move in zip(own.people[:2], (Move.REVOKE, Move.SUSPEND), strict=True):
        with own.home.stores() as services:
            move_client(services, person.client_id, move)
    _sequence(own.home)
    bundle = own.home.bundle(tmp_path / "log.zip")

    home = lose(own.home)
    put_back(home, own.data, log=bundle)

    with home.stores() as services, reading(services.engine) as conn:
        status = dict(conn.execute(select(clients.c.client_id, clients.c.status)).all())
        kinds = list(conn.scalars(select(tokens.c.kind)))
        theirs = list(conn.scalars(select(tokens.c.client_id)))
    assert [status[one.client_id] for one in own.people[:2]] == ["revoked", "suspended"]
    assert set(kinds) == {"registration"}
    assert own.people[0].client_id not in theirs


def test_a_proof_that_was_changed_since_the_backup_opens_nothing(own: Past, tmp_path: Path) -> None:
    """The secret in the backup may be the stolen one that was replaced: its client waits for a new one."""
    with own.home.stores() as services:
        changed, kept = (add_client(services, name, Role.AUDITOR).client_id for name in ("changed", "kept"))
    data = back_up(own.home, tmp_path / "before.zip")
    with own.home.stores() as services:
        change_client(services, changed, ClientChange(rotates_secret=True))
        change_client(services, kept, ClientChange(redirect_uris=["https://tool.example/back"]))
        move_client(services, changed, Move.SUSPEND)
        move_client(services, changed, Move.RESUME)
    _sequence(own.home)
    bundle = own.home.bundle(tmp_path / "log.zip")

    home = lose(own.home)
    restored = put_back(home, data, log=bundle)

    with home.stores() as services, reading(services.engine) as conn:
        status = dict(conn.execute(select(clients.c.client_id, clients.c.status)).all())
    assert (status[changed], status[kept]) == ("suspended", "active")
    assert restored.to_do_again["client.changed"] == 2


def test_who_was_shut_out_since_the_backup_stays_out_and_nobody_is_signed_in(
    own: Past, tmp_path: Path
) -> None:
    """People: who is suspended stays so, a proof that was changed lets nobody in, and no session comes back."""
    names, hasher = ("kept", "changed", "suspended"), Passwords(CHEAP)
    with own.home.stores() as services:
        kept, changed, suspended = (add_member(services, hasher, name) for name in names)
        assert Browser(create_app(services).test_client()).sign_in(kept).status_code == 303
    data = back_up(own.home, tmp_path / "before.zip")
    with own.home.stores() as services:
        change_person(services, changed.user_id, Proofs(has_totp=True), passwords=hasher)
        move_person(services, suspended.user_id, PersonMove.SUSPEND)
    _sequence(own.home)
    bundle = own.home.bundle(tmp_path / "log.zip")

    home = lose(own.home)
    restored = put_back(home, data, log=bundle)

    with home.stores() as services, reading(services.engine) as conn:
        status = {person.name: person.status for person in list_people(services)}
        begun = conn.execute(select(func.count()).select_from(sessions)).scalar_one()
    assert status == {"kept": "active", "changed": "suspended", "suspended": "suspended"}
    assert begun == 0
    assert restored.to_do_again["user.changed"] == 1


def test_a_link_to_a_package_ends_with_a_restore(own: Past, tmp_path: Path) -> None:
    """Decision 0147: nobody knows whether it was used since the backup, and it must not open twice."""
    officer = Personal("system", "officer")
    with own.home.stores() as services:
        desk = privacy_desk(services)
        subject = ClientBook(services).subject_of(own.people[0].client_id)
        case = desk.open("access", str(subject), requested_by=officer)
        desk.run(desk.approve(case.id, by=officer).id)
        link = desk.packages.link(case.id, by=officer)
    data = back_up(own.home, tmp_path / "before.zip")

    home = lose(own.home)
    put_back(home, data)

    with home.stores() as services, pytest.raises(NoPackage):
        privacy_desk(services).packages.fetch_by_link(link.secret)


def test_an_entry_that_was_pending_stands_in_the_log_once(own: Past, tmp_path: Path) -> None:
    """Sequenced after the backup: it is replayed, and not sequenced again."""
    back_up(own.home, tmp_path / "one.zip")  # its entry is pending in the next one
    data = back_up(own.home, tmp_path / "two.zip")
    _sequence(own.home)
    bundle = own.home.bundle(tmp_path / "log.zip")

    home = lose(own.home)
    put_back(home, data, log=bundle)
    _sequence(home)

    with home.stores() as services, reading(services.engine) as conn:
        ids = [entry.canonical.split(b'"id":"')[1][:36] for entry in each_entry(conn)]
    assert len(ids) == len(set(ids))
    assert home.verify_log().ok


def test_a_blob_that_an_erasure_took_meanwhile_is_no_error(own: Past, tmp_path: Path) -> None:
    """One that a row still names is a finding, and the exit status 1."""
    with own.home.stores() as services, reading(services.engine) as conn:
        names = list(conn.scalars(select(client_updates.c.blob_id)))
        services.blobs.delete(names[0])

    told = run(own.home, "backup", "-o", str(tmp_path / "holed.zip"), status=1)

    assert (told["missing"], told["vanished"]) == (1, 0)
    home = lose(own.home)
    assert put_back(home, tmp_path / "holed.zip", new_origin=True).blobs == told["blobs"] == 6


def test_a_bucket_s_name_of_a_model_is_the_same_nowhere_else(past: Past) -> None:
    """Other bytes may have it there; in a directory it would be a path."""
    named, made_at = "models/v1.0.0.bin", "2026-11-24T12:00:00+00:00"

    assert portable_name("0a" * 16, made_at) == "0a" * 16
    assert len(bytes.fromhex(portable_name(named, made_at))) == 16
    assert portable_name(named, made_at) == portable_name(named, made_at) != portable_name(named, "later")


def _sequence(home: Home) -> None:
    with home.stores() as services:
        while sequencer_of(services).run_once():
            pass


def _count(home: Home) -> int:
    home.settle()
    with home.stores() as services, reading(services.engine) as conn:
        return sum(
            int(conn.scalar(select(func.count()).select_from(table)) or 0) for table in emptied_tables()
        )
