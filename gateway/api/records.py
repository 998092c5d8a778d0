"""What the settings say for the record of processing (Art. 30): who answers for it, and where data goes."""

from __future__ import annotations

from typing import Any

from sqlalchemy import make_url

import audit.tables
import compliance.keyring.tables
import compliance.tables
import gateway.tables
from compliance.datamap import describe
from compliance.evidence.processing_record import Controller, processing_record
from gateway.config import Config
from gateway.privacy import processing_notice
from gateway.recipients import host_of, noticed_by, recipients_of
from gateway.retention import schedule_shown
from gateway.services import Services

METADATAS = (
    audit.tables.metadata,
    compliance.tables.metadata,
    compliance.keyring.tables.metadata,
    gateway.tables.metadata,
)


def record_of(services: Services) -> dict[str, Any]:
    """The record of this gateway, as it is set up now."""
    config, notice = services.config, processing_notice(services)
    controller = Controller(
        name=config.controller,
        dpo_contact=config.dpo_contact,
        purposes=notice["purposes"],
        recipients=[*notice["recipients"], *recipients_of(config), *noticed_by(config)],
        stores=_stores(config),
        retention_schedule=schedule_shown(config.retention),
        is_retention_applied=config.retention_apply,
    )
    return processing_record(describe(METADATAS), controller, services.clock())


def _stores(config: Config) -> list[str]:
    """The databases, brokers and buckets that are not files of this machine."""
    urls = {
        "main database": config.database_url,
        "key store": config.keystore_url,
        "queue": config.queue_url,
        "cache": config.cache_url,
        "published log": config.tlog_publish,
    }
    found = [f"{name} at {_host(url)}" for name, url in urls.items() if _is_elsewhere(url)]
    if config.blob_url.startswith("s3:"):
        where = _host(config.s3_endpoint_url) if config.s3_endpoint_url else "Amazon S3"
        found.append(f"updates and models in {where}, region {config.s3_region}")
    return found


def _is_elsewhere(url: str) -> bool:
    if not url or url.startswith("file:"):
        return False
    return "sqlite" not in url.partition(":")[0]


def _host(url: str) -> str:
    if url.partition(":")[0].partition("+")[0] == "postgresql":
        return make_url(url).host or "this machine"
    return host_of(url)
