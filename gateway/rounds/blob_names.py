"""Which blobs the rows name: the janitor asks before it removes any, `doctor --blobs` compares them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, select

from compliance.tables import privacy_requests
from gateway.tables import client_updates, model_versions

BATCH = 500
_SCHEME = "blob:"


def model_blob_url(name: str) -> str:
    """How a model version's row names its blob."""
    return _SCHEME + name


def named_blobs(conn: Connection, names: Sequence[str]) -> set[str]:
    """Those of the names that a row names: an update, a model version or an export package."""
    urls = [model_blob_url(name) for name in names]
    update_blob, package = client_updates.c.blob_id, privacy_requests.c.package_blob
    model_blob = model_versions.c.model_blob_url
    found = set(conn.execute(select(update_blob).where(update_blob.in_(names))).scalars())
    found |= set(conn.execute(select(package).where(package.in_(names))).scalars())
    models = conn.execute(select(model_blob).where(model_blob.in_(urls))).scalars()
    return found | {url.removeprefix(_SCHEME) for url in models}


def batches(names: Iterable[str]) -> Iterable[list[str]]:
    """The names, at most 500 at a time."""
    batch: list[str] = []
    for name in names:
        batch.append(name)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
