"""A gateway that loses its stores, and what brings them back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from living.driver import BARE, NOISED, Person
from living.home import Home
from living.threads import local_gateway_in

from gateway.backup.restoring import Restored, Wish, restore
from gateway.backup.writing import back_up as write_backup
from gateway.backup.writing import back_up_keys as write_keys


@dataclass(frozen=True, slots=True)
class Past:
    """A home whose gateway is at rest, its people, and its backups."""

    home: Home
    people: list[Person]
    data: Path
    keys: Path


def live(home: Home) -> list[Person]:
    """A noised round that is over, another one that has one update, a person who was erased, a package."""
    with local_gateway_in(home) as gateway:
        gateway.add_model(budget={"epsilon": 8.0, "delta": 1e-5})
        gateway.add_model()
        people = [gateway.register(name=f"silo {number}") for number in range(3)]
        number = gateway.open_round(NOISED, base_version="1.0.0")
        for one in people[:2]:
            gateway.submit(one, number)
        gateway.await_end(number)
        gateway.submit(people[0], gateway.open_round(BARE, base_version="2.0.0"))
        gateway.erase(people[2])
        gateway.export(people[1])
    return people


def run(home: Home, *words: str, status: int = 0) -> Any:
    """What `fl-gateway … --json` prints; its exit status must be this one."""
    done = home.command(*words, "--json")
    assert done.returncode == status, f"{done.returncode}: {done.stdout[-500:]}{done.stderr[-1500:]}"
    return json.loads(done.stdout) if done.stdout else {"told": done.stderr}


def back_up(home: Home, to: Path) -> Path:
    """A backup of database and blobs."""
    with home.stores() as services:
        write_backup(services, to)
    return to


def back_up_keys(home: Home, to: Path) -> Path:
    """A backup of the keys."""
    with home.stores() as services:
        write_keys(services, to)
    return to


def put_back(home: Home, backup: Path, **wish: Any) -> Restored:
    """Restore a backup into the home's empty database."""
    home.settle()
    with home.stores() as services:
        return restore(services, Wish(backup, **wish))


def lose(home: Home, *, keys: bool = False, state: bool = False) -> Home:
    """The home after its database and its blobs were lost, and what else is asked for; its database is a new one."""
    if "s3_endpoint_url" in home.settings:
        with home.stores() as services:
            for name in list(services.blobs.names()):
                services.blobs.delete(name)
    for path in home.directory.glob("fl-gateway.db*"):
        path.unlink()
    shutil.rmtree(home.directory / "blobs", ignore_errors=True)
    if keys:
        for path in (home.directory / "keys").glob("subjects.db*"):
            path.unlink()
    if state:
        shutil.rmtree(home.directory / "keys" / "state")
    if home.server is None:
        return home
    return replace(home, database_url=home.server.url(home.server.create_database()))


def kept_in_stores(home: Home) -> bytes:
    """Every row and file of the gateway, without hyphens, which ids have on one database and not on the other.

    Of a PostgreSQL server only this database: others are on it too. The gateway must not run in this process:
    to read and close a file of SQLite's takes its locks away.
    """
    files = (path for path in home.directory.rglob("*") if path.is_file())
    names = "\n".join(sorted(home.blob_names())).encode()
    found = [*(path.read_bytes() for path in files), *home.tables_as_text(), names]
    return b"\n".join(found).replace(b"-", b"")
