"""Compares rows and blobs: every row's blob is there, whole and (if asked) readable; what no row names is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select

from aggregation.wire import header_bytes, schema_from_json
from audit.errors import KeyDestroyed
from audit.reading import reading
from compliance.tables import privacy_requests
from gateway.errors import BlobCorrupt
from gateway.rounds.blob_names import batches, model_blob_url, named_blobs
from gateway.services import Services
from gateway.storage.blobs import CHUNK_BYTES, SealedReader, StoredBlob
from gateway.storage.chunks import plain_size
from gateway.tables import client_updates, model_versions, models, rounds

Progress = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Lack:
    """A row without its blob: which row, which blob, and what is wrong."""

    row: str
    blob: str
    what: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. `nameless` is no fault: the worker removes them after the grace period."""

    rows: int
    blobs: int
    lacks: list[Lack]
    nameless: list[StoredBlob]


@dataclass(frozen=True, slots=True)
class _Named:
    """A row that names a blob: the stored sizes that are right (none: any is), and how to read all of it."""

    row: str
    blob: str
    sizes: frozenset[int]
    is_sealed: bool
    read: Callable[[], None]


def compare(services: Services, *, deep: bool = False, progress: Progress = lambda: None) -> Comparison:
    """Look at every row and every blob.

    Args:
        services: the stores.
        deep: read every blob, and decrypt or hash it.
        progress: is called once a row.
    """
    listed = {blob.name: blob for blob in services.blobs.stored()}
    rows, lacks = 0, []
    for named in _named(services):
        rows += 1
        found = _lack(services, named, listed, deep=deep)
        if found is not None:
            lacks.append(found)
        progress()
    return Comparison(rows, len(listed), lacks, _nameless(services, listed))


def _lack(services: Services, named: _Named, listed: dict[str, StoredBlob], *, deep: bool) -> Lack | None:
    try:
        # A row may have come after the listing: its blob is asked for by itself.
        stored = listed[named.blob].size_bytes if named.blob in listed else services.blobs.size(named.blob)
        size_bytes = plain_size(stored) if named.is_sealed else stored
        if named.sizes and size_bytes not in named.sizes:
            return Lack(named.row, named.blob, "wrong size")
        if deep:
            named.read()
    except FileNotFoundError:
        return Lack(named.row, named.blob, "missing") if _is_still_named(services, named.blob) else None
    except BlobCorrupt:
        return Lack(named.row, named.blob, "damaged")
    except KeyDestroyed:
        return Lack(named.row, named.blob, "its key is destroyed")
    return None


def _is_still_named(services: Services, blob: str) -> bool:
    with reading(services.engine) as conn:
        return bool(named_blobs(conn, [blob]))


def _nameless(services: Services, listed: dict[str, StoredBlob]) -> list[StoredBlob]:
    found: list[StoredBlob] = []
    for batch in batches(listed):
        with reading(services.engine) as conn:
            named = named_blobs(conn, batch)
        found += [listed[name] for name in batch if name not in named]
    return sorted(found, key=lambda blob: -blob.age_s)


def _named(services: Services) -> Iterator[_Named]:
    yield from _models(services)
    yield from _updates(services)
    yield from _packages(services)


def _models(services: Services) -> Iterator[_Named]:
    table = model_versions.c
    query = select(table.version, table.model_blob_url, table.size_bytes, table.checksum)
    for row in _rows(services, query, table.version_id):
        blob = row.model_blob_url.removeprefix(model_blob_url(""))

        def read(blob: str = blob, checksum: str = row.checksum) -> None:
            with services.blobs.clear_reader(blob) as reader:
                reader.insist(checksum)

        yield _Named(f"model {row.version}", blob, frozenset({row.size_bytes}), False, read)


def _updates(services: Services) -> Iterator[_Named]:
    table, converted = client_updates.c, _converted_sizes(services)
    query = select(table.update_id, table.blob_id, table.blob_key, table.update_size_bytes, rounds.c.model_id)
    query = query.join(rounds, rounds.c.round_id == table.round_id)
    for row in _rows(services, query, table.update_id):
        # The body may have come as .npz: then what is kept has the size that it was converted to.
        sizes = frozenset({row.update_size_bytes, converted[row.model_id]})
        read = _sealed_read(services, row.blob_id, row.blob_key)
        yield _Named("update", row.blob_id, sizes, True, read)


def _packages(services: Services) -> Iterator[_Named]:
    table = privacy_requests.c
    query = select(table.id, table.package_blob, table.package_key, table.package_bytes)
    for row in _rows(services, query.where(table.package_blob.is_not(None)), table.id):
        if row.package_bytes is not None:  # else it is being written
            read = _sealed_read(services, row.package_blob, row.package_key)
            yield _Named("export package", row.package_blob, frozenset({row.package_bytes}), True, read)


def _rows(services: Services, query: Select[Any], key: Any) -> Iterator[Any]:
    """The rows in the key's order, some hundred at a time: no transaction is open while blobs are read."""
    last = None
    while True:
        part = query.order_by(key).limit(500).add_columns(key.label("page_key"))
        with reading(services.engine) as conn:
            found = conn.execute(part if last is None else part.where(key > last)).all()
        if not found:
            return
        yield from found
        last = found[-1].page_key


def _converted_sizes(services: Services) -> dict[str, int]:
    with reading(services.engine) as conn:
        found = conn.execute(select(models.c.model_id, models.c.schema)).all()
    schemas = {row.model_id: schema_from_json(row.schema) for row in found}
    return {
        model_id: len(header_bytes(schema)) + sum(spec.size_bytes for spec in schema)
        for model_id, schema in schemas.items()
    }


def _sealed_read(services: Services, blob: str, key_id: str) -> Callable[[], None]:
    def read() -> None:
        key = services.sealer.blob_key(key_id, blob)
        with services.blobs.reader(blob, key) as reader:
            _read_all(reader)

    return read


def _read_all(reader: SealedReader) -> None:
    for start in range(0, max(1, reader.size_bytes), CHUNK_BYTES):
        reader.read_at(start, min(CHUNK_BYTES, reader.size_bytes - start))
