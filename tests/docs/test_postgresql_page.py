"""docs/postgresql.md is true: its commands set a database up, its tables of rights and limits are the code's."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from living.driver import await_that
from living.home import clean_environment
from services import postgresql
from services.checkout import ROOT
from services.pages import blocks

from gateway.storage import database
from gateway.storage.rights import APP, SEQUENCER

PAGE = (ROOT / "docs" / "postgresql.md").read_text("utf-8")


@pytest.fixture
def server() -> Iterator[postgresql.PostgreSQL]:
    """A server without a role of ours."""
    with postgresql.running() as running:
        yield running


def test_the_commands_set_up_a_gateway_that_serves(server: postgresql.PostgreSQL, tmp_path: Path) -> None:
    """From an empty server to `ready`, word by word; then the query for the leader finds the worker."""
    logins, grants, leader = blocks("postgresql.md", "sql")
    (commands,) = blocks("postgresql.md", "console")
    script = commands.replace("$ ", "").replace("db.example", f"127.0.0.1:{server.port}")
    script = script.replace("fl-gateway db", f"{sys.executable} -m gateway.cli db")
    exports = "\n".join(line for line in script.splitlines() if line.startswith("export"))
    serve = f"{exports}\nunset FLG_OWNER_DATABASE_URL\nexec {sys.executable} -m gateway.cli serve --port 0"

    with psycopg.connect(server.url().replace("+psycopg", ""), autocommit=True) as admin:
        for statement in logins.split(";")[:-1]:
            admin.execute(statement)  # type: ignore[arg-type]
        done = _bash(f"set -e\n{script}", tmp_path)
        for statement in grants.split(";")[:-1]:
            admin.execute(statement)  # type: ignore[arg-type]
        with subprocess.Popen(
            ["bash", "-c", serve],
            cwd=tmp_path,
            env=clean_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as served:
            assert served.stdout is not None
            ready = served.stdout.readline()
            with psycopg.connect(server.url("fl_gateway").replace("+psycopg", ""), autocommit=True) as conn:
                leaders = await_that("a leader", lambda: conn.execute(leader).fetchall())  # type: ignore[arg-type]
            served.terminate()

    assert done.returncode == 0, done.stderr
    assert ready.startswith("ready http://")
    assert {row[1] for row in leaders} == {"fl-gateway worker"}


def test_the_rights_shown_are_the_rights_given(server: postgresql.PostgreSQL, tmp_path: Path) -> None:
    """Each row of the table, asked of PostgreSQL."""
    url = server.url(server.create_database())
    done = _bash(
        f"export FLG_DATABASE_URL={url}\n"
        f"{sys.executable} -m gateway.cli db upgrade && {sys.executable} -m gateway.cli db grant",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        tables = {
            row[0] for row in conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }
        given = {(table, role): _rights(conn, table, role) for table in tables for role in (APP, SEQUENCER)}
    rows = [
        line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith(("| `audit_", "| all others"))
    ]
    shown = {}
    for names, *rights in rows:
        named = set(re.findall(r"`(\w+)`", names)) if "all others" not in names else tables
        for table in named - {"alembic_version"}:
            for role, words in zip((APP, SEQUENCER), rights, strict=True):
                shown.setdefault((table, role), _words(words))

    assert len(shown) >= 40
    assert {key: given[key] for key in shown} == shown


def test_the_limits_shown_are_the_limits_in_force() -> None:
    """10 s for a lock, 30 s for an idle transaction, 30 s for a peer that is gone, 5 s for the pool."""
    gone = database._PEER_GONE
    limits = {
        "a wait for a lock": database.BUSY_TIMEOUT_MS / 1000,
        "a transaction in which nothing happens": database._IDLE_TRANSACTION_S,
        "a peer that is gone": gone["keepalives_idle"]
        + gone["keepalives_interval"] * gone["keepalives_count"],
        "a wait for a place in the pool": database.POOL_TIMEOUT_S,
    }

    for what, seconds in limits.items():
        assert re.search(rf"^\| {what}[^|]*\| {seconds:g} s", PAGE, re.MULTILINE), what


def _rights(conn: psycopg.Connection, table: str, role: str) -> frozenset[str]:
    words = {"SELECT": "read", "INSERT": "insert", "UPDATE": "update", "DELETE": "delete"}
    asked = "SELECT has_table_privilege(%s, %s, %s)"
    found = {word: conn.execute(asked, (role, table, right)).fetchone() for right, word in words.items()}
    return frozenset(word for word, row in found.items() if row == (True,))


def _words(cell: str) -> frozenset[str]:
    return frozenset(re.findall(r"read|insert|update|delete", cell.partition("(")[0]))


def _bash(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
