"""Puts a published model under its version's name, where the store has such names (`models/v1.4.0.bin` in S3).

A version's name is sure only once its row has committed: until then the model lies under its blob's own name. The
copy is made after that, then the row names it; a crash in between is finished by the next tidy (RULES 2), and the
first object goes as every blob does that no row names.
"""

from __future__ import annotations

import logging

from sqlalchemy import select, update

from audit.reading import reading
from gateway.errors import BlobCorrupt, BlobsAway, StorageFull
from gateway.rounds.blob_names import model_blob_url
from gateway.rounds.lineage import ModelVersion, find_version
from gateway.services import Services
from gateway.tables import model_versions

log = logging.getLogger(__name__)


def file_model(services: Services, version: ModelVersion) -> bool:
    """File a committed version; True if its row now names another blob. What fails now is done by the next tidy."""
    if not services.blobs.files_models:
        return False
    try:
        name = services.blobs.file_model(
            version.blob_id, version.version, version.checksum, version.created_at
        )
    except (BlobsAway, StorageFull, BlobCorrupt, FileNotFoundError) as error:
        log.warning("model version %s keeps its first name: %s", version.version, type(error).__name__)
        return False
    if name is None or name == version.blob_id:
        return False
    services.crash("model.copied")
    with services.engine.begin() as conn:
        conn.execute(
            update(model_versions)
            .where(
                model_versions.c.version == version.version,
                model_versions.c.model_blob_url == model_blob_url(version.blob_id),
            )
            .values(model_blob_url=model_blob_url(name))
        )
    services.models.forget(version.version)
    return True


def file_models(services: Services) -> int:
    """File what was not filed yet; returns how many rows changed."""
    if not services.blobs.files_models:
        return 0
    with reading(services.engine) as conn:
        unfiled = model_versions.c.model_blob_url.not_like(model_blob_url("models/%"))
        names = conn.execute(select(model_versions.c.version).where(unfiled)).scalars().all()
        found = [find_version(conn, name) for name in names]
    return sum(file_model(services, version) for version in found)
