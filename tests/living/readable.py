"""Everything sealed that a gateway's keys can still open: columns of every table, fields of every entry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from living.home import Home
from sqlalchemy import Engine, Table, select

import compliance.keyring.tables
import compliance.tables
import gateway.tables
from audit.entry import Entry, Sealed, parse_entry
from audit.errors import KeyDestroyed
from audit.reading import reading
from audit.store import each_entry
from compliance.keyring.sealing import column_context
from compliance.keyring.tables import subject_keys
from gateway.services import Services

_LABELS = {("privacy_holds", "matter"): "reason"}  # older rows bear it


@dataclass(frozen=True, slots=True)
class Opened:
    """A sealed value that could be read: where it stands, whose key opened it, how long that is kept."""

    place: str
    subject: str
    retention: str
    value: str


def everything_opened(home: Home) -> list[Opened]:
    """Every sealed value that opens now."""
    with home.stores() as services:
        keys = _owners(services)
        sealed = [*_columns(services), *_fields(services)]
        return [found for one in sealed for found in _opened(services, keys, *one)]


def fields_of(entry: Entry) -> dict[str, object]:
    """The fields of an entry that may be sealed, by the name under which they are."""
    fields: dict[str, object] = {name: entry.members[name] for name in ("actor", "ip_address")}
    return fields | {f"details.{name}": value for name, value in entry.details.items()}


def _owners(services: Services) -> dict[str, tuple[str, str]]:
    with reading(services.keystore_engine) as conn:
        rows = conn.execute(select(subject_keys.c.key_id, subject_keys.c.subject, subject_keys.c.retention))
        return {row.key_id: (row.subject, row.retention) for row in rows}


def _opened(
    services: Services, owners: dict[str, tuple[str, str]], place: str, context: str, sealed: Sealed
) -> Iterator[Opened]:
    try:
        value = services.sealer.open(sealed, context)
    except KeyDestroyed:
        return
    yield Opened(place, *owners[sealed.key], str(value))


def _fields(services: Services) -> Iterator[tuple[str, str, Sealed]]:
    with reading(services.engine) as conn:
        entries = [parse_entry(stored.canonical) for stored in each_entry(conn)]
    for entry in entries:
        for name, value in fields_of(entry).items():
            if sealed := Sealed.read(value):
                yield f"entry {entry.seq} {name}", f"{entry.id}.{name}", sealed


def _columns(services: Services) -> Iterator[tuple[str, str, Sealed]]:
    for metadata in (gateway.tables.metadata, compliance.tables.metadata):
        for table in metadata.sorted_tables:
            yield from _columns_of(services, table)


def _columns_of(services: Services, table: Table) -> Iterator[tuple[str, str, Sealed]]:
    with reading(services.engine) as conn:
        rows: list[Any] = list(conn.execute(select(table)).mappings())
    key = next(iter(table.primary_key)).name
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict) and (sealed := Sealed.read(value)):
                label = _LABELS.get((table.name, name), name)
                yield f"{table.name}.{name}", column_context(table.name, label, str(row[key])), sealed


def words_in_rows(home: Home, words: Iterable[str]) -> list[tuple[str, str]]:
    """Where the words stand in the rows of every database but its log: each word with a column, as `table.column`."""
    found: list[tuple[str, str]] = []
    with home.stores() as services:
        for engine, metadata in (
            (services.engine, gateway.tables.metadata),
            (services.engine, compliance.tables.metadata),
            (services.keystore_engine, compliance.keyring.tables.metadata),
        ):
            for table in metadata.sorted_tables:
                found += _words_in(engine, table, tuple(words))
    return found


def _words_in(engine: Engine, table: Table, words: tuple[str, ...]) -> list[tuple[str, str]]:
    with reading(engine) as conn:
        rows = list(conn.execute(select(table)).mappings())
    texts = [(f"{table.name}.{name}", str(value)) for row in rows for name, value in row.items() if value]
    return [(word, column) for column, text in texts for word in words if word in text]
