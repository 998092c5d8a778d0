"""Models over HTTP: register the first of a lineage, list, download (with ETag and Range), roll back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from flask import Blueprint, Response, request
from pydantic import Field
from pydantic.dataclasses import dataclass
from sqlalchemy import Connection

from audit.events import EventType
from audit.reading import reading
from gateway import idempotency
from gateway.api.bodies import body_chunks, body_digest, stated_checksum, upload_place
from gateway.api.downloads import PreconditionFailed, model_response
from gateway.auth.admission import current_client
from gateway.errors import (
    ChecksumMismatch,
    ChecksumMissing,
    Conflict,
    IdempotencyKeyReused,
    InvalidModelFormat,
    NotFound,
    PayloadTooLarge,
    RangeNotSatisfiable,
    RoundOpen,
    ValidationFailed,
)
from gateway.openapi import Media, operation
from gateway.paths import insist_version
from gateway.rounds.lineage import ModelVersion, list_versions
from gateway.rounds.publishing import ModelWish, add_model, promote
from gateway.services import current_services
from gateway.wire import PAGE, WIRE, Links, Pagination, answer, dump, page, page_asked, parse_json

models = Blueprint("models", __name__, url_prefix="/api/v1/models")


@dataclass(frozen=True, slots=True, config=WIRE)
class Budget:
    """A lineage's privacy budget."""

    epsilon: Annotated[float, Field(gt=0, le=1e6)]
    delta: Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, slots=True, config=WIRE)
class ModelMetadata:
    """The header `X-Model-Metadata`."""

    name: str = Field(default="model", min_length=1, max_length=200, pattern=r"^[^\x00]*$")
    privacy_budget: Budget | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class RegisteredModel:
    """The answer to a registered model."""

    model_id: str
    version: str
    checksum: str
    size_bytes: int


@dataclass(frozen=True, slots=True, config=WIRE)
class ModelInList:
    """A model version as lists show it."""

    model_id: str
    version: str
    checksum: str
    size_bytes: int
    round_number: int | None
    accuracy: float | None
    loss: float | None
    created_at: datetime


@dataclass(frozen=True, slots=True, config=WIRE)
class ModelList:
    """A page of model versions."""

    data: list[ModelInList]
    pagination: Pagination
    links: Links


@models.post("")
@operation(
    "Register a model, which starts a lineage",
    body=Media.BINARY,
    answers={201: RegisteredModel},
    errors=(
        ChecksumMissing,
        ChecksumMismatch,
        Conflict,
        PayloadTooLarge,
        InvalidModelFormat,
        ValidationFailed,
        IdempotencyKeyReused,
    ),
    headers=("X-Model-Checksum", "X-Model-Metadata", "Idempotency-Key"),
)
def register_model() -> Response:
    """Stream a safetensors file into the blob store; its tensors become the lineage's schema."""
    checksum = stated_checksum("X-Model-Checksum")
    metadata = parse_json(ModelMetadata, request.headers.get("X-Model-Metadata", "{}"), at="X-Model-Metadata")
    hashed = idempotency.key_hash("models")
    if hashed and idempotency.find(hashed):
        return idempotency.first_answer(hashed, body_digest())
    services = current_services()
    with upload_place():
        services.blobs.insist_room(request.content_length or 0)
        made = add_model(services, body_chunks(), checksum, _wish(metadata), remember=_remember(hashed))
    return answer(_registered(made), 201, {"Location": f"/api/v1/models/{made.version}"})


@models.get("")
@operation(
    "The model versions, the newest first",
    answers={200: ModelList},
    errors=(ValidationFailed,),
    numbers=PAGE,
)
def show_models() -> Response:
    """One page of versions."""
    number, per_page = page_asked()
    with reading(current_services().engine) as conn:
        found, total = list_versions(conn, limit=per_page, offset=(number - 1) * per_page)
    return page([_listed(version) for version in found], total)


@models.get("/<version>")
@operation(
    "A model's bytes, as they were uploaded",
    answers={200: Media.BINARY, 206: Media.BINARY, 304: None, 307: None},
    errors=(NotFound, PreconditionFailed, RangeNotSatisfiable),
    headers=("Range", "If-Match", "If-None-Match", "If-Range"),
)
def download_model(version: str) -> Response:
    """The file itself, or where it is to be had, with ETag, Range and conditional requests (RFC 9110)."""
    found, response = current_services().models.with_row(
        insist_version(version), lambda found: (found, model_response(found))
    )
    if request.method == "GET" and response.status_code in (200, 206, 307):
        try:
            _note_download(found, response.status_code)
        except BaseException:
            response.close()
            raise
    return response


@models.post("/<version>/promote")
@operation(
    "Make a version the base of its lineage's next round",
    answers={200: RegisteredModel},
    errors=(NotFound, RoundOpen),
)
def promote_model(version: str) -> Response:
    """Roll back, or forward again."""
    return answer(_registered(promote(current_services(), insist_version(version))))


def _note_download(found: ModelVersion, status: int) -> None:
    current_services().trail.note(
        EventType.MODEL_DOWNLOADED,
        model_id=found.model_id,
        model_version=found.version,
        checksum=found.checksum,
        status=status,
    )


def _wish(metadata: ModelMetadata) -> ModelWish:
    budget = metadata.privacy_budget
    if budget is None:
        return ModelWish(metadata.name, None, None)
    return ModelWish(metadata.name, Decimal(repr(budget.epsilon)), Decimal(repr(budget.delta)))


def _remember(hashed: str | None) -> Callable[[ModelVersion, bytes], Callable[[Connection], None]]:
    def make(version: ModelVersion, digest: bytes) -> Callable[[Connection], None]:
        kept = idempotency.remembered(
            hashed, digest, dump(_registered(version)), status=201, subject_id=current_client().subject_id
        )
        return lambda conn: idempotency.store(conn, kept)

    return make


def _registered(version: ModelVersion) -> RegisteredModel:
    return RegisteredModel(version.model_id, version.version, version.checksum, version.size_bytes)


def _listed(version: ModelVersion) -> ModelInList:
    return ModelInList(
        model_id=version.model_id,
        version=version.version,
        checksum=version.checksum,
        size_bytes=version.size_bytes,
        round_number=version.round_number,
        accuracy=version.accuracy,
        loss=version.loss,
        created_at=version.created_at,
    )
