"""An erasure of a person with 10,000 updates, beside one with a tenth of them, and beside a table full of others'.

What it costs must grow with what the person has, and not with what the tables hold. Alone, the person's ids fill pages
of the indexes by themselves; among many others each id is on a page of its own, since ids are random: about four times
the bytes are written then (37 MB alone, 129 among 50,000, 148 among 100,000, 163 among 150,000), and not more with more
of others. So the figure is taken among others, and among twice as many.
"""

from __future__ import annotations

import importlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from audit.draft import Personal
from bench.figures import Figure, options, report
from bench.serving import postgresql
from compliance.requests.cases import Status
from gateway.auth.clients import NewClient, add_client
from gateway.auth.scopes import Role
from gateway.places import ClientBook
from gateway.privacy import privacy_desk
from gateway.services import Services

_home: Any = importlib.import_module("living.home")  # bench.serving put the tests on the path
_many: Any = importlib.import_module("many_updates")
_ALLOWED_S = 60.0
_CONSOLE = Personal("system", "bench")


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    figures: list[Figure] = []
    count = 1_000 if chosen.quick else 10_000
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder, postgresql.running(syncs=True) as server:
        for database, name in ((None, "SQLite"), (server, "PostgreSQL")):
            place = Path(folder) / name
            with _home.home_in(place, database, siem_sinks="") as home, home.stores() as services:
                figures += _figures(name, services, count)
    report(figures, ("sqlalchemy", "psycopg"), as_json=chosen.json)


def _figures(name: str, services: Services, count: int) -> Iterator[Figure]:
    few_s = _erasure_s(services, count // 10)
    many_s = _erasure_s(services, count)
    yield Figure(
        f"{name}: erasure of {count:,} updates", many_s, "s", "allowed", _ALLOWED_S, 1.0, at_most=True
    )
    growth = f"an erasure of {count // 10:,}, ten times"
    yield Figure(f"{name}: erasure of {count:,} updates", many_s, "s", growth, 10 * few_s, 1.5, at_most=True)
    full_s, fuller_s = (_erasure_among_more_s(services, count) for _ in range(2))
    among = f"{name}: the same among {5 * count:,} of others"
    yield Figure(among, full_s, "s", "allowed", _ALLOWED_S, 1.0, at_most=True)
    more = f"{name}: the same among {10 * count:,} of others"
    yield Figure(more, fuller_s, "s", f"among {5 * count:,}", full_s, 1.5, at_most=True)


def _erasure_among_more_s(services: Services, count: int) -> float:
    """How long it takes once five people more have as much."""
    for _ in range(5):
        _somebody(services, count, has_blobs=False)
    return _erasure_s(services, count)


def _erasure_s(services: Services, count: int) -> float:
    """How long it takes from the approval to the signed receipt."""
    subject = _somebody(services, count)
    desk = privacy_desk(services)
    case = desk.open("erasure", subject, requested_by=_CONSOLE)
    began_s = time.perf_counter()
    done = desk.run(desk.approve(case.id, by=_CONSOLE).id)
    took_s = time.perf_counter() - began_s
    if done.status is not Status.COMPLETED:
        raise RuntimeError(f"the erasure is {done.status}: {done.last_error}")
    return took_s


def _somebody(services: Services, count: int, *, has_blobs: bool = True) -> str:
    added: NewClient = add_client(services, "bench", Role.PARTICIPANT)
    subject = ClientBook(services).subject_of(added.client_id)
    if subject is None:
        raise RuntimeError("the client that was just added is not there")
    _many.add_updates(services, added.client_id, subject, count, has_blobs=has_blobs)
    return subject


if __name__ == "__main__":
    main()
