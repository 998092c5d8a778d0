"""Promise 2: a rewritten, dropped, reordered or inserted entry is found, offline, with the public key alone."""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.driver import BARE, Json, await_that
from living.home import Home, home_in
from living.threads import local_gateway_in
from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from audit.checkpoint import NoteSigner
from audit.errors import LogForked, LogShrunk
from audit.events import EventType
from audit.reading import reading
from audit.store import latest_checkpoint
from audit.tables import metadata
from gateway.api.audit import log_vkey
from gateway.cli import main
from gateway.parts.sequencing import sequencer_of
from gateway.services import Services

KEYS = {"audit_log": "seq", "audit_checkpoints": "size"}
_ANYWHERE = (
    "UPDATE {table} SET {key} = {key} + 1",
    "UPDATE {table} SET {key} = {key}",
    "DELETE FROM {table}",
)
CHANGES = {
    "sqlite": (*_ANYWHERE, "REPLACE INTO {table} SELECT * FROM {table}"),
    "postgresql": (*_ANYWHERE, "TRUNCATE {table}", "TRUNCATE {table} CASCADE"),
}
Tampering = Callable[[list[bytes]], list[bytes]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an auditor holds: a bundle, the key from elsewhere, an older checkpoint, a client's receipt."""

    bundle: Path
    vkey: Path
    since: Path
    receipt: str

    def changed(self, to: Path, tampering: Tampering | None = None, checkpoint: str | None = None) -> Path:
        """The bundle with its entries tampered with, or with another checkpoint."""
        with zipfile.ZipFile(self.bundle) as old, zipfile.ZipFile(to, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                if tampering and name == "entries.jsonl":
                    content = b"".join(tampering(content.splitlines(keepends=True)))
                if checkpoint and name == "checkpoint":
                    content = checkpoint.encode()
                new.writestr(name, content)
        return to


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A log of a round, taken twice: the older checkpoint is in the middle of the bundle."""
    folder = tmp_path_factory.mktemp("evidence")
    with home_in(folder / "home") as home:
        with local_gateway_in(home, "sequencer") as gateway:
            gateway.add_model()
            gateway.open_round(BARE)
            (folder / "since").write_text(gateway.checkpoint())
            receipt = gateway.submit(gateway.register(), 1)["receipt"]
        with home.stores() as services:
            while sequencer_of(services).run_once():
                pass  # the thread may have been stopped before the last entries
            (folder / "vkey").write_text(log_vkey(services))
        home.bundle(folder / "bundle.zip")
    newest, older = zipfile.ZipFile(folder / "bundle.zip").read("checkpoint").decode(), folder / "since"
    later = _size(newest) - _size(older.read_text())
    assert later >= 2, "the registration and the update come after the older checkpoint"
    return Evidence(folder / "bundle.zip", folder / "vkey", folder / "since", receipt)


def _size(checkpoint: str) -> int:
    return int(checkpoint.splitlines()[1])


def test_a_sound_log_verifies(evidence: Evidence) -> None:
    """With key, older checkpoint and receipt; the exit status is 0."""
    options = ["--vkey", str(evidence.vkey), "--since", str(evidence.since), "--receipt", evidence.receipt]

    status, verdict = verify(evidence.bundle, *options)

    assert (status, verdict["ok"]) == (0, True)


def _change(entries: list[bytes]) -> list[bytes]:
    entries[3] = entries[3].replace(b'"outcome":"success"', b'"outcome":"failure"')
    return entries


def _drop(entries: list[bytes]) -> list[bytes]:
    return entries[:3] + entries[4:]


def _swap(entries: list[bytes]) -> list[bytes]:
    return [*entries[:3], entries[4], entries[3], *entries[5:]]


def _repeat(entries: list[bytes]) -> list[bytes]:
    return [*entries[:3], entries[2], *entries[3:]]


def _append(entries: list[bytes]) -> list[bytes]:
    return [*entries, entries[-1]]


def _cut(entries: list[bytes]) -> list[bytes]:
    return entries[:-1]


@pytest.mark.parametrize(
    ("tampering", "first_bad"),
    [(_change, 3), (_drop, 3), (_swap, 3), (_repeat, 3), (_append, -1), (_cut, -2)],
    ids=[
        "one word changed",
        "one dropped",
        "two swapped",
        "one repeated",
        "one appended",
        "the last cut off",
    ],
)
def test_a_tampered_log_is_found_and_the_first_bad_entry_named(
    evidence: Evidence, tmp_path: Path, tampering: Tampering, first_bad: int
) -> None:
    """The command's exit status is 1, and it says where; a change shows in the entry or in the one after it."""
    changed = evidence.changed(tmp_path / "changed.zip", tampering)
    size = len(zipfile.ZipFile(evidence.bundle).read("entries.jsonl").splitlines())

    status, verdict = verify(changed, "--vkey", str(evidence.vkey))

    wanted = first_bad if first_bad >= 0 else size + 1 + first_bad
    assert status == 1
    assert verdict["first_bad_seq"] in (wanted, wanted + 1)


def test_every_byte_of_the_entries_counts(evidence: Evidence, tmp_path: Path) -> None:
    """Flip one bit anywhere, in a spread of places: no bundle verifies."""
    whole = zipfile.ZipFile(evidence.bundle).read("entries.jsonl")
    places = range(0, len(whole), len(whole) // 40)

    def flip(place: int) -> Tampering:
        return lambda _: [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]]

    statuses = [verify(evidence.changed(tmp_path / f"{place}.zip", flip(place)))[0] for place in places]

    assert set(statuses) == {1}


def test_a_checkpoint_of_another_key_is_refused(evidence: Evidence, tmp_path: Path) -> None:
    """The log rewritten and signed anew by somebody else: the auditor's own copy of the key tells."""
    origin = evidence.vkey.read_text().partition("+")[0]
    forger = NoteSigner(origin, Ed25519PrivateKey.generate())
    size, root = _signed_tree(evidence.bundle)
    forged = evidence.changed(tmp_path / "forged.zip", checkpoint=forger.sign(size, root))

    status, verdict = verify(forged, "--vkey", str(evidence.vkey))

    assert (status, verdict["ok"]) == (1, False)
    assert "checkpoint" in verdict["problem"]


def test_an_older_log_shown_as_the_newest_is_found_by_a_newer_checkpoint(
    evidence: Evidence, tmp_path: Path
) -> None:
    """An old, perfectly signed bundle cannot hide what came after it from who holds a later checkpoint."""
    old_size = _size(evidence.since.read_text())
    old = evidence.changed(tmp_path / "old.zip", lambda e: e[:old_size], evidence.since.read_text())
    newest = tmp_path / "newest"
    newest.write_text(zipfile.ZipFile(evidence.bundle).read("checkpoint").decode())

    alone, _ = verify(old, "--vkey", str(evidence.vkey))
    against_newest, verdict = verify(old, "--vkey", str(evidence.vkey), "--since", str(newest))

    assert alone == 0
    assert (against_newest, verdict["ok"]) == (1, False)


@pytest.mark.parametrize("table", ["audit_log", "audit_checkpoints"])
def test_the_database_itself_refuses_to_change_the_log(home: Home, table: str) -> None:
    """Even for who holds the gateway's own credentials."""
    with home.stores() as services:
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
        sequencer_of(services).run_once()
        before = _rows(services, table)

        for statement in CHANGES[services.engine.dialect.name]:
            with pytest.raises(DatabaseError, match="insert-only"):
                _execute(services, statement.format(table=table, key=KEYS[table]))

        assert _rows(services, table) == before


def test_a_database_restored_from_an_older_copy_is_not_signed(home: Home, tmp_path: Path) -> None:
    """The signer remembers outside of the database: neither a smaller nor a forked tree gets its signature."""
    with home.stores() as services:
        _log_some(services, 3)
    older, forked = home.copy(tmp_path / "older"), home.copy(tmp_path / "forked")
    with home.stores() as services:
        _log_some(services, 2)
    with forked.stores() as services:
        _log_some(services, 4)

    for copy, refusal in ((older, LogShrunk), (forked, LogForked)):
        _take_state(copy, home)
        with copy.stores() as services:
            services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
            with reading(services.engine) as conn:
                note_before = latest_checkpoint(conn)

            with pytest.raises(refusal):
                sequencer_of(services).run_once()

            with reading(services.engine) as conn:
                assert latest_checkpoint(conn) == note_before


@pytest.mark.parametrize("home", ["embedded"], indirect=True)
def test_a_running_gateway_on_a_restored_database_signs_nothing_and_says_so(
    home: Home, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It goes on, loudly: the critical message tells the operator, and no checkpoint comes."""
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.add_model()
        gateway.checkpoint()
    older = home.copy(tmp_path / "older")
    with local_gateway_in(home, "sequencer") as gateway:
        gateway.open_round(BARE)
        await_that("it is signed", lambda: len(gateway.entries("round.created")) == 1)
        gateway.checkpoint()

    home.restore(("fl-gateway.db",), older)
    with local_gateway_in(home, "sequencer"):
        await_that("the refusal is logged", lambda: "the log is not signed" in caplog.text)

    with home.stores() as services, reading(services.engine) as conn:
        kept = latest_checkpoint(conn)
    with older.stores() as services, reading(services.engine) as conn:
        assert kept == latest_checkpoint(conn)


def verify(bundle: Path, *options: str) -> tuple[int, Json]:
    """`fl-gateway audit verify`: its exit status, and what it says."""
    done = CliRunner().invoke(main, ["audit", "verify", str(bundle), *options, "--json"])
    return done.exit_code, json.loads(done.stdout)


def _execute(services: Services, statement: str) -> None:
    with services.engine.begin() as conn:
        conn.exec_driver_sql(statement)


def _rows(services: Services, table: str) -> list[tuple[object, ...]]:
    with reading(services.engine) as conn:
        return [tuple(row) for row in conn.execute(select(metadata.tables[table]))]


def _signed_tree(bundle: Path) -> tuple[int, bytes]:
    _, size, root = zipfile.ZipFile(bundle).read("checkpoint").decode().splitlines()[:3]
    return int(size), base64.b64decode(root)


def _log_some(services: Services, count: int) -> None:
    for _ in range(count):
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
    sequencer_of(services).run_once()


def _take_state(copy: Home, home: Home) -> None:
    """Give the copy the state as it is now: it is never restored (RULES 1)."""
    source, target = (one.directory / "keys" / "state" / "checkpoint.json" for one in (home, copy))
    target.write_bytes(source.read_bytes())
