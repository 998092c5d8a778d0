"""Clients that took part in very many rounds, made in the database and the blob store without training."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

from sqlalchemy import Connection, func, insert, select

from audit.canonical import JsonValue
from audit.events import Retention
from gateway.messaging.outbox import QueueName, post
from gateway.services import Services
from gateway.tables import client_updates, model_versions, models, rounds

_BATCH, _BLOB_BYTES = 500, 64


def add_updates(
    services: Services, client_id: str, subject: str, count: int, *, has_blobs: bool = True
) -> None:
    """Give a client an update, sealed and with its blob, in so many new rounds that have ended."""
    with services.engine.begin() as conn:
        model_id = _model(conn, services)
        first = int(conn.execute(select(func.coalesce(func.max(rounds.c.round_number), 0))).scalar_one()) + 1
    for start in range(0, count, _BATCH):
        numbers = range(first + start, first + min(count, start + _BATCH))
        rows = [_update(services, client_id, subject, number, has_blobs) for number in numbers]
        with services.engine.begin() as conn:
            conn.execute(insert(rounds), [_round(services, model_id, number) for number in numbers])
            conn.execute(insert(model_versions), [_version(services, model_id, number) for number in numbers])
            conn.execute(insert(client_updates), rows)


def add_message(services: Services, update_id: str) -> None:
    """A message about an update, which waits in the outbox."""
    with services.engine.begin() as conn:
        body: dict[str, str | int] = {"update_id": update_id, "round_number": 1}
        post(conn, QueueName.MODEL_UPDATES, body, services.clock())


def _model(conn: Connection, services: Services) -> str:
    model_id = str(uuid4())
    row = {"model_id": model_id, "name": "many", "schema": [], "ledger_version": 0}
    newest = conn.execute(select(func.coalesce(func.max(models.c.major), 0))).scalar_one()
    conn.execute(insert(models).values(**row, major=newest + 1, created_at=services.clock()))
    return model_id


def _round(services: Services, model_id: str, number: int) -> dict[str, object]:
    now = services.clock()
    return {
        "round_id": number,
        "round_number": number,
        "status": "completed",
        "started_at": now,
        "completed_at": now,
        "global_model_version": "1.0.0",
        "model_id": model_id,
        "result_version": f"many.{number}",
        "policy": {"mechanism": "none", "unit": "none"},
        "policy_hash": "0" * 64,
        "training_config": {},
        "deadline": now + timedelta(hours=1),
        "planned_clients": 1,
        "min_clients": 1,
        "closing": False,
    }


def _version(services: Services, model_id: str, number: int) -> dict[str, object]:
    return {
        "version": f"many.{number}",
        "model_id": model_id,
        "round_number": number,
        "model_blob_url": f"blob:many{number}",
        "created_at": services.clock(),
        "checksum": "0" * 64,
        "size_bytes": 1,
    }


def _update(
    services: Services, client_id: str, subject: str, number: int, has_blobs: bool
) -> dict[str, object]:
    update_id, blob_id, now = str(uuid4()), uuid4().hex, services.clock()
    sealer, participation = services.sealer, Retention.PARTICIPATION
    key_id, key = sealer.new_blob_key(subject, participation, blob_id, now)
    if has_blobs:
        with services.blobs.incoming(blob_id, key) as blob:
            blob.write(b"u" * _BLOB_BYTES)
            blob.keep()
    told: dict[str, JsonValue] = {"training_metrics": {"samples": number}, "norm": "1.0", "receipt": "r"}
    sealed = {
        column: sealer.seal_column(subject, participation, "client_updates", column, update_id, value, now)
        for column, value in told.items()
    }
    return {
        "update_id": update_id,
        "round_id": number,
        "client_id": client_id,
        "submitted_at": now,
        "update_size_bytes": _BLOB_BYTES,
        "status": "counted",
        "blob_id": blob_id,
        "blob_key": key_id,
        "entry_id": str(uuid4()),
        **sealed,
    }
