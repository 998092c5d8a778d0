"""What a bearer token costs: the CPU of a request behind the door, beside the same view unprotected on the same server.

Every kind of token in each round, on one kept-alive connection; the process's CPU clock, medians of many rounds. The
unprotected view lies in the gateway too; how much that costs (request ids, headers) is told beside a bare Flask view.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from hashlib import sha256
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import insert

from bench.auth_server import GUARDED, OPEN, PLAIN
from bench.figures import Figure, options, report
from bench.serving import ROOT, Wire, postgresql
from gateway.auth.clients import add_client
from gateway.auth.issuing import AccessToken, new_access_token
from gateway.auth.scopes import BUNDLES, Role, scope_text
from gateway.auth.secrets import digest
from gateway.auth.tokens import TokenKind, hash_of_jwt
from gateway.services import Services
from gateway.tables import tokens

_home: Any = importlib.import_module("living.home")  # bench.serving put the tests on the path
_processes: Any = importlib.import_module("living.processes")
_pebble: Any = importlib.import_module("services.pebble")

_ISSUER = "https://fl.example.com"
_GOALS = {
    "gunicorn": {"cached": 1.45, "from the database": 1.95, "JWT, first sight": 2.2, "JWT, repeated": 1.5},
    "granian": {"cached": 1.75, "from the database": 2.7},
}
_CPUCLOCK_SCHED = 2
_REFUSED = frozenset({0, 400, 401, 431})  # 0: a header that is too long is not even read to its end
_HOSTILE = {
    "random, of the right form": "from the database",
    "garbage": "from the database",
    "100 kB": "from the database, a connection each",
    "JWT, wrong signature": "JWT, first sight",
    "JWT, expired": "JWT, first sight",
    "JWT of nobody's key": "JWT, first sight",
}
_NEVER_COMES = frozenset({("granian", "100 kB")})  # only nginx may speak to it, and ends that (decision 0094)


@dataclass(frozen=True, slots=True)
class _Work:
    """Requests of one kind, again and again in order, and what each must be answered."""

    requests: Sequence[bytes]
    statuses: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Holder:
    client_id: str
    token_format: str


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    count, rounds = (25, 30) if chosen.quick else (50, 90)  # short turns: a slow moment hits all kinds alike
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder, postgresql.running(syncs=True) as server:
        for database, name in ((None, "SQLite"), (server, "PostgreSQL")):
            for kind in ("gunicorn", "granian"):
                directory = Path(folder) / f"{kind}-{name}"
                with _running(directory, kind, database, count * (rounds + 1)) as (pid, wire, works):
                    figures += _figures(f"{kind}, {name}", kind, _costs(pid, wire, works, count, rounds))
    report(figures, ("gunicorn", "granian", "flask", "authlib"), as_json=chosen.json)


def _figures(where: str, kind: str, costs: dict[str, float]) -> Iterator[Figure]:
    yield Figure(f"{where}: unprotected", costs["open"], "us", "bare Flask", costs["plain"])
    for name in ("cached", "from the database", "JWT, first sight", "JWT, repeated"):
        goal = _GOALS[kind].get(name)
        yield Figure(f"{where}: {name}", costs[name], "us", "unprotected", costs["open"], goal, at_most=True)
        yield Figure(f"{where}: {name}", costs[name], "us", "bare Flask", costs["plain"])
    unbound = costs["cached"]
    yield Figure(
        f"{where}: bound to a certificate", costs["bound"], "us", "unbound", unbound, 1.15, at_most=True
    )
    for name, beside in _HOSTILE.items():
        goal = None if (kind, name) in _NEVER_COMES else 1.0
        yield Figure(f"{where}: {name}", costs[name], "us", beside, costs[beside], goal, at_most=True)


def _costs(pid: int, wire: _Line, works: dict[str, _Work], count: int, rounds: int) -> dict[str, float]:
    """Microseconds of the server's CPU a request, the median of the rounds; all kinds in each, in an order of chance.

    None pays for what stands before it: a connection that was closed, caches full of something else.
    """
    endless = {name: cycle(work.requests) for name, work in works.items()}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name in random.sample([*endless], len(endless)):
            assert wire.ask(_request(PLAIN)) == 200
            before_s = _cpu_s(pid)
            for _ in range(count):
                status = wire.ask(next(endless[name]))
                assert status in works[name].statuses, (name, status)
            if number:
                taken[name].append(1e6 * (_cpu_s(pid) - before_s) / count)
    return {name: statistics.median(each) for name, each in taken.items()}


@contextmanager
def _running(
    directory: Path, kind: str, database: Any, many: int
) -> Iterator[tuple[int, _Line, dict[str, _Work]]]:
    limits = "auth_failures=900000/minute;auth_addresses=900000000/minute"
    settings = {"public_url": _ISSUER, "trusted_proxy": "true", "rate_limits": limits, "token_ttl_s": "86400"}
    with _home.home_in(directory, database, **settings) as home:
        with home.stores() as services:
            works = _works(services, many)
        path = directory / "bench.sock"
        command = [sys.executable, "-m", "bench.auth_server", kind, str(path)]
        environment = os.environ | home.environment()
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        try:
            wire = _connected(str(path))
            yield _processes._tree(server.pid)[-1], wire, works
        finally:
            server.terminate()
            server.wait()


def _connected(path: str) -> _Line:
    until_s = time.monotonic() + 60
    while True:
        line = _Line(path)
        try:
            assert line.ask(_request(PLAIN)) == 200
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.1)
        else:
            return line


def _works(services: Services, many: int) -> dict[str, _Work]:
    """Requests with good tokens, stored as they are when issued, and with hostile ones."""
    client_id = add_client(services, "bench", Role.PARTICIPANT).client_id
    opaque, signed = _Holder(client_id, "opaque"), _Holder(client_id, "jwt")
    scopes = BUNDLES[Role.PARTICIPANT]
    good, lonely = ([new_access_token(services, opaque, scopes) for _ in range(many)] for _ in range(2))
    jwts = [new_access_token(services, signed, scopes) for _ in range(many)]
    header, thumbprint = _certificate(services)
    bound = new_access_token(services, opaque, scopes, thumbprint=thumbprint)
    _store(services, client_id, [*good, *lonely, *jwts, bound])
    old = _old_jwt(services, signed)
    return {
        "plain": _good(_request(PLAIN)),
        "open": _good(_request(OPEN)),
        "cached": _good(_request(GUARDED, good[0].text)),
        "from the database": _good(*(_request(GUARDED, token.text) for token in good[1:])),
        "JWT, first sight": _good(*(_request(GUARDED, token.text) for token in jwts[1:])),
        "JWT, repeated": _good(_request(GUARDED, jwts[0].text)),
        "bound": _good(_request(GUARDED, bound.text, header)),
        "random, of the right form": _bad(*(f"flg_token_{secrets.token_urlsafe(32)}" for _ in range(many))),
        "garbage": _bad(*(secrets.token_urlsafe(32) for _ in range(many))),
        "from the database, a connection each": _good(
            *(_request(GUARDED, token.text, last=True) for token in lonely)
        ),
        "100 kB": _Work([_request(GUARDED, "A" * 100_000, last=True)], _REFUSED),
        "JWT, wrong signature": _bad(*(_spoilt(token.text) for token in jwts[1:])),
        "JWT, expired": _bad(old),
        "JWT of nobody's key": _bad(*(_foreign(token.text) for token in jwts[1:])),
    }


class _Line:
    """A kept-alive connection, made anew where the server closed it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._wire: Wire | None = None

    def ask(self, request: bytes) -> int:
        """Send a request without a body; the status of its answer, 0 for a connection that was closed instead."""
        self._wire = self._wire or Wire(self._path)
        try:
            status, stays = self._wire.ask(request)
        except ConnectionError:
            status, stays = 0, False
        if not stays:
            self._wire.close()
            self._wire = None
        return status


def _request(path: str, token: str = "", header: str = "", *, last: bool = False) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: fl.example.com", "X-Forwarded-Proto: https"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"X-SSL-Client-Cert: {header}", "X-SSL-Client-Verify: SUCCESS"] if header else []
    lines += ["Connection: close"] if last else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _good(*requests: bytes) -> _Work:
    return _Work(requests, frozenset({200}))


def _bad(*texts: str) -> _Work:
    return _Work([_request(GUARDED, text) for text in texts], _REFUSED)


def _certificate(services: Services) -> tuple[str, str]:
    """A certificate as nginx hands it on, and its thumbprint."""
    folder = Path(services.config.state_url.removeprefix("file:")).parent
    _pebble.make_certificate(folder / "client.pem", folder / "client.key", "client")
    pem = (folder / "client.pem").read_bytes()
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    thumbprint = base64.urlsafe_b64encode(sha256(der).digest()).rstrip(b"=").decode()
    return quote(pem.decode(), safe=""), thumbprint


def _store(services: Services, client_id: str, made: Sequence[AccessToken]) -> None:
    """The tokens' rows, without the cap: one client stands for thousands here."""
    rows = [
        {
            "token_hash": hash_of_jwt(token.text) if token.is_jwt else digest(token.text),
            "client_id": client_id,
            "scope": scope_text(token.scopes),
            "kind": TokenKind.ACCESS.value,
            "issued_at": token.issued_at,
            "expires_at": token.issued_at + timedelta(seconds=token.ttl_s),
            "thumbprint": token.thumbprint,
        }
        for token in made
    ]
    with services.engine.begin() as conn:
        conn.execute(insert(tokens), rows)


def _old_jwt(services: Services, client: _Holder) -> str:
    past = replace(services, clock=lambda: services.clock() - timedelta(days=2))
    return new_access_token(past, client, BUNDLES[Role.PARTICIPANT]).text


def _spoilt(text: str) -> str:
    """The same JWT with a signature that nobody made."""
    signed, _, signature = text.rpartition(".")
    return f"{signed}.{signature[40:80]}{signature[:40]}{signature[80:]}"


def _foreign(text: str) -> str:
    """The same JWT under the name of a key that we do not have."""
    header = {"alg": "EdDSA", "typ": "at+jwt", "kid": secrets.token_hex(8)}
    part = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return f"{part}.{text.partition('.')[2]}"


def _cpu_s(pid: int) -> float:
    """The CPU clock of a process, as clock_getcpuclockid(3) numbers it: far finer than the ticks of /proc."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


if __name__ == "__main__":
    main()
