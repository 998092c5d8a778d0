"""Updates: what is accepted is kept and promised once; what is refused leaves nothing but an entry."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from threading import Barrier, Thread
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from federation import Federation, Silo, file_of, tensors
from flask import Flask
from flask.testing import FlaskClient

from audit.checkpoint import NoteVerifier
from audit.proof import check_entry_proof, parse_proof
from compliance.keyring.keys import SigningUse
from gateway.api import updates
from gateway.api.audit import log_vkey
from gateway.services import Services

GOOD = file_of(tensors(0.5))
Entries = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation with a model and an open round for two."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    assert made.open_round().status_code == 201
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """One client."""
    return federation.register()


def test_an_accepted_update_is_answered_with_a_receipt(federation: Federation, silo: Silo) -> None:
    """API.md: 202 {update_id, status, receipt, estimated_aggregation_time}; the receipt's claims (RULES 21)."""
    answer = federation.submit(silo, GOOD)

    assert answer.status_code == 202
    assert set(answer.json) == {"update_id", "status", "receipt", "estimated_aggregation_time"}
    header, payload, signature = answer.json["receipt"].split(".")
    head, claims = json.loads(_decoded(header)), json.loads(_decoded(payload))
    assert (head["alg"], head["typ"]) == ("EdDSA", "fl-receipt+jwt")
    assert set(claims) == {"entry_id", "entry_digest", "body_hash", "received_at", "origin", "max_delay"}
    assert claims["body_hash"] == sha256(GOOD).hexdigest()
    key = federation.services.keystore.signing_key(SigningUse.RECEIPT)
    assert head["kid"] == key.kid
    key.private.public_key().verify(_decoded(signature), f"{header}.{payload}".encode())


def test_the_receipt_is_a_proof_once_the_entry_is_sequenced(federation: Federation, silo: Silo) -> None:
    """API.md: `GET …/receipt` is 202 until sequenced, then a tlog-proof that anybody can check."""
    update_id = federation.submit(silo, GOOD).json["update_id"]
    path = f"/api/v1/updates/{update_id}/receipt"
    before = federation.http.get(path, headers=silo.headers)

    federation.sequence()
    after = federation.http.get(path, headers=silo.headers)

    assert before.status_code == 202
    assert after.status_code == 200
    assert after.mimetype == "text/plain"
    verifier = NoteVerifier.parse(log_vkey(federation.services))
    assert check_entry_proof(parse_proof(after.text), verifier).event_type == "update.accepted"


def test_the_log_holds_no_bare_hash_of_an_update(
    federation: Federation, silo: Silo, entries: Entries
) -> None:
    """DESIGN: a bare hash would let a reader of the log test guesses; the log keeps a keyed MAC."""
    federation.submit(silo, GOOD)

    (entry,) = entries("update.accepted")

    assert sha256(GOOD).hexdigest() not in json.dumps(entry, default=list)
    assert len(entry["details"]["update_mac"]) == 64
    assert {"client_id", "update_id"} <= entry["sealed"]


BAD_BODIES: dict[str, tuple[bytes, str | None]] = {
    "a pickle": (pickle.dumps({"weight": [1.0]}), None),
    "an empty body": (b"", None),
    "a truncated file": (GOOD[:-4], "weight"),
    "a file with a byte too many": (GOOD + b"\0", None),
    "a header that is no JSON": (struct.pack("<Q", 8) + b"{weight}" + GOOD, None),
    "a header of 2^63 bytes": (struct.pack("<Q", 1 << 63) + GOOD, None),
    "a wrong shape": (file_of({**tensors(), "weight": np.zeros((3, 4), np.float32)}), "weight"),
    "a wrong dtype": (file_of({**tensors(), "bias": np.zeros(3, np.float64)}), "bias"),
    "a missing tensor": (file_of({"weight": np.zeros((4, 3), np.float32)}), "bias"),
    "a tensor too many": (file_of({**tensors(), "more": np.zeros(1, np.float32)}), "more"),
    "NaN": (file_of({**tensors(), "bias": np.array([0, np.nan, 0], np.float32)}), "bias"),
    "infinity": (file_of({**tensors(), "weight": np.full((4, 3), np.inf, np.float32)}), "weight"),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_malformed_update_is_refused_and_leaves_nothing(
    federation: Federation, silo: Silo, entries: Entries, what: str
) -> None:
    """Promise 7: 422 INVALID_MODEL_FORMAT naming the tensor; no row, no blob, no message, one entry."""
    body, tensor = BAD_BODIES[what]
    before = federation.kept()

    answer = federation.submit(silo, body)

    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert answer.json["code"] == answer.json["error"]["code"] == "INVALID_MODEL_FORMAT"
    assert answer.json["error"]["details"]["tensor"] == tensor
    assert federation.kept() == before
    (entry,) = entries("update.refused")
    assert entry["details"]["reason"] == "INVALID_MODEL_FORMAT"
    assert federation.submit(silo, GOOD).status_code == 202


BAD_HEADERS: dict[str, tuple[dict[str, str], int, str]] = {
    "another checksum": ({"X-Update-Checksum": "0" * 64}, 422, "CHECKSUM_MISMATCH"),
    "a checksum that is none": ({"X-Update-Checksum": "abc"}, 422, "VALIDATION_FAILED"),
    "metadata that is no JSON": ({"X-Update-Metadata": "{"}, 422, "VALIDATION_FAILED"),
    "metadata that is no object": ({"X-Update-Metadata": "[1]"}, 422, "VALIDATION_FAILED"),
    "metadata with NaN": ({"X-Update-Metadata": '{"loss": NaN}'}, 422, "VALIDATION_FAILED"),
    "metadata nested too deep": ({"X-Update-Metadata": "[" * 5000}, 422, "VALIDATION_FAILED"),
    "no token": ({"Authorization": ""}, 401, "UNAUTHORIZED"),
    "a foreign token": ({"Authorization": "Bearer flg_token_x"}, 401, "UNAUTHORIZED"),
}


@pytest.mark.parametrize("what", BAD_HEADERS)
def test_a_bad_header_is_refused_and_leaves_nothing(
    federation: Federation, silo: Silo, entries: Entries, what: str
) -> None:
    """Promise 7, for what stands around the body."""
    headers, status, code = BAD_HEADERS[what]
    before = federation.kept()

    answer = federation.submit(silo, GOOD, headers=headers)

    assert (answer.status_code, answer.json["code"]) == (status, code)
    assert federation.kept() == before
    assert len(entries("update.refused")) == 1


def test_a_missing_checksum_is_asked_for(federation: Federation, silo: Silo) -> None:
    """API.md: X-Update-Checksum is required (400 CHECKSUM_MISSING)."""
    answer = federation.http.post("/api/v1/rounds/1/updates", data=GOOD, headers=silo.headers)

    assert (answer.status_code, answer.json["code"]) == (400, "CHECKSUM_MISSING")


def test_a_second_update_of_a_client_is_refused(federation: Federation, silo: Silo) -> None:
    """API.md: 409 DUPLICATE_UPDATE."""
    assert federation.submit(silo, GOOD).status_code == 202
    before = federation.kept()

    answer = federation.submit(silo, file_of(tensors(0.1)))

    assert (answer.status_code, answer.json["code"]) == (409, "DUPLICATE_UPDATE")
    assert federation.kept() == before


def test_the_same_request_again_gets_the_first_answer(federation: Federation, silo: Silo) -> None:
    """API.md: the same Idempotency-Key and body: the first answer; another body: IDEMPOTENCY_KEY_REUSED."""
    key = {"Idempotency-Key": "once"}
    first = federation.submit(silo, GOOD, headers=key)
    before = federation.kept()

    again = federation.submit(silo, GOOD, headers=key)
    other = federation.submit(silo, file_of(tensors(0.1)), headers=key)

    assert (again.status_code, again.json) == (first.status_code, first.json)
    assert (other.status_code, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert federation.kept() == before


def test_the_same_request_twice_at_once_is_accepted_once(
    app: Flask, federation: Federation, silo: Silo
) -> None:
    """Two at the same moment: one update, and both get the same answer."""
    barrier, answers = Barrier(2), []

    def send() -> None:
        own = Federation.__new__(Federation)
        own.http = app.test_client()
        barrier.wait()
        answers.append(own.submit(silo, GOOD, headers={"Idempotency-Key": "twice"}))

    threads = [Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json == answers[1].json
    assert federation.kept()["client_updates"] == 1
    assert federation.kept()["files"] == 2


def test_the_same_request_that_ends_between_two_looks_is_answered_as_the_first(
    app: Flask, federation: Federation, silo: Silo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is committed after the second one has looked for its key, and before that looks at the round."""
    look, faster = updates.open_for, list[Any]()

    def send() -> None:
        own = Federation.__new__(Federation)
        own.http = app.test_client()
        faster.append(own.submit(silo, GOOD, headers={"Idempotency-Key": "twice"}))

    def look_later(*asked: Any) -> Any:
        monkeypatch.undo()
        thread = Thread(target=send)
        thread.start()
        thread.join()
        return look(*asked)

    monkeypatch.setattr(updates, "open_for", look_later)
    answer = federation.submit(silo, GOOD, headers={"Idempotency-Key": "twice"})

    assert (answer.status_code, faster[0].status_code) == (202, 202)
    assert answer.json == faster[0].json
    assert federation.kept()["client_updates"] == 1


def test_an_unknown_round_is_not_found(federation: Federation, silo: Silo) -> None:
    """Required: unknown round 404."""
    answer = federation.submit(silo, GOOD, number=99)

    assert (answer.status_code, answer.json["code"]) == (404, "NOT_FOUND")


def test_a_closed_round_takes_no_update(federation: Federation, silo: Silo) -> None:
    """Required: closed round 409 ROUND_EXPIRED."""
    federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)

    answer = federation.submit(silo, GOOD)

    assert (answer.status_code, answer.json["code"]) == (409, "ROUND_EXPIRED")


def test_a_round_past_its_deadline_takes_no_update(federation: Federation, silo: Silo, clock: Any) -> None:
    """The deadline counts by itself, before the worker has looked."""

    clock.advance(timedelta(hours=1, seconds=1))

    answer = federation.submit(silo, GOOD)

    assert (answer.status_code, answer.json["code"]) == (409, "ROUND_EXPIRED")


def test_the_scope_is_needed(federation: Federation) -> None:
    """Required: wrong scope 403 insufficient_scope, with the scope that is needed."""
    dpo = federation.staff("dpo")

    answer = federation.http.post("/api/v1/rounds/1/updates", data=GOOD, headers=dpo)

    assert (answer.status_code, answer.json["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert 'scope="training:participate"' in answer.headers["WWW-Authenticate"]


def test_another_client_s_update_is_not_found(federation: Federation, silo: Silo) -> None:
    """API.md: another client's object is 404."""
    update_id = federation.submit(silo, GOOD).json["update_id"]
    other = federation.register("other")

    own = federation.http.get(f"/api/v1/updates/{update_id}", headers=silo.headers)
    foreign = federation.http.get(f"/api/v1/updates/{update_id}", headers=other.headers)
    foreign_receipt = federation.http.get(f"/api/v1/updates/{update_id}/receipt", headers=other.headers)
    unknown = federation.http.get(f"/api/v1/updates/{uuid4()}", headers=silo.headers)

    assert own.status_code == 200
    assert own.json["size_bytes"] == len(GOOD)
    assert {foreign.status_code, foreign_receipt.status_code, unknown.status_code} == {404}


def test_a_registered_key_makes_the_signature_a_duty(federation: Federation) -> None:
    """API.md: Ed25519 over the 32 raw bytes of the body's SHA-256, required once a key is registered."""
    key = Ed25519PrivateKey.generate()
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    signer = federation.register("signer", public_key=public)
    good = base64.b64encode(key.sign(sha256(GOOD).digest())).decode()
    wrong = base64.b64encode(key.sign(GOOD)).decode()

    refused = [
        federation.submit(signer, GOOD, headers=headers)
        for headers in ({}, {"X-Client-Signature": wrong}, {"X-Client-Signature": "?"})
    ]
    accepted = federation.submit(signer, GOOD, headers={"X-Client-Signature": good})

    assert [(one.status_code, one.json["code"]) for one in refused] == [(422, "SIGNATURE_INVALID")] * 3
    assert accepted.status_code == 202


def test_npz_without_pickles_is_taken(federation: Federation, silo: Silo) -> None:
    """DESIGN: `.npz` without pickles is accepted too; one with an object array never is."""
    plain, evil = io.BytesIO(), io.BytesIO()
    np.savez(plain, **tensors(0.5))
    np.savez(evil, weight=np.array([{}], object), bias=np.zeros(3, np.float32))
    other = federation.register("other")

    taken = federation.submit(silo, plain.getvalue())
    refused = federation.submit(other, evil.getvalue())

    assert taken.status_code == 202
    assert (refused.status_code, refused.json["code"]) == (422, "INVALID_MODEL_FORMAT")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
