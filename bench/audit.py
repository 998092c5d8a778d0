"""The audit log beside its limits: plain inserts of the same rows, a writer and a view without it, pymerkle's proofs.

On SQLite and on a private PostgreSQL, on this machine; goals are those of the issue "The audit log that an outsider
can trust". Entries are those of accepted updates (1.4 kB); sealing their personal fields is not part of any figure.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flask.testing import FlaskClient
from pymerkle import InmemoryTree
from sqlalchemy import Column, Connection, Index, MetaData, String, Table, Text, insert, select

from audit.datamap import UtcDateTime
from audit.entry import Draft
from audit.events import EventType
from audit.merkle import prove_inclusion, root_hash
from audit.reading import reading
from audit.store import read_entries, stage
from audit.tables import audit_checkpoints, audit_log, audit_pending
from audit.tree import TreeSource, inclusion
from audit.tree_rows import TILE_WIDTH
from bench.figures import Figure, options, report
from bench.logs import BATCH, Log, drafts, empty_log, sequencing
from bench.serving import postgresql, served
from gateway.app import create_app
from gateway.auth.clients import add_client
from gateway.auth.scopes import Role
from gateway.services import Services

_WRITERS = 8
_POST_BLOCK = 40
_LATENCY_PAUSE_S = 0.02
_LOOK_PAUSE_S = 0.002
_MS = 1e3

_plain = Table(
    "plain_inserts",
    MetaData(),
    Column("id", String(36), primary_key=True),
    Column("body", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index("ix_plain_inserts_created_at_id", "created_at", "id"),
)  # as `audit_pending`


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    count, long, proven = (10_000, 100_000, 20_000) if chosen.quick else (50_000, 1_000_000, 100_000)
    seconds_s = 5.0 if chosen.quick else 30.0
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder, postgresql.running(syncs=True) as server:
        for name, database in (("SQLite", None), ("PostgreSQL", server)):
            directory = Path(folder) / name
            figures += _whole_path(name, directory, database, count)
            figures += _latency(name, directory / "latency", database, seconds_s)
            figures += _post(name, directory / "post", database, 10 if chosen.quick else 40)
            figures += _long_log(name, directory, database, long, proven)
        figures += _writers(Path(folder), server, count // 5)
    report(figures, ("sqlalchemy", "psycopg", "pymerkle"), as_json=chosen.json)


def _elapsed_s(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


# The whole path, and writers at once


def _whole_path(name: str, directory: Path, database: Any, count: int) -> Iterator[Figure]:
    """Staged by one process, sequenced and signed by another, beside inserts of the staged rows, a batch a commit."""
    entries = drafts(count)
    rows = [{"id": one.id, "body": one.body().decode(), "created_at": one.time} for one in entries]
    with empty_log(directory, database) as log:
        plain_s = _plain_s(log, rows)
        with sequencing(log):
            began_s = time.perf_counter()
            log.stage(entries)
            _await_signed(log, count)
            whole_s = time.perf_counter() - began_s
        plain_s = (plain_s + _plain_s(log, rows)) / 2
    beside = f"plain inserts, {name}"
    yield Figure(
        f"entries staged, sequenced, signed, {name}", count / whole_s, "1/s", beside, count / plain_s, 0.25
    )


def _plain_s(log: Log, rows: Sequence[dict[str, Any]]) -> float:
    def work() -> None:
        for start in range(0, len(rows), BATCH):
            with log.engine.begin() as conn:
                conn.execute(insert(_plain), rows[start : start + BATCH])

    _empty_plain(log)
    return _elapsed_s(work)


def _empty_plain(log: Log) -> None:
    _plain.drop(log.engine, checkfirst=True)
    _plain.create(log.engine)


def _await_signed(log: Log, size: int) -> None:
    while log.signed_size() < size:
        time.sleep(_LOOK_PAUSE_S)


def _writers(directory: Path, server: Any, count: int) -> Iterator[Figure]:
    """Eight writers, one row a commit, while a sequencer runs: the row alone, and the row with its entry.

    And the same while nobody sequences: writers wait for no lock of the log, but share the machine's cores with it.
    """
    name, beside = "eight writers with entries, PostgreSQL", "the same without"
    with empty_log(directory, server) as log:
        with_entries, without = _rates(log, count)
        yield Figure(f"{name}, nobody sequences", with_entries, "1/s", beside, without)
    with empty_log(directory, server) as log, sequencing(log):
        with_entries, without = _rates(log, count)
        yield Figure(name, with_entries, "1/s", beside, without, 0.8)


def _rates(log: Log, count: int) -> tuple[float, float]:
    """Rows a second with their entries, and without."""
    entries = drafts(2 * count)

    def bare(conn: Connection, entry: Draft) -> None:
        conn.execute(insert(_plain), {"id": entry.id, "body": entry.resource, "created_at": entry.time})

    def audited(conn: Connection, entry: Draft) -> None:
        bare(conn, entry)
        stage(conn, entry)

    _empty_plain(log)
    rates: list[list[float]] = [[], []]
    for start in range(0, 2 * count, count // 2):
        for kind, effect in enumerate((bare, audited)):
            some = entries[start + kind * count // 4 :][: count // 4]
            rates[kind].append(len(some) / _elapsed_s(partial(_write, log, effect, some)))
    without, with_entries = (statistics.median(each) for each in rates)
    return with_entries, without


def _write(log: Log, effect: Callable[[Connection, Draft], None], entries: Sequence[Draft]) -> None:
    def work(writer: int) -> None:
        for entry in entries[writer::_WRITERS]:
            with log.engine.begin() as conn:
                effect(conn, entry)

    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(work, range(_WRITERS)))


# Latency, and a view with and without its entry


def _latency(name: str, directory: Path, database: Any, seconds_s: float) -> Iterator[Figure]:
    """From the commit of a pending row to the signed checkpoint that covers it, in a running gateway, p99."""
    with served(directory, "gunicorn", database) as running, running.gateway.home.stores() as services:
        committed: dict[str, float] = {}
        signed: list[tuple[float, int]] = []
        stop = threading.Event()
        looking = threading.Thread(target=_watch, args=(services, signed, stop))
        looking.start()
        end_s = time.monotonic() + seconds_s
        while time.monotonic() < end_s:
            entry = services.trail.draft(EventType.SERVER_STARTED, details={"mode": "bench", "version": "0"})
            with services.engine.begin() as conn:
                services.trail.write(conn, entry)
            committed[entry.id] = time.monotonic()
            time.sleep(random.expovariate(1 / _LATENCY_PAUSE_S))
        _await_empty(services)
        stop.set()
        looking.join()
        delays = _delays(services, committed, signed)
    yield Figure(
        f"signed after the commit, p99, {name}", _p99(delays) * _MS, "ms", "allowed", 250, 1.0, at_most=True
    )


def _watch(services: Services, signed: list[tuple[float, int]], stop: threading.Event) -> None:
    newest = select(audit_checkpoints.c.size).order_by(audit_checkpoints.c.size.desc()).limit(1)
    while not stop.is_set():
        with reading(services.engine) as conn:
            size = conn.scalar(newest) or 0
        if not signed or signed[-1][1] != size:
            signed.append((time.monotonic(), size))
        time.sleep(_LOOK_PAUSE_S)


def _await_empty(services: Services) -> None:
    """The last entry has its checkpoint, and whoever watches has seen it."""
    time.sleep(2.0)
    with reading(services.engine) as conn:
        assert conn.scalar(select(audit_pending.c.id).limit(1)) is None


def _delays(
    services: Services, committed: dict[str, float], signed: Sequence[tuple[float, int]]
) -> list[float]:
    with reading(services.engine) as conn:
        seqs = {row.id: row.seq for row in conn.execute(select(audit_log.c.id, audit_log.c.seq))}
    return [
        max(0.0, next(at for at, size in signed if size > seqs[entry_id]) - began)
        for entry_id, began in committed.items()
    ]


def _post(name: str, directory: Path, database: Any, blocks: int) -> Iterator[Figure]:
    """`POST /oauth/token`, a sequencer and a forwarder beside it, with and without its entry `token.issued`."""
    with served(directory, "gunicorn", database) as running, running.gateway.home.stores() as services:
        new = add_client(services, "bench", Role.OPERATOR)
        mute = replace(services, trail=_Mute(services))
        views = [create_app(services).test_client(), create_app(mute).test_client()]
        taken: list[list[float]] = [[], []]
        for _ in range(blocks + 1):  # the first of each warms it
            for view, times in zip(views, taken, strict=True):
                times.append(_elapsed_s(partial(_ask, view, new)))
    audited, bare = (_POST_BLOCK / statistics.median(times[1:]) for times in taken)
    yield Figure(f"POST /oauth/token, {name}", audited, "1/s", "the same view without an entry", bare, 0.7)


def _ask(view: FlaskClient, new: Any) -> None:
    for _ in range(_POST_BLOCK):
        wish = {"grant_type": "client_credentials"}
        answer = view.post("/oauth/token", data=wish, auth=(new.client_id, new.client_secret))
        assert answer.status_code == 200, answer.text


class _Mute:
    """A trail that writes nothing."""

    def __init__(self, services: Services) -> None:
        self._entry = services.trail.draft(
            EventType.SERVER_STARTED, details={"mode": "bench", "version": "0"}
        )

    def follow_requests(self, *_: object) -> None:
        """Nobody's."""

    def draft(self, *_: Any, **__: Any) -> Draft:
        """Always the same entry."""
        return self._entry

    def write(self, conn: Connection, *drafts: Draft) -> None:
        """Nothing."""


# A long log


def _long_log(name: str, directory: Path, database: Any, size: int, proven: int) -> Iterator[Figure]:
    """Proofs from the database and from memory, and what appending costs beside a short log."""
    with empty_log(directory, database) as short, empty_log(directory, database) as long:
        short.lengthen(10_000)
        long.lengthen(size)
        with reading(long.engine) as conn:
            took = [_elapsed_s(lambda: inclusion(conn, random.randrange(size), size)) for _ in range(3000)]
        yield Figure(
            f"inclusion proof at the checkpoint of {size:,} entries, p99, {name}",
            _p99(took[100:]) * _MS,
            "ms",
            "allowed",
            1,
            1.0,
            at_most=True,
        )
        at_long, at_short = _append_s(long, short)
        yield Figure(
            f"appending an entry to {size:,}, {name}",
            at_long * 1e6,
            "us",
            "to 10,000",
            at_short * 1e6,
            1.2,
            at_most=True,
        )
        if database is None:
            yield from _proofs(long, proven)


def _append_s(*logs: Log) -> list[float]:
    """Seconds an entry, a batch at a time, the logs in turn."""
    sequencers = [log.sequencer() for log in logs]
    taken: list[list[float]] = [[] for _ in logs]
    for _ in range(20):
        for log, sequencer, times in zip(logs, sequencers, taken, strict=True):
            log.stage(drafts(BATCH))
            times.append(_elapsed_s(sequencer.run_once) / BATCH)
    return [statistics.median(times[1:]) for times in taken]


def _proofs(log: Log, size: int) -> Iterator[Figure]:
    """Inclusion proofs of a tree that was read once, beside pymerkle's tree in memory, of the same entries."""
    theirs = InmemoryTree(algorithm="sha256")
    with reading(log.engine) as conn:
        for start in range(0, size, BATCH):
            for entry in read_entries(conn, start - 1 if start else None, min(BATCH, size - start)):
                theirs.append_entry(entry.canonical)
        ours = TreeSource(conn, size)
        for tile in range(-(-size // TILE_WIDTH)):
            ours.load([(0, tile)])
        assert theirs.get_root() == root_hash(ours, size)
        chosen = [random.randrange(size) for _ in range(3000)]
        our_s = [_elapsed_s(lambda: [prove_inclusion(ours, seq, size) for seq in chosen]) for _ in range(5)]
    their_s = _elapsed_s(lambda: [theirs.prove_inclusion(seq + 1) for seq in chosen])
    rate = len(chosen) / statistics.median(our_s)
    yield Figure(f"proofs from memory, {size:,} entries", rate, "1/s", "wanted", 20_000, 1.0)
    yield Figure(f"proofs from memory, {size:,} entries", rate, "1/s", "pymerkle", len(chosen) / their_s, 3.0)


def _p99(times: Sequence[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


if __name__ == "__main__":
    main()
