"""Promise 2 against the operator's own hands: the log rewritten with every right, and signed with the stolen key."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from living.driver import BARE, Driver, Json, await_that
from living.home import Home, home_in
from living.processes import gateway_in
from living.threads import local_gateway_in
from services.postgresql import PostgreSQL
from services.witness import WitnessProcess
from services.witness import running as running_witness
from sqlalchemy import Connection, delete, insert, text

from audit.cosignature import CosignatureVerifier
from audit.entry import FIRST_PREV, Entry, parse_entry
from audit.errors import LogForked
from audit.reading import reading
from audit.store import LogRows, each_entry, insert_rows, newest_checkpoint
from audit.tables import audit_checkpoints, audit_cosignatures, audit_log, audit_subjects, audit_tiles
from audit.tree import rebuild, root
from audit.triggers import INSERT_ONLY
from gateway.api.audit import log_vkey
from gateway.cli import main
from gateway.log_key import log_keys
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.services import Services
from gateway.witnessing import Asker, Standing, witnesses_of

NAMES = ("witness-one.example/w", "witness-two.example/w")


@contextmanager
def witnessed(home: Home, folder: Path, *names: str) -> Iterator[tuple[Home, list[WitnessProcess]]]:
    """The home with witnesses that follow its log, all of whom are wanted."""
    with home.stores() as services:
        recover(services)
        vkey = log_vkey(services)
    with ExitStack() as stack:
        witnesses = [
            stack.enter_context(running_witness(folder / f"w{number}", name, vkey))
            for number, name in enumerate(names)
        ]
        settings = {
            "witnesses": ", ".join(witness.setting for witness in witnesses),
            "witness_quorum": str(len(witnesses)),
            "witness_interval_s": "0.1",
        }
        yield replace(home, settings={**home.settings, **settings}), witnesses


def verify(bundle: Path, *options: str) -> tuple[int, Json]:
    """`fl-gateway audit verify`: its exit status, and what it says."""
    done = CliRunner().invoke(main, ["audit", "verify", str(bundle), *options, "--json"])
    return done.exit_code, json.loads(done.stdout)


@dataclass(frozen=True, slots=True)
class Held:
    """What others hold of a log: its key, an older checkpoint, a client's receipt, a witness's key."""

    vkey: Path
    since: Path
    receipt: str
    witness: str

    def options(self, *names: str) -> list[str]:
        """Options of `audit verify`."""
        given = {
            "vkey": str(self.vkey),
            "since": str(self.since),
            "receipt": self.receipt,
            "witness": self.witness,
        }
        return [word for name in ("vkey", *names) for word in (f"--{name}", given[name])]


@dataclass(frozen=True, slots=True)
class Crime:
    """A log, what others hold of it, and the same log after somebody with every right was at it."""

    home: Home
    held: Held
    honest: Path
    forged: Path
    cosigned: str


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def crime(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crime]:
    """A round of a gateway with one witness; then an update is made another, and all is signed anew."""
    folder = tmp_path_factory.mktemp("crime")
    server: PostgreSQL | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
    with home_in(folder / "home", server) as plain, witnessed(plain, folder, NAMES[0]) as (home, [witness]):
        with local_gateway_in(home, "sequencer") as gateway:
            gateway.add_model()
            gateway.open_round(BARE)
            (folder / "since").write_text(gateway.checkpoint())
            receipt = gateway.submit(gateway.register(), 1)["receipt"]
            key = CosignatureVerifier.parse(witness.vkey)
            await_that("the update is sequenced", lambda: gateway.entries("update.accepted"))
            size = gateway.entries()[-1]["seq"] + 1
            cosigned = await_that("it is cosigned", lambda: _if_cosigned(gateway.checkpoint(), key, size))
        with home.stores() as services:
            (folder / "vkey").write_text(log_vkey(services))
        held = Held(folder / "vkey", folder / "since", receipt, witness.vkey)
        honest = home.bundle(folder / "honest.zip")
        with home.stores() as services:
            forge(services)
        yield Crime(home, held, honest, home.bundle(folder / "forged.zip"), cosigned)


def _if_cosigned(note: str, key: CosignatureVerifier, size: int) -> str | None:
    return note if int(note.splitlines()[1]) >= size and key.find(note) else None


def forge(services: Services) -> None:
    """Another update in the place of the acknowledged one, chained, hashed and signed as if it had been so."""
    with reading(services.engine) as conn:
        entries = [parse_entry(stored.canonical) for stored in each_entry(conn)]
    (place,) = (entry.seq for entry in entries if entry.event_type == "update.accepted")
    chain = _chained([_altered(entry) if entry.seq == place else entry for entry in entries])
    with services.engine.begin() as conn:
        for statement in _without_triggers(conn.dialect.name):
            conn.execute(text(statement))
        for table in (audit_log, audit_subjects, audit_tiles, audit_checkpoints, audit_cosignatures):
            conn.execute(delete(table))
        insert_rows(conn, LogRows.of(*chain))
        _sign(conn, services, len(chain))


def _sign(conn: Connection, services: Services, size: int) -> None:
    """The tree made anew from what stands there, and a checkpoint with the log's own key."""
    rebuild(conn, size)
    tree = root(conn, size)
    row = {"size": size, "root": tree, "note": log_keys(services).sign(size, tree)}
    conn.execute(insert(audit_checkpoints).values(**row, created_at=services.clock()))


def _altered(entry: Entry) -> Entry:
    """It says another update's hash (a keyed one: nobody sees that it is made up)."""
    was = str(entry.details["update_mac"]).encode()
    return parse_entry(entry.canonical.replace(was, was[::-1]))


def _chained(entries: list[Entry]) -> list[Entry]:
    chain: list[Entry] = []
    prev = FIRST_PREV
    for seq, entry in enumerate(entries):
        chain.append(entry.placed(seq, prev))
        prev = chain[-1].leaf().hex()
    return chain


def _without_triggers(dialect: str) -> list[str]:
    if dialect == "postgresql":
        return [f"ALTER TABLE {table} DISABLE TRIGGER ALL" for table in INSERT_ONLY]
    kinds = ("update", "delete", "replace")
    return [f"DROP TRIGGER {table}_no_{kind}" for table in INSERT_ONLY for kind in kinds]


def test_the_stolen_key_deceives_who_holds_the_key_alone(crime: Crime) -> None:
    """So that what is found below is found by what else somebody holds; the honest log passes with all of it."""
    honest, verdict = verify(crime.honest, *crime.held.options("since", "receipt", "witness"))

    assert (honest, verdict["ok"]) == (0, True)
    assert verify(crime.forged, *crime.held.options())[0] == 0


@pytest.mark.parametrize("evidence", ["since", "receipt", "witness"])
def test_a_rewritten_and_resigned_log_is_found_by_each_evidence(crime: Crime, evidence: str) -> None:
    """Issue: an old checkpoint, a receipt, or a witness's cosignature is enough by itself."""
    if evidence == "since":  # one that covers what was changed
        crime.held.since.write_text(crime.cosigned)

    status, verdict = verify(crime.forged, *crime.held.options(evidence))

    assert (status, verdict["ok"]) == (1, False)


def test_the_witness_s_cosignature_does_not_fit_the_forged_log(crime: Crime, tmp_path: Path) -> None:
    """The forger keeps the line that the witness gave to the true log: it is not one of the forged."""
    lines = [line for line in crime.cosigned.splitlines(keepends=True) if NAMES[0] in line]
    with zipfile.ZipFile(crime.forged) as old, zipfile.ZipFile(tmp_path / "with.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name).decode()
            new.writestr(name, content + "".join(lines) if name == "checkpoint" else content)

    status, verdict = verify(tmp_path / "with.zip", *crime.held.options("witness"))

    assert (status, verdict["ok"]) == (1, False)


def test_the_witness_itself_refuses_the_forged_log(crime: Crime) -> None:
    """At the size that it knows, and after the log has grown: it remembers what it cosigned."""
    with crime.home.stores() as services:
        (witness,) = witnesses_of(services.config)
        asker = Asker(services.engine, services.engine, witness, services.clock)
        at_once = asker.ask()
        _grow_past_the_state(services)
        grown = asker.ask()
        asker.close()
        with reading(services.engine) as conn:
            newest = newest_checkpoint(conn)

    assert [found.standing for found in (at_once, grown)] == [Standing.REFUSED] * 2
    assert newest is not None
    assert witness.verifier.find(newest.note) is None


def _grow_past_the_state(services: Services) -> None:
    """The gateway's own signer refuses; the forger adds an entry and signs by hand."""
    with reading(services.engine) as conn:
        last = parse_entry(list(each_entry(conn))[-1].canonical)
    another = last.canonical.replace(last.id.encode(), f"{last.id[:-4]}beef".encode())
    entry = parse_entry(another).placed(last.seq + 1, last.leaf().hex())
    with services.engine.begin() as conn:
        insert_rows(conn, LogRows.of(entry))
        _sign(conn, services, entry.seq + 1)


def test_the_gateway_s_own_signer_refuses_the_forged_log_too(crime: Crime) -> None:
    """Its memory lies outside of the database (RULES 23)."""
    with crime.home.stores() as services, pytest.raises(LogForked):
        sequencer_of(services).run_once()


def test_two_witnesses_cosign_what_readers_get_and_a_killed_one_comes_back(tmp_path: Path) -> None:
    """A gateway as it is in production, two witnesses, a quorum of both: bundle and checkpoint verify with them."""
    with (
        home_in(tmp_path / "home") as plain,
        witnessed(plain, tmp_path, *NAMES) as (home, witnesses),
        gateway_in(home) as gateway,
    ):
        keys = [CosignatureVerifier.parse(witness.vkey) for witness in witnesses]
        auditor = gateway.as_role("auditor")

        def shown() -> str | None:
            """What standard tooling reads: the newest checkpoint that both cosigned."""
            answer = gateway.http.get("/tlog/checkpoint", headers=auditor)
            return answer.text if answer.status_code == 200 else None

        def shown_from(size: int) -> str | None:
            note = shown()
            return note if note and int(note.splitlines()[1]) >= size else None

        first = await_that("both have cosigned", shown)
        witnesses[1].kill()
        gateway.add_model()
        size = _size_with(gateway, "model.published")
        await_that("it is signed", lambda: int(gateway.checkpoint().splitlines()[1]) >= size)
        meanwhile = shown()
        witnesses[1].start()
        second = await_that("both have cosigned again", lambda: shown_from(size))
        bundle = home.bundle(tmp_path / "log.zip")

    assert meanwhile is not None
    assert int(meanwhile.splitlines()[1]) < size
    assert all(key.find(note) for key in keys for note in (first, meanwhile, second))
    options = [word for witness in witnesses for word in ("--witness", witness.vkey)]
    assert verify(bundle, *options, "--quorum", "2")[0] == 0


def test_a_witness_that_hangs_does_not_slow_the_log(tmp_path: Path) -> None:
    """Entries are sequenced and signed while one witness takes connections and answers nothing."""
    with (
        home_in(tmp_path / "home") as plain,
        witnessed(plain, tmp_path, NAMES[0]) as (home, [witness]),
    ):
        witness.pause()
        with local_gateway_in(home, "sequencer") as gateway:
            gateway.add_model()
            size = _size_with(gateway, "model.published")
            note = await_that(
                "it is signed",
                lambda: (note := gateway.checkpoint()) and int(note.splitlines()[1]) >= size and note,
            )
            witness.go_on()
            key = CosignatureVerifier.parse(witness.vkey)
            await_that("it is cosigned later", lambda: key.find(gateway.checkpoint()))

    assert key.find(note) is None


def test_a_gateway_on_an_old_copy_of_everything_is_found_by_the_witness(tmp_path: Path) -> None:
    """Database, key store and state put back together: nobody in the house remembers, the witness does."""
    with (
        home_in(tmp_path / "home") as plain,
        witnessed(plain, tmp_path, NAMES[0]) as (home, [witness]),
    ):
        key = CosignatureVerifier.parse(witness.vkey)
        with local_gateway_in(home, "sequencer") as gateway:
            gateway.checkpoint()
        older = home.copy(tmp_path / "older")
        with local_gateway_in(home, "sequencer") as gateway:
            gateway.add_model()
            gateway.open_round(BARE)
            size = _size_with(gateway, "round.created")
            await_that("it is cosigned", lambda: _if_cosigned(gateway.checkpoint(), key, size))

        with local_gateway_in(older, "sequencer") as gateway:
            (told,) = await_that("the refusal is told", lambda: gateway.entries("witness.refused"))
            note = gateway.checkpoint()

    assert told["outcome"] == "failure"
    assert told["details"]["known_size"] >= size > told["details"]["size"]
    assert key.find(note) is None


def _size_with(gateway: Driver, event_type: str) -> int:
    """How many entries the log has at least, once the newest of that type is in it."""
    newest = await_that(f"{event_type} is in the log", lambda: gateway.entries(event_type))[-1]
    return int(newest["seq"]) + 1
