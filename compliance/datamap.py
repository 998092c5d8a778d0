"""The data map: what every column says of the data it holds; the record of Art. 30 reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256

from sqlalchemy import Column, MetaData

from audit.canonical import JsonValue, canonical
from audit.datamap import FACTS


@dataclass(frozen=True, slots=True)
class MappedColumn:
    """One line of the data map."""

    table: str
    column: str
    category: str
    purpose: str
    basis: str
    retention: str
    erase: str
    export: str

    @property
    def is_personal(self) -> bool:
        """Whether the column says something about a person."""
        return self.category != "none"


def describe(metadatas: Iterable[MetaData]) -> list[MappedColumn]:
    """Every described column, table by table."""
    return [
        MappedColumn(table, column.name, **{fact: str(column.info[fact]) for fact in FACTS})
        for table, column in _columns(metadatas)
        if _is_described(column)
    ]


def undescribed(metadatas: Iterable[MetaData]) -> list[str]:
    """The columns, as `table.column`, that do not say what they hold."""
    return [f"{table}.{column.name}" for table, column in _columns(metadatas) if not _is_described(column)]


def digest(metadatas: Iterable[MetaData]) -> str:
    """Hex SHA-256 of the map: an erasure receipt names by it what was known to hold personal data."""
    lines: list[JsonValue] = [asdict(line) for line in describe(metadatas)]
    return sha256(canonical(lines)).hexdigest()


def _columns(metadatas: Iterable[MetaData]) -> Iterator[tuple[str, Column[object]]]:
    for metadata in metadatas:
        for table in sorted(metadata.tables.values(), key=lambda table: table.name):
            for column in table.columns:
                yield table.name, column


def _is_described(column: Column[object]) -> bool:
    return all(str(column.info.get(fact, "")).strip() for fact in FACTS)
