"""Updates through real servers: small ones beside plain inserts, large ones beside SHA-256 and nginx's own PUT.

Clients run on the same machine and take their share of it. What that leaves to any gateway show the same servers where
they only read and hash. Goals are those of the issue "Rounds that survive anything"; small updates have none there, and
one here that a step backwards would miss.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg

from bench.ceiling import hashing_alone, send_to_hash
from bench.figures import Figure, options, report
from bench.serving import (
    Address,
    Body,
    Served,
    Wire,
    behind_nginx,
    postgresql,
    send_update,
    served,
    small_update,
    update_of,
)

_SERVERS = ("gunicorn", "granian")
_GOALS = {"gunicorn": 0.40, "granian": 0.80, "nginx, gunicorn": 0.30, "nginx, granian": 0.45}
_SMALL_GOAL = {"SQLite": 0.02, "PostgreSQL": 0.01}
_CLIENTS = 8
_MB = 1e6
_SETTLED_S = 0.3
_MOST_MB = 8.0
_TABLE = "CREATE TABLE plain (id text PRIMARY KEY, body text NOT NULL)"
_ROW = "x" * 2000  # what a row of `client_updates` takes


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    sizes, small = ({40: 9}, 240) if chosen.quick else ({40: 9, 1024: 5}, 1200)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder:
        for server in _SERVERS:
            figures += _small(Path(folder) / f"small-{server}", server, small)
        for mebibytes, repeats in sizes.items():
            figures += _large(Path(folder) / f"large-{mebibytes}", mebibytes, repeats)
    report(figures, ("gunicorn", "granian", "numpy", "cryptography"), as_json=chosen.json)


# Small updates


def _small(directory: Path, server: str, count: int) -> Iterator[Figure]:
    """Accepted updates a second, by kept-alive clients, beside inserts of such a row, each with its own fsync."""
    with served(directory / "sqlite", server) as running:
        plain = _sqlite_inserts_per_s(directory / "before.db", count)
        rate = _updates_per_s(running, count)
        plain = (plain + _sqlite_inserts_per_s(directory / "after.db", count)) / 2
        yield _memory(running, server)
    yield _small_figure(server, "SQLite", rate, plain)
    with (
        postgresql.running(syncs=True) as database,
        served(directory / "postgresql", server, database) as running,
    ):
        plain = _postgresql_inserts_per_s(database, count)
        rate = _updates_per_s(running, count)
        plain = (plain + _postgresql_inserts_per_s(database, count)) / 2
    yield _small_figure(server, "PostgreSQL", rate, plain)


def _small_figure(server: str, database: str, rate: float, plain: float) -> Figure:
    name = f"small updates, {server}, {database}"
    return Figure(name, rate, "1/s", f"plain inserts, {database}", plain, goal=_SMALL_GOAL[database])


def _updates_per_s(running: Served, count: int) -> float:
    body = small_update()
    rounds = [running.open_round(body) for _ in range(count // (5 * _CLIENTS))]
    tokens = running.participants(5 * _CLIENTS)
    wires = [Wire(running.address) for _ in range(_CLIENTS)]

    def work(client: int) -> None:
        for token in tokens[client::_CLIENTS]:
            for number in rounds:
                send_update(wires[client], number, token, body)

    for wire in wires:
        assert wire.send("GET", "/health", {}, Body(b"", b"", 0, "")) == 200
    return len(rounds) * len(tokens) / _elapsed_s(lambda: _all_at_once(work, range(_CLIENTS)))


def _all_at_once(work: Callable[[int], object], numbers: Sequence[int]) -> None:
    with ThreadPoolExecutor(len(numbers)) as pool:
        list(pool.map(work, numbers))


def _elapsed_s(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _sqlite_inserts_per_s(path: Path, count: int) -> float:
    """One writer: SQLite has no more."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("PRAGMA journal_mode=WAL")
    conn.execute("PRAGMA synchronous=FULL")
    conn.execute(_TABLE)
    rows = [(str(number), _ROW) for number in range(count)]

    def insert() -> None:
        for row in rows:
            conn.execute("BEGIN IMMEDIATE")
            conn.execute("INSERT INTO plain VALUES (?, ?)", row)
            conn.execute("COMMIT")

    elapsed_s = _elapsed_s(insert)
    conn.close()
    return count / elapsed_s


def _postgresql_inserts_per_s(database: Any, count: int) -> float:
    """As many writers as there are clients, since PostgreSQL makes their commits durable together."""
    url = database.url(database.create_database()).replace("+psycopg", "")
    conns = [psycopg.connect(url, autocommit=True) for _ in range(_CLIENTS)]
    conns[0].execute(_TABLE)

    def insert(client: int) -> None:
        for number in range(client, count, _CLIENTS):
            conns[client].execute("INSERT INTO plain VALUES (%s, %s)", (str(number), _ROW))

    elapsed_s = _elapsed_s(lambda: _all_at_once(insert, range(_CLIENTS)))
    for conn in conns:
        conn.close()
    return count / elapsed_s


# Large updates


def _large(directory: Path, mebibytes: int, repeats: int) -> Iterator[Figure]:
    """MB/s of an upload by each way, beside SHA-256 and PUT, all of them in turn: a slow moment hits them alike."""
    body = update_of(mebibytes)
    with ExitStack() as stack:
        ways = {"SHA-256": lambda: _digest(body), **_ways(stack, directory, body, repeats)}
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(repeats + 1):
            for name, send in ways.items():
                _settle()
                rates[name].append(_rate(body, send))
    median = {
        name: statistics.median(found[1:]) for name, found in rates.items()
    }  # the first of each warms it
    for name in [name for name in ways if name not in ("SHA-256", "nginx PUT")]:
        what = f"{mebibytes} MB, {name}"
        yield Figure(what, median[name], "MB/s", "SHA-256", median["SHA-256"], goal=_GOALS.get(name))
        if name.startswith("nginx"):
            yield Figure(what, median[name], "MB/s", "nginx PUT", median["nginx PUT"], goal=1.0)


def _ways(stack: ExitStack, directory: Path, body: Body, repeats: int) -> dict[str, Callable[[], None]]:
    ways: dict[str, Callable[[], None]] = {}
    for server in _SERVERS:
        running = stack.enter_context(served(directory / server, server))
        number, tokens = running.open_round(body), iter(running.participants(2 * (repeats + 1)))
        front = stack.enter_context(behind_nginx(directory / f"nginx-{server}", running.address))
        ways[server] = _sender(running.address, number, tokens, body)
        ways[f"nginx, {server}"] = _sender(front, number, tokens, body)
        ceiling = stack.enter_context(hashing_alone(directory / "ceiling", server))
        ways[f"{server} that only hashes"] = partial(send_to_hash, ceiling, body)
    return ways | {"nginx PUT": lambda: _put(front, body)}


def _sender(address: Address, number: int, tokens: Iterator[str], body: Body) -> Callable[[], None]:
    def send() -> None:
        wire = Wire(address)
        send_update(wire, number, next(tokens), body)
        wire.close()

    return send


def _put(front: Address, body: Body) -> None:
    wire = Wire(front)
    assert wire.send("PUT", "/dav/update", {}, body) in (201, 204)
    wire.close()


def _digest(body: Body) -> None:
    hashed = sha256()
    for piece in body.pieces():
        hashed.update(piece)
    hashed.digest()


def _settle() -> None:
    """Let what the last way left behind come to its end: unwritten pages, entries to be signed."""
    os.sync()
    time.sleep(_SETTLED_S)


def _rate(body: Body, work: Callable[[], None]) -> float:
    return body.size_bytes / _MB / _elapsed_s(work)


# Memory


def _memory(running: Served, server: str) -> Figure:
    """How much the peak memory of the web process grows with each more upload at once."""
    body = update_of(40)
    number, pid, tokens = running.open_round(body), running.web_process(), iter(running.participants(18))
    send = _sender(running.address, number, tokens, body)

    def at_once(count: int) -> None:
        _all_at_once(lambda _: send(), range(count))

    at_once(8)  # first uses, and the allocator's own habits
    few, many = _peak_mb(pid, lambda: at_once(2)), _peak_mb(pid, lambda: at_once(8))
    slope = (many - few) / 6
    return Figure(f"memory of an upload, {server}", slope, "MB", "allowed", _MOST_MB, goal=1.0, at_most=True)


def _peak_mb(pid: int, work: Callable[[], None]) -> float:
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak is counted from here
    work()
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (peak,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(peak.split()[1]) * 1024 / _MB


if __name__ == "__main__":
    main()
