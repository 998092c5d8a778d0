"""`/api/v1/clients`: devices register here with an API key; operators see the clients and end them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

from flask import Blueprint, Response, request
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from sqlalchemy.exc import IntegrityError

from audit.reading import reading
from gateway import idempotency
from gateway.auth.admission import current_client
from gateway.auth.client_keys import checked_public_key, set_public_key
from gateway.auth.clients import Device, Move, move_client, new_registration, register_client
from gateway.auth.roster import ClientRecord, client_record, list_clients
from gateway.errors import (
    BadRequest,
    Conflict,
    IdempotencyKeyReused,
    NotFound,
    PayloadTooLarge,
    ProcessingRestricted,
    RateLimited,
    SignatureInvalid,
    UnsupportedMediaType,
    ValidationFailed,
)
from gateway.openapi import operation
from gateway.restricted import insist_unrestricted
from gateway.services import current_services
from gateway.wire import PAGE, WIRE, answer, dump, page, page_asked, parse_json, read_json_body

clients = Blueprint("clients", __name__, url_prefix="/api/v1/clients")
_LENIENT: ConfigDict = {**WIRE, "extra": "ignore"}  # the published TypeScript client sends more than we know
_Text = Annotated[str, Field(min_length=1, max_length=200)]
_ROUTE = "clients.register"


@dataclass(frozen=True, slots=True, config=_LENIENT)
class RegistrationWish:
    """What a device says of itself; everything is optional."""

    name: _Text | None = None
    device_id: _Text | None = None
    platform: _Text | None = None
    capabilities: Any = None
    public_key: Annotated[str, Field(max_length=64)] | None = None


@dataclass(frozen=True, slots=True, config=WIRE)
class RegistrationAnswer:
    """The new client, and the bearer token it uses from now on; shown this once."""

    client_id: str
    registration_token: str
    expires_at: datetime


@dataclass(frozen=True, slots=True, config=WIRE)
class PublicKeyWish:
    """The key that is to sign the client's updates: raw Ed25519, in base64."""

    public_key: Annotated[str, Field(max_length=64)]


@dataclass(frozen=True, slots=True, config=WIRE)
class ClientAnswer:
    """A client as operators see it."""

    client_id: str
    subject_id: str
    name: str | None
    role: str
    status: str
    auth_method: str
    token_format: str
    redirect_uris: tuple[str, ...]
    platform: str | None
    registered_at: datetime
    last_seen_at: datetime | None


@dataclass(frozen=True, slots=True, config=WIRE)
class ClientPage:
    """A page of clients."""

    data: list[ClientAnswer]
    pagination: dict[str, int]
    links: dict[str, str | None]


@clients.post("/register")
@operation(
    "Register a device or silo as a client of its own",
    body=RegistrationWish,
    answers={201: RegistrationAnswer},
    errors=(
        BadRequest,
        PayloadTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        IdempotencyKeyReused,
        ProcessingRestricted,
        RateLimited,
    ),
    headers=("Idempotency-Key",),
)
def register() -> Response:
    """Make a new client, subject and registration token, each time."""
    body = read_json_body()
    with reading(current_services().engine) as conn:
        insist_unrestricted(conn, current_client().client_id)
    device = _device(parse_json(RegistrationWish, body))
    key, body_digest = idempotency.key_hash(_ROUTE), sha256(body).digest()
    return idempotency.replay(key, body_digest) or _registered(device, key, body_digest)


@clients.get("")
@operation(
    "The clients, oldest first",
    answers={200: ClientPage},
    errors=(ValidationFailed,),
    numbers=PAGE,
)
def show_clients() -> Response:
    """One page of the clients."""
    number, per_page = page_asked()
    found, total = list_clients(current_services(), page=number, per_page=per_page)
    return page([_shown(record) for record in found], total)


@clients.get("/<client_id>")
@operation("One client", answers={200: ClientAnswer}, errors=(NotFound,))
def show_client(client_id: str) -> Response:
    """One client."""
    return answer(_shown(client_record(current_services(), client_id)))


@clients.delete("/<client_id>")
@operation(
    "End a client's access for good",
    answers={204: None},
    errors=(NotFound, Conflict),
)
def revoke_client(client_id: str) -> Response:
    """Revoke the client and all of its tokens; its record stays."""
    move_client(current_services(), client_id, Move.REVOKE)
    return Response(status=204)


@clients.put("/me/public-key")
@operation(
    "Register the key that signs the client's updates, or another one, signed by the old",
    body=PublicKeyWish,
    answers={204: None},
    errors=(
        BadRequest,
        PayloadTooLarge,
        UnsupportedMediaType,
        ValidationFailed,
        SignatureInvalid,
        Conflict,
        RateLimited,
    ),
    headers=("X-Client-Signature",),
)
def put_public_key() -> Response:
    """Set the client's own key; from now on its updates must be signed by it."""
    body, signature = read_json_body(), request.headers.get("X-Client-Signature")
    wished = parse_json(PublicKeyWish, body).public_key
    set_public_key(current_services(), current_client(), wished, body=body, signature=signature)
    return Response(status=204)


def _registered(device: Device, key: str | None, body_digest: bytes) -> Response:
    services = current_services()
    new = new_registration(services, device)
    told = RegistrationAnswer(new.client_id, new.registration_token, new.expires_at)
    kept = idempotency.remembered(key, body_digest, dump(told), status=201, subject_id=new.subject_id)
    try:
        register_client(services, new, beside=lambda conn: idempotency.store(conn, kept))
    except IntegrityError:
        first = idempotency.replay(key, body_digest)  # the same request came twice at once
        if first is None:
            raise
        return first
    return answer(told, 201)


def _device(wish: RegistrationWish) -> Device:
    device = Device(wish.name, wish.device_id, wish.platform, wish.capabilities, wish.public_key)
    return replace(device, public_key=checked_public_key(wish.public_key)) if wish.public_key else device


def _shown(record: ClientRecord) -> ClientAnswer:
    return ClientAnswer(
        client_id=record.client_id,
        subject_id=record.subject_id,
        name=record.name,
        role=record.role.value,
        status=record.status.value,
        auth_method=record.auth_method.value,
        token_format=record.token_format,
        redirect_uris=record.redirect_uris,
        platform=record.platform,
        registered_at=record.registered_at,
        last_seen_at=record.last_seen_at,
    )
