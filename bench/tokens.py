"""Ten million issued and expired tokens, made in the database, and what it takes to be rid of them beside live ones.

The tokens are spread over the last day; as many as two million live on. The purge goes on as the worker's does: between
two batches as long a pause as one takes. Another connection issues tokens, before the purge and during it: how much
longer its transactions wait is what the purge's locks cost anybody. PostgreSQL's own log tells of each wait for a lock
that takes 50 ms.
"""

from __future__ import annotations

import importlib
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, text

from bench.figures import Figure, options, report
from bench.serving import postgresql
from gateway.auth.clients import add_client
from gateway.auth.issuing import new_access_token, store_access_token
from gateway.auth.scopes import BUNDLES, Role
from gateway.auth.tokens.purging import Batch, purge
from gateway.services import Services
from gateway.tables import tokens

_home: Any = importlib.import_module("living.home")  # bench.serving put the tests on the path
_LONGEST_LOCK_S = 0.05
_ALONE_S = 10.0
_MADE = {
    "postgresql": (
        "INSERT INTO tokens (token_hash, client_id, scope, kind, issued_at, expires_at) "
        "SELECT encode(sha256(n::text::bytea), 'hex'), CAST(:client AS uuid), "
        "'client:manage', 'access', now() - interval '1 day', now() + (n - :expired) * interval '1 second' * :step "
        "FROM generate_series(1, :count) AS n"
    ),
    "sqlite": (
        "WITH RECURSIVE made(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM made WHERE n < :count) "
        "INSERT INTO tokens (token_hash, client_id, scope, kind, issued_at, expires_at) "
        "SELECT lower(hex(randomblob(32))), :client, 'client:manage', 'access', "
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-1 day'), "
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', ((n - :expired) * :step) || ' seconds') FROM made"
    ),
}


@dataclass(frozen=True, slots=True)
class _Holder:
    client_id: str
    token_format: str = "opaque"  # noqa: S105 - a format's name


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder, postgresql.running(syncs=True) as server:
        for database, name in ((server, "PostgreSQL"), (None, "SQLite")):
            expired = 200_000 if chosen.quick else 10_000_000 if database else 1_000_000
            place = Path(folder) / name  # making the tokens may take longer than any statement of the gateway
            with _home.home_in(place, database, statement_timeout_s="0") as home, home.stores() as services:
                if database:
                    _tell_of_waits(services)
                figures += _figures(name, services, expired, server.directory if database else None)
    report(figures, ("sqlalchemy", "psycopg"), as_json=chosen.json)


def _figures(name: str, services: Services, expired: int, server: Path | None) -> Iterator[Figure]:
    live = expired // 5
    client_id = add_client(services, "bench", Role.OPERATOR).client_id
    _fill(services, client_id, expired, live)
    before = _rows(services)
    batches = list[Batch]()
    with _issuing(services) as waits_s:
        time.sleep(_ALONE_S)
        alone = len(waits_s)
        began_s = time.perf_counter()
        for batch in purge(services):
            batches.append(batch)
            time.sleep(batch.took_s)
        took_s = time.perf_counter() - began_s
    what, after = f"{name}, {expired:,} expired", _rows(services)
    yield Figure(f"{what}: rows before", before, "rows", "live ones", live)
    yield Figure(f"{what}: rows after the purge", after, "rows", "live ones", live, 2.0, at_most=True)
    gone, issued = sum(batch.rows for batch in batches), (len(waits_s) - alone) / took_s
    yield Figure(f"{what}: pace", gone / took_s, "rows/s", "tokens issued meanwhile a second", issued, 1.0)
    yield from _of_batches(what, sorted(batch.took_s for batch in batches))
    yield from _of_waits(what, sorted(waits_s[:alone]), sorted(waits_s[alone:]))
    if server is not None:
        waits = sum("still waiting for" in line for line in _log_of(server))
        yield Figure(
            f"{what}: waits for a lock of 50 ms",
            waits,
            "waits",
            "transactions",
            len(waits_s),
            0.0,
            at_most=True,
        )


def _of_batches(what: str, took_s: list[float]) -> Iterator[Figure]:
    """How long the locks of a batch stood: of rows that nobody wants any more, or SQLite's one writer's place."""
    allowed_ms = 1000 * _LONGEST_LOCK_S
    for name, each_s in (
        ("longest", took_s[-1]),
        (f"99.9th of {len(took_s)}", took_s[int(len(took_s) * 0.999)]),
        ("median", took_s[len(took_s) // 2]),
    ):
        yield Figure(f"{what}: {name} batch", 1000 * each_s, "ms", "allowed", allowed_ms, 1.0, at_most=True)


def _of_waits(what: str, alone_s: list[float], beside_s: list[float]) -> Iterator[Figure]:
    """How long who issues a token takes beside the purge, and without it."""
    for name, part in (("longest", 1.0), ("99th", 0.99), ("median", 0.5)):
        alone, beside = (
            1000 * each[min(int(len(each) * part), len(each) - 1)] for each in (alone_s, beside_s)
        )
        yield Figure(f"{what}: {name} issuance", beside, "ms", "without a purge", alone)


def _tell_of_waits(services: Services) -> None:
    with services.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("ALTER SYSTEM SET log_lock_waits = on"))
        conn.execute(text(f"ALTER SYSTEM SET deadlock_timeout = '{1000 * _LONGEST_LOCK_S:.0f}ms'"))
        conn.execute(text("SELECT pg_reload_conf()"))


def _log_of(server: Path) -> list[str]:
    return [line for log in server.glob("*log*") if log.is_file() for line in log.read_text().splitlines()]


def _fill(services: Services, client_id: str, expired: int, live: int) -> None:
    """Expired ones over the last day, and live ones over the next hours, in one statement."""
    values = {"client": client_id, "expired": expired, "count": expired + live, "step": 86_400 / expired}
    if services.engine.dialect.name == "sqlite":
        values["client"] = client_id.replace("-", "")
    with services.engine.begin() as conn, _without_indexes(conn):
        conn.execute(text(_MADE[conn.dialect.name]), values)
    if services.engine.dialect.name == "postgresql":
        with services.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("VACUUM ANALYZE tokens"))


@contextmanager
def _without_indexes(conn: Connection) -> Iterator[None]:
    """On PostgreSQL they are made afterwards, which takes a tenth of the time; in the end all is as it was."""
    if conn.dialect.name != "postgresql":
        yield
        return
    indexes = sorted(tokens.indexes, key=lambda index: str(index.name))
    for index in indexes:
        index.drop(conn)
    conn.execute(text("ALTER TABLE tokens DROP CONSTRAINT tokens_pkey"))
    conn.execute(text("SET LOCAL session_replication_role = replica"))  # the client is there: once is enough
    conn.execute(text("SET LOCAL maintenance_work_mem = '512MB'"))
    yield
    conn.execute(text("ALTER TABLE tokens ADD CONSTRAINT tokens_pkey PRIMARY KEY (token_hash)"))
    for index in indexes:
        index.create(conn)


def _rows(services: Services) -> int:
    with services.engine.connect() as conn:
        return int(conn.execute(select(func.count()).select_from(tokens)).scalar_one())


@contextmanager
def _issuing(services: Services) -> Iterator[list[float]]:
    """Another client gets tokens all the while, as fast as it can; how long each took."""
    client_id = add_client(services, "other", Role.OPERATOR).client_id
    waits_s, stop = list[float](), threading.Event()

    holder = _Holder(client_id)

    def issue() -> None:
        while not stop.wait(0.005):
            began_s = time.perf_counter()
            token = new_access_token(services, holder, BUNDLES[Role.OPERATOR])
            with services.engine.begin() as conn:
                store_access_token(conn, services, token, client_id=client_id)
            waits_s.append(time.perf_counter() - began_s)

    thread = threading.Thread(target=issue)
    thread.start()
    try:
        yield waits_s
    finally:
        stop.set()
        thread.join()


if __name__ == "__main__":
    main()
