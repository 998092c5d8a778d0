"""How the operator brings a first model, which starts a lineage, and makes an earlier version the current one again."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from uuid import uuid4

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError, OperationalError

from aggregation.reader import Summary, UpdateReader
from aggregation.wire import dimension, schema_json
from audit.events import EventType
from audit.reading import reading
from gateway.errors import (
    ChecksumMismatch,
    Conflict,
    InvalidModelFormat,
    PayloadTooLarge,
    RoundOpen,
    ValidationFailed,
)
from gateway.rounds.arrival import arrive
from gateway.rounds.filing import file_model
from gateway.rounds.lineage import (
    ModelVersion,
    add_version,
    find_version,
    lock_lineage,
    make_current,
    next_major,
)
from gateway.rounds.portable import WHAT, is_portable
from gateway.rounds.record import has_open_round
from gateway.services import Services
from gateway.storage.blobs import Incoming
from gateway.storage.database import lacks_room
from gateway.tables import models


@dataclass(frozen=True, slots=True)
class ModelWish:
    """What the operator says of a model: its name, and its privacy budget, if rounds on it are to have one."""

    name: str
    epsilon_budget: Decimal | None
    delta: Decimal | None


def add_model(
    services: Services,
    chunks: Iterator[bytes],
    checksum: str | None,
    wish: ModelWish,
    *,
    remember: Callable[[ModelVersion, bytes], Callable[[Connection], None]] = lambda *_: lambda _: None,
) -> ModelVersion:
    """Register a safetensors model; its tensors become the schema of every round on it.

    Args:
        services: the stores.
        chunks: the file, as it comes.
        checksum: its SHA-256 in hex as the sender states it; None where the file is read from disk.
        wish: name and budget.
        remember: makes, from the version and the body's digest, what stores the answer for a repetition.

    Raises:
        BadFormat: it is no safetensors file.
        ChecksumMismatch: it is not what the checksum says.
        PayloadTooLarge: it is larger than `FLG_MAX_UPDATE_BYTES`.
        ValidationFailed: its name cannot be kept.
    """
    if not is_portable(wish.name):
        raise ValidationFailed([{"pointer": "X-Model-Metadata/name", "detail": WHAT}])
    blob_id = uuid4().hex
    blob = services.blobs.incoming(blob_id)
    try:
        digest, summary = _read(services, chunks, blob)
        if checksum is not None and not hmac.compare_digest(digest.hex(), checksum.lower()):
            raise ChecksumMismatch("The body's SHA-256 is not the one in X-Model-Checksum: send it again")
        if dimension(summary.schema) == 0:
            raise InvalidModelFormat("The model has no tensor of numbers that can be trained", tensor=None)
        blob.keep()
    except BaseException:
        blob.discard()
        raise
    try:
        made = _publish(services, blob_id, digest, summary, wish, remember)
    except BaseException as error:
        if not isinstance(error, OperationalError) or lacks_room(error):
            services.blobs.delete(blob_id)  # otherwise it may have committed: the sweep decides by the rows
        raise
    file_model(services, made)
    return made


def promote(services: Services, version: str) -> ModelVersion:
    """Make this version the base of its lineage's next round; what later versions spent stays spent.

    Raises:
        NotFound: there is no such version.
        RoundOpen: a round of the lineage is open.
    """
    with reading(services.engine) as conn:
        found = find_version(conn, version)
    entry = services.trail.draft(
        EventType.MODEL_PROMOTED,
        resource=f"model/{found.version}",
        details={"model_id": found.model_id, "model_version": found.version, "checksum": found.checksum},
    )
    with services.engine.begin() as conn:
        lock_lineage(conn, found.model_id)
        if has_open_round(conn, found.model_id):
            raise RoundOpen("Close the lineage's open round first, or wait for it")
        make_current(conn, found)
        services.trail.write(conn, entry)
    services.models.forget(found.version)
    return found


def _read(services: Services, chunks: Iterator[bytes], blob: Incoming) -> tuple[bytes, Summary]:
    reader, limit = UpdateReader(), services.config.max_update_bytes

    def take(chunk: bytes) -> None:
        if blob.size_bytes + len(chunk) > limit:
            raise PayloadTooLarge(f"A model may have {limit} bytes", max_bytes=limit)
        reader.feed(chunk)
        blob.write(chunk)

    digest, _ = arrive(chunks, take)
    return digest, reader.close()


def _publish(
    services: Services,
    blob_id: str,
    digest: bytes,
    summary: Summary,
    wish: ModelWish,
    remember: Callable[[ModelVersion, bytes], Callable[[Connection], None]],
) -> ModelVersion:
    now, model_id = services.clock(), str(uuid4())
    with reading(services.engine) as conn:
        major = next_major(conn)
    version = ModelVersion(
        version=f"{major}.0.0",
        model_id=model_id,
        round_number=None,
        blob_id=blob_id,
        checksum=digest.hex(),
        size_bytes=summary.size_bytes,
        accuracy=None,
        loss=None,
        created_at=now,
    )
    entry = services.trail.draft(
        EventType.MODEL_PUBLISHED,
        resource=f"model/{version.version}",
        details={
            "model_id": model_id,
            "model_version": version.version,
            "checksum": version.checksum,
            "size_bytes": version.size_bytes,
            "epsilon_budget": _text(wish.epsilon_budget) or "none",
            "delta": _text(wish.delta) or "none",
        },
    )
    store_answer = remember(version, digest)
    try:
        with services.engine.begin() as conn:
            conn.execute(
                insert(models).values(
                    model_id=model_id,
                    name=wish.name,
                    major=major,
                    schema=schema_json(summary.schema),
                    epsilon_budget=_text(wish.epsilon_budget),
                    delta=_text(wish.delta),
                    ledger_version=0,
                    current_version=version.version,
                    created_at=now,
                )
            )
            add_version(conn, version)
            store_answer(conn)
            services.trail.write(conn, entry)
    except IntegrityError as error:
        raise Conflict("Another model is being registered at the same time: try again") from error
    return version


def _text(value: Decimal | None) -> str | None:
    return None if value is None else format(value, "f")
