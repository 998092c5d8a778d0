"""RULES 20: a backup brings nobody back who was erased since, forgets no spend, and leaves the log provable."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from living.driver import BARE, NOISED, Person, await_that, tensors
from living.home import Home
from living.restores import back_up, back_up_keys, kept_in_stores, lose, put_back
from living.threads import LocalGateway, local_gateway_in
from sqlalchemy import select

from audit.reading import reading
from audit.verifier.verdict import ReceiptVerdict
from audit.verify import verify_bundle
from gateway.api.audit import log_vkey
from gateway.backup.archive import Kind, open_archive
from gateway.backup.blobs import each_blob
from gateway.backup.errors import LogIncomplete
from gateway.backup.reading import rows_of
from gateway.backup.rows import main_tables
from gateway.backup.writing import silent
from gateway.parts.sequencing import sequencer_of
from gateway.tables import client_updates

_DEAR = NOISED | {"noise_multiplier": 2.0}  # the second one would pass a budget of 2
embedded = pytest.mark.parametrize("home", ["embedded"], indirect=True)


def test_a_backup_from_before_an_erasure_brings_nobody_back(home: Home, tmp_path: Path) -> None:
    """Promise 5: not a row, not a blob, not a key, though the backups of data and keys hold all of them."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        person, other = (gateway.register(name=f"canary-{uuid4()}") for _ in range(2))
        ended = gateway.open_round(BARE)
        for one in (person, other):
            gateway.submit(one, ended)
        gateway.await_end(ended)
        still_open = gateway.open_round(BARE)
        gateway.submit(person, still_open)
        gateway.export(person)
    names = _names_of(home, person)
    before = kept_in_stores(home)
    backup, keys = back_up(home, tmp_path / "data.zip"), back_up_keys(home, tmp_path / "keys.zip")
    with local_gateway_in(home) as gateway:
        gateway.erase(person)
    bundle = home.bundle(tmp_path / "log.zip")

    restored = lose(home, keys=True)
    done = put_back(restored, backup, log=bundle, keys=keys)

    kept = kept_in_stores(restored)
    assert all(name.encode() in before for name in names)  # so that the search finds what is there
    assert [name for name in names if name.encode() in kept] == []
    assert done.erased_people == 1
    with local_gateway_in(restored) as gateway:
        assert gateway.http.get("/api/v1/rounds", headers=person.headers).status_code == 401
        assert gateway.http.get("/api/v1/rounds", headers=other.headers).status_code == 200
        await_that("the log goes on", lambda: gateway.entries("backup.restored"))
        assert b"canary" in gateway.export(other)
    assert restored.verify_log().ok


@embedded
def test_a_backup_from_before_a_spend_does_not_forget_it(home: Home, tmp_path: Path) -> None:
    """Promise 4: what was spent since the backup counts, and a round that would pass the budget is refused."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget={"epsilon": 2.0, "delta": 1e-5})
        people = [gateway.register() for _ in range(2)]
        backup = back_up(home, tmp_path / "data.zip")
        assert gateway.run_round(people, _DEAR)["status"] == "completed"
        spent = _budget(gateway)

    restored = lose(home)
    done = put_back(restored, backup, new_origin=True)

    assert done.spends > 0
    with local_gateway_in(restored) as gateway:
        assert _budget(gateway) == spent
        answer = gateway.ask_round(_DEAR)
        assert (answer.status_code, answer.json()["code"]) == (409, "PRIVACY_BUDGET_EXCEEDED")


@embedded
def test_a_replayed_log_keeps_its_origin_and_proves_every_receipt(home: Home, tmp_path: Path) -> None:
    """Promises 2 and 3: entries beyond the backup are there again, and updates that it lacks failed with an entry."""
    with local_gateway_in(home) as gateway:
        for _ in range(2):
            gateway.add_model()
        people = [gateway.register() for _ in range(3)]
        number = gateway.open_round(BARE, planned_clients=4, base_version="1.0.0")
        receipts = [gateway.submit(people[0], number)["receipt"]]
        backup = back_up(home, tmp_path / "data.zip")
        receipts += [gateway.submit(one, number)["receipt"] for one in people[1:]]
        later = gateway.open_round(BARE, base_version="2.0.0")
        receipts.append(gateway.submit(people[0], later)["receipt"])
        since = gateway.checkpoint()
    _sequence(home)
    bundle = home.bundle(tmp_path / "log.zip")
    origin = verify_bundle(bundle).origin

    restored = lose(home)
    done = put_back(restored, backup, log=bundle)

    assert done.course.goes_on
    assert done.lost_updates == 3
    with local_gateway_in(restored) as gateway:
        assert gateway.round(number)["status"] == "failed"
        failed = await_that("the entries", lambda: gateway.entries("round.failed"))
        assert {one["details"]["round_number"]: one["details"]["count"] for one in failed} == {
            number: 2,
            later: 1,
        }
        assert gateway.open_round(BARE) > later  # no number twice in one log
        await_that("a receipt's proof", lambda: _has_proof(gateway, people[0]))
    _sequence(restored)
    verdict = restored.verify_log(since=since, receipts=tuple(receipts))
    assert (verdict.ok, verdict.origin) == (True, origin), verdict.problem
    assert {finding.verdict for finding in verdict.receipts} == {ReceiptVerdict.PROVEN}


@embedded
def test_without_the_missing_entries_a_new_log_begins_and_says_so(home: Home, tmp_path: Path) -> None:
    """Promise 2: the old log is never signed again; who holds evidence of it learns where it ended, and where it is."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        people = [gateway.register() for _ in range(2)]
        number = gateway.open_round(BARE)
        early = gateway.submit(people[0], number)["receipt"]
        await_that("the receipt's entry is signed", lambda: _has_proof(gateway, people[0]))
        backup = back_up(home, tmp_path / "data.zip")
        late = gateway.submit(people[1], number)["receipt"]
        gateway.await_end(number)
    _sequence(home)
    with home.stores() as services:
        ended, old_vkey = services.state.last_checkpoint(), log_vkey(services)
    since = json.loads(home.command("audit", "checkpoint", "--json").stdout)["checkpoint"]

    restored = lose(home)
    with pytest.raises(LogIncomplete):
        put_back(restored, backup)
    done = put_back(restored, backup, new_origin=True)

    with local_gateway_in(restored) as gateway:
        first = await_that("the first entry", gateway.entries)[0]
        await_that("the end of the restore", lambda: gateway.entries("backup.restored"))
    _sequence(restored)
    assert ended is not None
    assert (first["event_type"], first["seq"]) == ("log.succeeded", 0)
    told = {name: first["details"][name] for name in ("old_origin", "size", "root")}
    assert told == {"old_origin": ended.origin, "size": ended.size, "root": ended.root.hex()}
    now = restored.verify_log()
    assert now.ok
    assert now.origin == done.course.origin != ended.origin
    assert any(f"succeeds the log {ended.origin!r}" in check for check in now.checks)
    asked = restored.verify_log(since=since)
    assert not asked.ok
    assert "check it against a bundle of that log" in str(asked.problem)
    assert not restored.verify_log(receipts=(late,)).ok
    assert done.old_log is not None
    assert done.old_log.stat().st_mode & 0o077 == 0  # it holds what people are named by, sealed
    old = verify_bundle(done.old_log, vkey=old_vkey, receipts=(early,))
    assert old.ok
    assert old.receipts[0].verdict is ReceiptVerdict.PROVEN


def test_a_backup_made_while_uploads_run_is_of_one_moment(gateway: LocalGateway, tmp_path: Path) -> None:
    """Each update in it has its blob and its entry, however many are on their way."""
    gateway.add_model()
    people = [gateway.register() for _ in range(20)]
    number = gateway.open_round(BARE, planned_clients=21)
    made: list[Path] = []
    with ThreadPoolExecutor(4) as pool:
        early = gateway.submit(people[0], number, tensors(2))
        sent = [pool.submit(gateway.submit, one, number, tensors(2)) for one in people[1:-1]]
        made.append(back_up(gateway.home, tmp_path / "0.zip"))  # the last one has not begun
        sent.append(pool.submit(gateway.submit, people[-1], number, tensors(2)))
        while not all(one.done() for one in sent):
            made.append(back_up(gateway.home, tmp_path / f"{len(made)}.zip"))
        made.append(back_up(gateway.home, tmp_path / f"{len(made)}.zip"))
        assert [told["status"] for told in (early, *(one.result() for one in sent))] == ["accepted"] * 20

    counts = [_complete_updates(path) for path in made]

    assert counts == sorted(counts)
    assert 0 < counts[0] < 20
    assert counts[-1] == 20


def _complete_updates(path: Path) -> int:
    """How many updates a backup holds; each must be whole."""
    tables = {table.name: table for table in main_tables()}
    with open_archive(path, Kind.DATABASE) as archive:
        updates = list(rows_of(archive, client_updates))
        entries = {
            row["id"] for name in ("audit_log", "audit_pending") for row in rows_of(archive, tables[name])
        }
        blobs = {blob.name for blob in each_blob(archive, None, silent)}
    assert {row["entry_id"] for row in updates} <= entries
    assert {row["blob_id"] for row in updates} <= blobs
    return len(updates)


def _budget(gateway: LocalGateway) -> str:
    answer = gateway.http.get("/api/v1/privacy/budget", headers=gateway.as_role("auditor"))
    return str(answer.json()["data"][0]["epsilon_spent"])


def _sequence(home: Home) -> None:
    """Order and sign whatever is pending."""
    with home.stores() as services:
        while sequencer_of(services).run_once():
            pass


def _has_proof(gateway: LocalGateway, person: Person) -> bool:
    with gateway.home.stores() as services, reading(services.engine) as conn:
        mine = client_updates.c.client_id == person.client_id
        update_id = conn.execute(select(client_updates.c.update_id).where(mine)).scalars().first()
    answer = gateway.http.get(f"/api/v1/updates/{update_id}/receipt", headers=person.headers)
    return answer.status_code == 200


def _names_of(home: Home, person: Person) -> list[str]:
    """The random names of what is the person's alone; an update's id stays in the cohort that it was frozen into."""
    with home.stores() as services, reading(services.engine) as conn:
        mine = client_updates.c.client_id == person.client_id
        updates = conn.execute(select(client_updates.c.blob_id).where(mine)).all()
    return [name.replace("-", "") for name in (person.client_id, *(row.blob_id for row in updates))]
