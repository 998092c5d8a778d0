"""Promise 7: bad input gets a 4xx problem document that names the field, and leaves no row, blob or message behind."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import uuid4

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from living.driver import NOISED, SHAPES, Json, Person, await_that, tensors
from living.threads import LocalGateway
from sqlalchemy import MetaData, func, select

import audit.tables
import compliance.tables
import gateway.tables
from aggregation.wire import write_safetensors
from audit.reading import reading
from gateway.services import Services

NOT_COUNTED = {
    "audit_log",
    "audit_pending",
    "audit_checkpoints",
    "audit_subjects",
    "audit_tiles",
    "siem_cursors",
}
TABLES: tuple[MetaData, ...] = (audit.tables.metadata, compliance.tables.metadata, gateway.tables.metadata)


@dataclass(frozen=True, slots=True)
class Room:
    """A round that takes updates, and who may send one."""

    gateway: LocalGateway
    person: Person
    number: int
    key: Ed25519PrivateKey


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad update: its body, what is said beside it, and what the answer must say."""

    body: bytes
    code: str
    names: str = ""
    status: int = 422
    headers: dict[str, str] = field(default_factory=dict)


def made(**changes: object) -> bytes:
    """An update of the right schema but for the changed tensors; None leaves one out."""
    draw = np.random.default_rng(0)
    whole = {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} | changes
    return b"".join(write_safetensors({name: value for name, value in whole.items() if value is not None}))


def header_of(text: str, rest: bytes = b"") -> bytes:
    """A safetensors file with this header."""
    return struct.pack("<Q", len(text)) + text.encode() + rest


def pickled() -> bytes:
    """A pickle, as `torch.save` and `numpy.save` of objects make it."""
    spooled = io.BytesIO()
    np.savez(spooled, w=np.array([{"a": 1}], dtype=object))
    return spooled.getvalue()


BAD_UPDATES = {
    "nothing": Bad(b"", "INVALID_MODEL_FORMAT"),
    "no safetensors": Bad(b"x" * 100, "INVALID_MODEL_FORMAT"),
    "a header longer than the body": Bad(struct.pack("<Q", 1 << 40) + b"{}", "INVALID_MODEL_FORMAT"),
    "a header that is no JSON": Bad(header_of("{]"), "INVALID_MODEL_FORMAT"),
    "a pickle": Bad(pickled(), "INVALID_MODEL_FORMAT"),
    "a broken zip": Bad(b"PK\x03\x04" + b"\0" * 200, "INVALID_MODEL_FORMAT"),
    "a tensor less": Bad(made(b=None), "INVALID_MODEL_FORMAT", "b"),
    "a tensor more": Bad(made(x=np.zeros(2, np.float32)), "INVALID_MODEL_FORMAT", "x"),
    "another shape": Bad(made(w=np.zeros((4, 8), np.float32)), "INVALID_MODEL_FORMAT", "w"),
    "another dtype": Bad(made(w=np.zeros((8, 4), np.float64)), "INVALID_MODEL_FORMAT", "w"),
    "a NaN": Bad(made(w=np.full((8, 4), np.nan, np.float32)), "INVALID_MODEL_FORMAT", "w"),
    "an infinity": Bad(made(b=np.array([0, 0, 0, -np.inf], np.float32)), "INVALID_MODEL_FORMAT", "b"),
    "cut short": Bad(made()[:-3], "INVALID_MODEL_FORMAT"),
    "longer than its header says": Bad(made() + b"more", "INVALID_MODEL_FORMAT"),
    "a wrong checksum": Bad(made(), "CHECKSUM_MISMATCH", headers={"X-Update-Checksum": "0" * 64}),
    "no checksum at all": Bad(made(), "CHECKSUM_MISSING", status=400, headers={"X-Update-Checksum": ""}),
    "a checksum that is none": Bad(
        made(), "VALIDATION_FAILED", "X-Update-Checksum", headers={"X-Update-Checksum": "zz"}
    ),
    "no signature": Bad(made(), "SIGNATURE_INVALID", headers={"X-Client-Signature": ""}),
    "a signature of something else": Bad(
        made(), "SIGNATURE_INVALID", headers={"X-Client-Signature": base64.b64encode(b"x" * 64).decode()}
    ),
    "metadata that are no object": Bad(
        made(), "VALIDATION_FAILED", "X-Update-Metadata", headers={"X-Update-Metadata": "[1]"}
    ),
    "metadata with a NaN": Bad(
        made(), "VALIDATION_FAILED", "X-Update-Metadata", headers={"X-Update-Metadata": '{"loss": NaN}'}
    ),
    "endless metadata": Bad(
        made(),
        "VALIDATION_FAILED",
        "X-Update-Metadata",
        headers={"X-Update-Metadata": '{"x": "' + "y" * 20_000 + '"}'},
    ),
    "an empty idempotency key": Bad(
        made(), "VALIDATION_FAILED", "Idempotency-Key", headers={"Idempotency-Key": ""}
    ),
}
ROUND: Json = {"planned_clients": 2, "min_clients": 2, "privacy": NOISED}
BAD_ROUNDS: dict[str, tuple[Json, str]] = {
    "no clients": (ROUND | {"planned_clients": 0}, "planned_clients"),
    "a minimum above the plan": (ROUND | {"min_clients": 3}, "min_clients"),
    "text for a number": (ROUND | {"min_clients": "two"}, "min_clients"),
    "a deadline in the past": (ROUND | {"deadline": "2020-01-01T00:00:00Z"}, "deadline"),
    "noise without a norm": (ROUND | {"privacy": NOISED | {"clip_norm": None}}, "clip_norm"),
    "a norm below zero": (ROUND | {"privacy": NOISED | {"clip_norm": -1}}, "clip_norm"),
    "no noise at all": (ROUND | {"privacy": NOISED | {"noise_multiplier": 0}}, "noise_multiplier"),
    "a delta of one": (ROUND | {"privacy": NOISED | {"delta": 1}}, "delta"),
    "an unknown mechanism": (ROUND | {"privacy": {"mechanism": "laplace"}}, "mechanism"),
    "an unknown unit": (ROUND | {"privacy": NOISED | {"unit": "person"}}, "unit"),
    "an unknown rule": (ROUND | {"aggregation": {"rule": "best"}}, "rule"),
    "an unknown member": (ROUND | {"privcy": {}}, "privcy"),
}
BAD_DEVICES: dict[str, tuple[Json, str]] = {
    "a key that is none": ({"device_id": "x", "public_key": "AAAA"}, "public_key"),
    "a number for a name": ({"device_id": 3}, "device_id"),
    "a name without end": ({"device_id": "x" * 100_000}, "device_id"),
}


@pytest.fixture(scope="module")
def room(shared: LocalGateway) -> Iterator[Room]:
    """An open round with one signing participant."""
    shared.add_model()
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    person = shared.register(public_key=public)
    number = shared.open_round({"mechanism": "none"})
    shared.as_role("auditor")
    yield Room(shared, person, number, key)
    shared.http.post(f"/api/v1/rounds/{number}/close", headers=shared.as_role("operator"))


@pytest.mark.parametrize("bad", BAD_UPDATES.values(), ids=BAD_UPDATES.keys())
def test_a_bad_update_is_refused_and_leaves_nothing_but_one_entry(room: Room, bad: Bad) -> None:
    """Row counts, the blob store's files and the log are compared before and after."""
    signature = base64.b64encode(room.key.sign(sha256(bad.body).digest())).decode()
    headers = {"X-Update-Checksum": sha256(bad.body).hexdigest(), "X-Client-Signature": signature}
    headers |= room.person.headers | bad.headers
    if bad.code == "CHECKSUM_MISSING":
        del headers["X-Update-Checksum"]

    answer, left, entries = _left_by(
        room.gateway,
        lambda: room.gateway.http.post(
            f"/api/v1/rounds/{room.number}/updates", content=bad.body, headers=headers
        ),
        audited=bad.status != 400,
    )

    assert (answer.status_code, answer.json()["code"]) == (bad.status, bad.code), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    if bad.names:
        assert bad.names in json.dumps(answer.json()["error"]["details"])
    assert left == []
    assert entries == ["update.refused"]


@pytest.mark.parametrize(("wish", "names"), BAD_ROUNDS.values(), ids=BAD_ROUNDS.keys())
def test_a_bad_round_is_refused_and_names_the_member(room: Room, wish: Json, names: str) -> None:
    """422 with a pointer; no reservation, no seed."""
    gateway = room.gateway
    version = gateway.add_model()["version"]
    headers = gateway.as_role("operator")

    answer, left, entries = _left_by(
        gateway,
        lambda: gateway.http.post("/api/v1/rounds", json=wish | {"base_version": version}, headers=headers),
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_FAILED"), answer.text
    assert names in " ".join(error["pointer"] for error in answer.json()["errors"])
    assert (left, entries) == ([], ["access.refused"])


@pytest.mark.parametrize(("wish", "names"), BAD_DEVICES.values(), ids=BAD_DEVICES.keys())
def test_a_bad_registration_is_refused_and_names_the_member(room: Room, wish: Json, names: str) -> None:
    """422 with a pointer; no client, no subject, no key."""
    gateway = room.gateway
    headers = gateway.as_role("operator")

    answer, left, entries = _left_by(
        gateway, lambda: gateway.http.post("/api/v1/clients/register", json=wish, headers=headers)
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "VALIDATION_FAILED"), answer.text
    assert names in " ".join(error["pointer"] for error in answer.json()["errors"])
    assert (left, entries) == ([], ["access.refused"])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("path", ["/api/v1/rounds", "/api/v1/clients/register", "/api/v1/privacy/requests"])
def test_a_body_that_is_no_object_is_refused(room: Room, path: str, body: bytes) -> None:
    """Never a 500, whatever the bytes."""
    gateway = room.gateway
    headers = gateway.as_role("dpo" if "privacy" in path else "operator") | {
        "Content-Type": "application/json"
    }

    answer, left, _ = _left_by(
        gateway, lambda: gateway.http.post(path, content=body, headers=headers), audited=False
    )

    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] in ("BAD_REQUEST", "VALIDATION_FAILED")
    assert left == []


def test_another_clients_things_are_not_found(room: Room) -> None:
    """An update of somebody else, a request that is none: 404 says nothing of whether they exist."""
    gateway = room.gateway
    gateway.add_model()
    number = gateway.open_round({"mechanism": "none"})
    theirs = gateway.submit(gateway.register(), number, tensors(1))["update_id"]
    mine = room.person.headers

    answers = [gateway.http.get(f"/api/v1/updates/{one}", headers=mine) for one in (theirs, uuid4())]

    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].json()["detail"] == answers[1].json()["detail"]


def _left_by(gateway: LocalGateway, request: Callable, *, audited: bool = True) -> tuple:  # type: ignore[type-arg]
    """The answer to a request, what it left in rows and files, and which refusals the log tells of it."""
    await_that("the log is at rest", lambda: _pending(gateway) == 0)
    seen, before = len(gateway.entries()), _kept(gateway)
    answer = request()
    if audited:
        await_that("the entry", lambda: len(gateway.entries()) > seen, patience_s=20)
    await_that("the log is at rest", lambda: _pending(gateway) == 0)
    after = _kept(gateway)
    left = [name for name in after if after[name] != before.get(name)]
    return answer, left, [entry["event_type"] for entry in gateway.entries()[seen:]]


def _kept(gateway: LocalGateway) -> dict[str, object]:
    with gateway.home.stores() as services:
        rows = {name: count for name, count in _counts(services).items() if name not in NOT_COUNTED}
        seeds = services.keystore.seeds()
    files = sorted(gateway.home.blob_names())
    return {**rows, "seeds": seeds, "files": files}


def _counts(services: Services) -> dict[str, int]:
    with reading(services.engine) as conn:
        return {
            table.name: conn.execute(select(func.count()).select_from(table)).scalar_one()
            for metadata in TABLES
            for table in metadata.sorted_tables
        }


def _pending(gateway: LocalGateway) -> int:
    with gateway.home.stores() as services:
        return _counts(services)["audit_pending"]
