"""RULES 24: what the logins of gateway, sequencer and owner may do on PostgreSQL, and what it refuses them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from living.driver import await_that
from living.home import Home
from living.threads import local_gateway_in
from services import postgresql
from services.witness import running
from sqlalchemy import make_url
from sqlalchemy.exc import ProgrammingError

from audit.events import EventType
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.doctor import examine
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.storage.database import open_engine
from gateway.storage.rights import APP, SEQUENCER, grant_rights, renew_rights
from gateway.witnessing import Asker, Standing, witnesses_of

LOGINS = {"web_login": APP, "log_login": SEQUENCER}


@dataclass(frozen=True, slots=True)
class Separated:
    """A database of three logins."""

    server: postgresql.PostgreSQL
    name: str

    def url(self, login: str) -> str:
        """The database as that login."""
        return self.server.url(self.name).replace("postgres@", f"{login}@")

    def home(self, directory: Path) -> Home:
        """The stores of a gateway on it."""
        settings = {
            "sequencer_database_url": self.url("log_login"),
            "owner_database_url": self.url("owner_login"),
        }
        return Home(directory, self.url("web_login"), self.server, settings)


@pytest.fixture(scope="module")
def separated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Separated]:
    """PostgreSQL as an operator sets it up: the documented commands, run by the owner."""
    with postgresql.running() as server:
        made = Separated(server, server.create_database())
        with psycopg.connect(plain(server.url()), autocommit=True) as admin:
            admin.execute("CREATE ROLE owner_login LOGIN CREATEROLE")
            admin.execute(f"ALTER DATABASE {made.name} OWNER TO owner_login")
            for login in LOGINS:
                admin.execute(f"CREATE ROLE {login} LOGIN")
            home = made.home(tmp_path_factory.mktemp("rights"))
            for words in (("db", "upgrade"), ("db", "grant"), ("db", "grant"), ("db", "upgrade")):
                done = home.command(*words)
                assert done.returncode == 0, done.stderr
            for login, role in LOGINS.items():
                admin.execute(f"GRANT {role} TO {login}")
        yield made


def plain(url: str) -> str:
    """The URL as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def test_an_update_comes_from_intake_to_the_verified_log_with_three_logins(
    separated: Separated, tmp_path: Path
) -> None:
    """No right is missing: rounds, models, requests, the SIEM and the log work, each as its own login."""
    home = separated.home(tmp_path)
    done = home.command("db", "upgrade")  # the key store of this test's own
    assert done.returncode == 0, done.stderr
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget={"epsilon": 8.0, "delta": 1e-5})
        people = [gateway.register() for _ in range(2)]
        ended = gateway.run_round(people)
        package = gateway.export(people[0])
        erased = gateway.erase(people[0])
        events = {entry["event_type"] for entry in gateway.entries()}
        sink = tmp_path / "siem.jsonl"
        await_that("the SIEM has it", lambda: sink.exists() and "round.completed" in sink.read_text())
        verdict = gateway.home.verify_log()

    assert ended["status"] == "completed"
    assert package
    assert erased["status"] == "completed"
    assert {"update.accepted", "round.completed"} <= events
    assert verdict.ok


def test_cosignatures_are_kept_as_the_sequencers_login_alone(separated: Separated, tmp_path: Path) -> None:
    """RULES 24: what a witness gave is part of the log, which the web process may read and not write."""
    home = separated.home(tmp_path / "home")
    home.directory.mkdir()
    assert home.command("db", "upgrade").returncode == 0
    writer = open_engine(separated.url("log_login"))
    with home.stores() as services:
        recover(services)
        services.trail.note(EventType.CONFIG_CHANGED, settings=["x"])
        sequencer_of(services, writer).run_once()
        with running(tmp_path / "w", "witness.example/w1", log_vkey(services)) as process:
            (witness,) = witnesses_of(Config(witnesses=process.setting))
            web = Asker(services.engine, services.engine, witness, services.clock)
            log = Asker(services.engine, writer, witness, services.clock)

            with pytest.raises(ProgrammingError, match="permission denied"):
                web.ask()
            found = log.ask()

            web.close()
            log.close()
    writer.dispose()

    assert found.standing is Standing.COSIGNED


def test_the_tree_is_mended_as_the_sequencers_login_alone(separated: Separated, tmp_path: Path) -> None:
    """`audit rebuild` needs the right to write tiles: the web process has it not, and the log itself stays as it is."""
    home = separated.home(tmp_path)
    assert home.command("db", "upgrade").returncode == 0
    with psycopg.connect(plain(separated.server.url(separated.name)), autocommit=True) as admin:
        admin.execute(r"INSERT INTO audit_tiles VALUES (5, 0, '\\x00')")
        without = Home(tmp_path, separated.url("web_login"), separated.server, {}).command("audit", "rebuild")
        mended = home.command("audit", "rebuild")
        left = admin.execute("SELECT hashes FROM audit_tiles WHERE level = 5").fetchone()

    assert (without.returncode, mended.returncode) == (2, 1), (without.stderr, mended.stderr)
    assert "does not allow" in without.stderr
    assert "tile 5/0 differed: written anew" in mended.stdout
    assert left == (b"",)


@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("audit_log", "seq"),
        ("audit_checkpoints", "size"),
        ("audit_subjects", "seq"),
        ("audit_tiles", "tile"),
        ("audit_pending", "body"),
    ],
)
def test_the_gateways_login_may_not_change_the_log(
    separated: Separated, statement: str, table: str, column: str
) -> None:
    """Who has taken the web process over can add entries, and neither change, drop nor replace one."""
    with (
        psycopg.connect(plain(separated.url("web_login"))) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied"),
    ):
        conn.execute(statement.format(table, column, column))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO audit_log SELECT * FROM audit_log",
        "INSERT INTO audit_checkpoints SELECT * FROM audit_checkpoints",
        "INSERT INTO audit_subjects SELECT * FROM audit_subjects",
        "INSERT INTO audit_tiles SELECT * FROM audit_tiles",
        "ALTER TABLE audit_log DISABLE TRIGGER ALL",
        "DROP TABLE audit_log",
        "CREATE TABLE audit_log_2 (id int)",
        "SET session_replication_role = replica",
        f"SET ROLE {SEQUENCER}",
        "SET ROLE owner_login",
    ],
)
def test_the_gateways_login_may_not_write_past_the_sequencer(separated: Separated, statement: str) -> None:
    """Entries get into the log by the sequencer alone, and no role change leads there."""
    with (
        psycopg.connect(plain(separated.url("web_login"))) as conn,
        pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ProgrammingError)) as told,
    ):
        conn.execute(statement)  # type: ignore[arg-type]

    assert told.value.sqlstate == "42501"
    assert "insert-only" not in str(told.value)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_log SET seq = seq",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
        "UPDATE audit_checkpoints SET size = size",
        "DELETE FROM audit_checkpoints",
        "TRUNCATE audit_checkpoints",
        "UPDATE audit_subjects SET seq = seq",
        "DELETE FROM audit_subjects",
        "DELETE FROM audit_tiles",
        "INSERT INTO audit_pending SELECT * FROM audit_pending",
        "UPDATE audit_pending SET body = body",
        "TRUNCATE audit_pending",
        "SELECT * FROM clients",
        "SELECT * FROM client_updates",
        "UPDATE rounds SET status = status",
        "DELETE FROM privacy_requests",
        "DROP TABLE audit_log",
        f"SET ROLE {APP}",
    ],
)
def test_the_sequencers_login_writes_the_log_and_nothing_else(separated: Separated, statement: str) -> None:
    """It can neither change what is in the log, nor stage an entry, nor read a client."""
    with (
        psycopg.connect(plain(separated.url("log_login"))) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege) as told,
    ):
        conn.execute(statement)  # type: ignore[arg-type]

    assert "insert-only" not in str(told.value)


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET seq = seq", "DELETE FROM audit_log"])
def test_the_triggers_hold_for_the_owner_too(separated: Separated, statement: str) -> None:
    """The owner may migrate; to change an entry it must first remove a trigger, which a schema check shows."""
    with (
        psycopg.connect(plain(separated.url("owner_login"))) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="insert-only"),
    ):
        conn.execute(statement)  # type: ignore[arg-type]


def test_a_right_given_by_hand_is_taken_back(separated: Separated) -> None:
    """`db grant` gives exactly the rights: it also mends what somebody has loosened."""
    with psycopg.connect(plain(separated.url("owner_login")), autocommit=True) as conn:
        conn.execute(f"GRANT DELETE ON audit_pending TO {APP}")  # type: ignore[arg-type]
    engine = open_engine(separated.url("owner_login"))

    grant_rights(engine)

    engine.dispose()
    with (
        psycopg.connect(plain(separated.url("web_login"))) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("DELETE FROM audit_pending")


def test_without_roles_there_is_nothing_to_renew(postgresql_url: str, sqlite_url: str) -> None:
    """A database with one login stays as it is; SQLite knows no roles."""
    renewed = []
    for url in (postgresql_url, sqlite_url):
        engine = open_engine(url)
        renewed.append(renew_rights(engine))
        engine.dispose()

    assert renewed == [False, False]


def test_a_grant_on_sqlite_says_that_it_has_no_roles(tmp_path: Path, sqlite_url: str) -> None:
    """One line and exit 2."""
    done = Home(tmp_path, sqlite_url).command("db", "grant")

    assert done.returncode == 2
    assert "only PostgreSQL has roles" in done.stderr


def test_a_migration_by_the_gateways_login_is_refused_in_one_line(
    separated: Separated, tmp_path: Path
) -> None:
    """Who forgets FLG_OWNER_DATABASE_URL is told by the database, without a traceback."""
    name = separated.server.create_database()
    url = separated.server.url(name).replace("postgres@", "web_login@")

    done = Home(tmp_path, url).command("db", "upgrade")

    assert done.returncode == 2
    assert "does not allow this" in done.stderr
    assert "Traceback" not in done.stderr


# The doctor tells of rights that nobody needs


def risk_of(separated: Separated, gateway: str, sequencer: str = "") -> str:
    """What the doctor says of these logins; nothing if they have what they need."""
    url = {"sequencer_database_url": separated.url(sequencer)} if sequencer else {}
    (found,) = [
        found
        for found in examine(Config(database_url=separated.url(gateway), **url))
        if found.name == "rights"
    ]
    assert found.is_good
    return found.said if found.is_risky else ""


def test_the_documented_logins_have_no_right_too_many(separated: Separated) -> None:
    """RULES 24: as an operator sets it up."""
    assert risk_of(separated, "web_login", "log_login") == ""


@pytest.mark.parametrize(
    ("gateway", "sequencer", "said"),
    [
        ("postgres", "", "FLG_DATABASE_URL is a superuser"),
        ("owner_login", "", "FLG_DATABASE_URL owns the log's tables"),
        ("log_login", "", "FLG_DATABASE_URL may DELETE audit_pending, INSERT audit_log"),
        ("web_login", "postgres", "FLG_SEQUENCER_DATABASE_URL is a superuser"),
        ("web_login", "owner_login", "FLG_SEQUENCER_DATABASE_URL owns"),
        ("web_login", "web_login", "FLG_SEQUENCER_DATABASE_URL may INSERT audit_pending"),
    ],
)
def test_the_doctor_tells_of_rights_that_a_login_does_not_need(
    separated: Separated, gateway: str, sequencer: str, said: str
) -> None:
    """Build 7 of issue 5: with the remedy, and as a warning: all of it works."""
    told = risk_of(separated, gateway, sequencer)

    assert said in told
    assert "fl-gateway db grant" in told


@pytest.mark.parametrize(
    "grant",
    [
        "GRANT DELETE ON audit_log TO {}",
        "ALTER ROLE {0} NOINHERIT; GRANT owner_login TO {0}; GRANT SELECT ON alembic_version TO {0}",
    ],
)
def test_the_doctor_finds_a_right_that_came_by_another_way(separated: Separated, grant: str) -> None:
    """Given by hand, or by a role that the login may take."""
    with psycopg.connect(plain(separated.server.url(separated.name)), autocommit=True) as admin:
        admin.execute("CREATE ROLE loose_login LOGIN")
        admin.execute(f"GRANT {APP} TO loose_login")
        before = risk_of(separated, "loose_login")
        admin.execute(grant.format("loose_login"))  # type: ignore[arg-type]
        after = risk_of(separated, "loose_login")
        admin.execute("DROP OWNED BY loose_login")
        admin.execute("DROP ROLE loose_login")

    assert before == ""
    assert "audit_log" in after or "their owner" in after
