"""A SIEM that is away for a whole run of audited requests beside one that is there: what the requests notice of it.

Afterwards the SIEM, a real rsyslog, comes back and has to get every entry.
"""

from __future__ import annotations

import importlib
import json
import statistics
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from audit.reading import reading
from audit.tables import audit_log
from bench.figures import Figure, options, report
from bench.serving import Body, Served, Wire, served

_ports: Any = importlib.import_module("services.ports")  # bench.serving put the tests on the path
_rsyslog: Any = importlib.import_module("services.rsyslog")
_driver: Any = importlib.import_module("living.driver")

_FORM = Body(b"grant_type=client_credentials", b"", 0, "")
_BLOCK = 100
_WARM_UP = 100
_PATIENCE_S = 300.0


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    requests = 2_000 if chosen.quick else 20_000
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder:
        figures = list(_outage(Path(folder), requests))
    report(figures, ("gunicorn", "flask", "sqlalchemy"), as_json=chosen.json)


def _outage(directory: Path, requests: int) -> Iterator[Figure]:
    port = _ports.free_port()
    with (
        served(directory / "away", "gunicorn", siem_sinks=f"syslog+tcp://127.0.0.1:{port}") as away,
        served(directory / "there", "gunicorn") as there,
        _issuing(away) as ask_away,
        _issuing(there) as ask_there,
    ):
        taken_s: tuple[list[float], list[float]] = ([], [])
        for _ in range(_WARM_UP):
            ask_away(), ask_there()
        for _ in range(requests // _BLOCK):  # in turn: a slow moment hits both
            for ask, taken in zip((ask_away, ask_there), taken_s, strict=True):
                taken += [ask() for _ in range(_BLOCK)]
        entries = _entries(away)
        yield from _latencies(entries, *taken_s)
        with _rsyslog.running_rsyslog(directory / "rsyslog", port) as rsyslog:
            _await("the first event", lambda: _seqs(rsyslog))  # the forwarder looks again now and then
            before, began_s = len(_seqs(rsyslog)), time.monotonic()
            _await("all is delivered", lambda: _seqs(rsyslog) >= set(range(entries)))
            rate = (entries - before) / (time.monotonic() - began_s)
        yield Figure(
            "events caught up with", rate, "events/s", "requests came in at", _rate(taken_s[0]), goal=1.0
        )


def _latencies(entries: int, away_s: list[float], there_s: list[float]) -> Iterator[Figure]:
    for name, place in (("median", 50), ("95th percentile", 95)):
        here, beside = (statistics.quantiles(taken, n=100)[place - 1] * 1000 for taken in (away_s, there_s))
        what = f"latency of a request, {name}, SIEM away for {entries} entries"
        yield Figure(what, here, "ms", "SIEM there", beside, goal=1.1, at_most=True)


@contextmanager
def _issuing(running: Served) -> Iterator[Any]:
    """Asks for an access token, which is an entry of the log; says how long that took, in seconds."""
    new = running.gateway.client_add("participant")
    basic = b64encode(f"{new.client_id}:{new.client_secret}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"}
    wire = Wire(running.address)

    def ask() -> float:
        began_s = time.perf_counter()
        status = wire.send("POST", "/oauth/token", headers, _FORM)
        assert status == 200, status
        return time.perf_counter() - began_s

    try:
        yield ask
    finally:
        wire.close()


def _entries(running: Served) -> int:
    """How many entries the log has, once nothing more comes."""
    with running.gateway.home.stores() as services:

        def settled() -> int | None:
            with reading(services.engine) as conn:
                before = conn.scalar(select(func.count()).select_from(audit_log))
            time.sleep(0.5)
            with reading(services.engine) as conn:
                now = conn.scalar(select(func.count()).select_from(audit_log))
            return now if now == before else None

        found: int = _driver.await_that("a log at rest", settled)
    return found


def _seqs(rsyslog: Any) -> set[int]:
    found = set()
    for line in rsyslog.lines():
        try:
            found.add(int(json.loads(line[line.index("{") :])["seq"]))
        except ValueError:  # half a line: rsyslog is writing it
            continue
    return found


def _await(what: str, look: Callable[[], object]) -> None:
    _driver.await_that(what, look, patience_s=_PATIENCE_S)


def _rate(taken_s: list[float]) -> float:
    return len(taken_s) / sum(taken_s)


if __name__ == "__main__":
    main()
