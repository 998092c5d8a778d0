"""Data-protection requests over HTTP: carried out at once where one may approve alone, with package and receipt."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient

from compliance.packages.verifying import verify_package
from gateway import idempotency
from gateway.privacy import gdpr
from gateway.services import Services

UPDATE = file_of(tensors(0.5))


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation in which one client took part in a completed round."""
    made = Federation(services, http)
    made.add_model()
    made.open_round(planned_clients=1)
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """The client that took part."""
    found = federation.register("canary-device")
    federation.submit(found, UPDATE, headers={"X-Update-Metadata": '{"num_samples": 7}'})
    federation.work()
    assert federation.round()["status"] == "completed"
    return found


@pytest.fixture
def dpo(federation: Federation) -> dict[str, str]:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


def test_an_access_request_ends_in_a_signed_package(
    federation: Federation, silo: Silo, dpo: dict[str, str], tmp_path: Path
) -> None:
    """API.md: 201 {id, type, status, due_at, version}; ZIP with manifest.json and manifest.sig."""
    opened = _open(federation, dpo, "access", silo)
    package = federation.http.get(
        f"/api/v1/privacy/requests/{opened['id']}/package", headers=dpo, buffered=True
    )

    assert {"id", "type", "status", "due_at", "version"} <= set(opened)
    assert (opened["type"], opened["status"]) == ("access", "completed")
    assert package.mimetype == "application/zip"
    archive = zipfile.ZipFile(io.BytesIO(package.data))
    manifest = json.loads(archive.read("manifest.json"))
    assert set(manifest) == {"kid", "files"}
    assert {"path", "bytes", "sha256", "rows", "article"} == set(manifest["files"][0])
    key = _public_key(federation, manifest["kid"])
    Ed25519PublicKey.from_public_bytes(key).verify(
        base64.b64decode(archive.read("manifest.sig")), archive.read("manifest.json")
    )
    (tmp_path / "package.zip").write_bytes(package.data)
    verify_package(tmp_path / "package.zip", key)
    (client,) = json.loads(archive.read("data/clients.json"))
    assert client["client_id"] == silo.client_id
    assert "canary-device" in json.dumps(client)
    (update,) = json.loads(archive.read("data/participation_history.json"))
    assert update["training_metrics"] == {"num_samples": 7}
    assert archive.read(f"updates/{update['update_id']}.safetensors") == UPDATE


def test_an_erasure_leaves_no_row_no_blob_and_a_receipt(
    federation: Federation, silo: Silo, dpo: dict[str, str]
) -> None:
    """Required: rows, blobs and keys destroyed; the receipt is a JWS of type fl-erasure+jwt; the token is dead."""
    opened = _open(federation, dpo, "erasure", silo)
    receipt = federation.http.get(f"/api/v1/privacy/requests/{opened['id']}/receipt", headers=dpo)

    assert opened["status"] == "completed"
    header, payload, signature = receipt.text.split(".")
    head, claims = json.loads(_decoded(header)), json.loads(_decoded(payload))
    assert head["typ"] == "fl-erasure+jwt"
    Ed25519PublicKey.from_public_bytes(_public_key(federation, head["kid"])).verify(
        _decoded(signature), f"{header}.{payload}".encode()
    )
    assert claims["left"] == 0
    assert [line["first_version"] for line in claims["models"]] == ["1.1.0"]
    kept = federation.kept()
    assert (kept["client_updates"], kept["files"]) == (0, 2)  # the two model versions
    refused = federation.http.get("/api/v1/rounds/current", headers=silo.headers)
    assert refused.status_code == 401


def test_an_erased_client_is_not_found_again(federation: Federation, silo: Silo, dpo: dict[str, str]) -> None:
    """A second erasure of the same client has nobody to erase; the first package is gone with its subject."""
    access = _open(federation, dpo, "access", silo)
    _open(federation, dpo, "erasure", silo)

    again = federation.http.post(
        "/api/v1/privacy/requests", json=_wish("erasure", silo.client_id), headers=dpo
    )
    package = federation.http.get(f"/api/v1/privacy/requests/{access['id']}/package", headers=dpo)

    assert again.status_code == 404
    assert (package.status_code, package.json["code"]) == (404, "NO_PACKAGE")


def test_an_update_in_an_open_round_goes_with_its_client(federation: Federation, dpo: dict[str, str]) -> None:
    """RULES 6: an update dropped before freezing contributes nothing; the round goes on."""
    leaving, staying = federation.register("leaving"), federation.register("staying")
    federation.http.post("/api/v1/rounds/1/close", headers=federation.operator)
    federation.work()
    federation.open_round(planned_clients=2)
    federation.submit(leaving, file_of(tensors(9.0)), number=2)
    federation.submit(staying, file_of(tensors(1.0)), number=2)

    _open(federation, dpo, "erasure", leaving)
    federation.http.post("/api/v1/rounds/2/close", headers=federation.operator)
    federation.work()

    assert (federation.round(2)["status"], federation.round(2)["num_updates"]) == ("completed", 1)


def test_approving_again_changes_nothing(federation: Federation, silo: Silo, dpo: dict[str, str]) -> None:
    """API.md: transitions by POST …/{id}/NAME; a request that is carried out stays as it is."""
    opened = _open(federation, dpo, "access", silo)

    again = federation.http.post(f"/api/v1/privacy/requests/{opened['id']}/approve", headers=dpo)
    unknown = federation.http.post(f"/api/v1/privacy/requests/{opened['id']}/sing", headers=dpo)
    late = federation.http.post(
        f"/api/v1/privacy/requests/{opened['id']}/refuse", json={"reason": "excessive"}, headers=dpo
    )

    assert (again.status_code, again.json["status"]) == (200, "completed")
    assert unknown.status_code == 404
    assert (late.status_code, late.json["code"]) == (409, "MOVE_NOT_ALLOWED")


def test_who_may_not_approve_leaves_the_request_received(federation: Federation, silo: Silo) -> None:
    """Without privacy:manage a request waits for somebody who has it."""
    new = federation.staff("dpo")
    narrow = _narrow(federation, "privacy:erase")

    opened = federation.http.post(
        "/api/v1/privacy/requests", json=_wish("erasure", silo.client_id), headers=narrow
    )
    approved = federation.http.post(f"/api/v1/privacy/requests/{opened.json['id']}/approve", headers=new)

    assert (opened.status_code, opened.json["status"]) == (201, "received")
    assert (approved.status_code, approved.json["status"]) == (200, "completed")


def test_each_type_needs_its_scope(federation: Federation, silo: Silo) -> None:
    """DESIGN: privacy:export for access, privacy:erase for erasure."""
    export, erase = _narrow(federation, "privacy:export"), _narrow(federation, "privacy:erase")

    crossed = [
        federation.http.post("/api/v1/privacy/requests", json=_wish(kind, silo.client_id), headers=headers)
        for kind, headers in (("erasure", export), ("access", erase))
    ]

    assert {answer.status_code for answer in crossed} == {403}


@pytest.mark.parametrize(
    ("wish", "status", "code"),
    [
        ({"type": "access", "subject": {}}, 422, "VALIDATION_FAILED"),
        ({"type": "access"}, 422, "VALIDATION_FAILED"),
        ({"type": "access", "subject": {"client_id": "x"}}, 422, "VALIDATION_FAILED"),
        (
            {"type": "burning", "subject": {"client_id": "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"}},
            422,
            "VALIDATION_FAILED",
        ),
        ({"type": "access", "subject": {"reference": "patient 7"}}, 422, "VALIDATION_FAILED"),
        (
            {"type": "access", "subject": {"silo": "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"}},
            422,
            "VALIDATION_FAILED",
        ),
        (
            {"type": "access", "subject": {"reference": "p", "silo": "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"}},
            404,
            "NOT_FOUND",
        ),
        (
            {"type": "access", "subject": {"client_id": "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"}},
            404,
            "NOT_FOUND",
        ),
        (
            {"type": "access", "subject": {"subject_id": "3f0c8b7e-2d1a-4c55-9b1e-5a7d20c4e9f1"}},
            404,
            "UNKNOWN_SUBJECT",
        ),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    federation: Federation, dpo: dict[str, str], wish: dict[str, object], status: int, code: str
) -> None:
    """Each with the member or the remedy named."""
    answer = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo)

    assert (answer.status_code, answer.json["code"]) == (status, code)


def test_the_specification_s_two_calls(federation: Federation, silo: Silo, services: Services) -> None:
    """Specification 7.1: the listing's members at least; `deleted` and a timestamp."""
    law = gdpr(services)

    data = law.export_client_data(silo.client_id)
    done = law.handle_deletion_request(silo.client_id)

    assert {"client_id", "registration_date", "participation_history", "training_statistics"} <= set(data)
    assert data["participation_history"][0]["round_number"] == 1
    assert data["training_statistics"]["reported"] == [{"num_samples": 7}]
    assert (done["status"], set(done)) == ("deleted", {"status", "timestamp"})


def test_budget_and_report_say_what_was_spent(federation: Federation, dpo: dict[str, str]) -> None:
    """API.md: decimal strings; a report names unit, mechanism, adjacency and planned count."""
    federation.add_model(tensors(), privacy_budget={"epsilon": 3.0, "delta": 1e-5})
    privacy = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}
    federation.open_round(privacy=privacy, planned_clients=1)
    federation.submit(federation.register(), UPDATE, number=2)
    federation.work()

    budget = federation.http.get("/api/v1/privacy/budget", headers=dpo).json["data"][-1]
    report = federation.http.get("/api/v1/privacy/report/2.1.0", headers=dpo).json
    uploaded = federation.http.get("/api/v1/privacy/report/2.0.0", headers=dpo)

    assert {"model_id", "epsilon_budget", "epsilon_spent", "delta"} <= set(budget)
    assert (budget["epsilon_budget"], budget["delta"]) == ("3.0", "0.00001")
    assert float(budget["epsilon_spent"]) == pytest.approx(0.9263, abs=1e-3)
    assert report["epsilon"] == budget["epsilon_spent"]
    assert (report["unit"], report["mechanism"], report["planned_clients"]) == ("client", "gaussian", 1)
    assert report["adjacency"] == "add-or-remove-one-unit"
    assert uploaded.status_code == 404


def test_the_two_keys_of_receipts_and_packages_differ(federation: Federation) -> None:
    """DESIGN: separate keys for separate kinds of signed things."""
    jwks = federation.http.get("/.well-known/jwks.json").json["keys"]

    assert len({key["x"] for key in jwks}) == len(jwks)
    assert sha256(json.dumps(jwks).encode()).digest()


def _wish(kind: str, client_id: str) -> dict[str, object]:
    return {"type": kind, "subject": {"client_id": client_id}}


def _open(federation: Federation, dpo: dict[str, str], kind: str, silo: Silo) -> dict[str, str]:
    answer = federation.http.post("/api/v1/privacy/requests", json=_wish(kind, silo.client_id), headers=dpo)
    assert answer.status_code == 201, answer.text
    opened: dict[str, str] = answer.json
    return opened


def _narrow(federation: Federation, scope: str) -> dict[str, str]:
    from gateway.auth.clients import add_client
    from gateway.auth.scopes import Role

    new = add_client(federation.services, "narrow", Role.DPO)
    answer = federation.http.post(
        "/oauth/token",
        data={"grant_type": "client_credentials", "scope": scope},
        auth=(new.client_id, new.client_secret),
    )
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


def _public_key(federation: Federation, kid: str) -> bytes:
    keys = federation.http.get("/.well-known/jwks.json").json["keys"]
    return _decoded(next(key["x"] for key in keys if key["kid"] == kid))


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def test_the_same_request_again_goes_on_with_the_first_case(
    federation: Federation, silo: Silo, dpo: dict[str, str]
) -> None:
    """API.md: Idempotency-Key on every POST that creates; case and key commit together."""
    headers = {**dpo, "Idempotency-Key": "erase once"}
    wish = _wish("erasure", silo.client_id)

    first = federation.http.post("/api/v1/privacy/requests", json=wish, headers=headers)
    again = federation.http.post("/api/v1/privacy/requests", json=wish, headers=headers)
    other = federation.http.post("/api/v1/privacy/requests", json={**wish, "type": "access"}, headers=headers)

    assert (first.status_code, first.json["status"]) == (201, "completed")
    assert (again.status_code, again.json) == (201, first.json)
    assert (other.status_code, other.json["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


def test_a_repetition_that_overtook_its_first_request_gets_its_answer(
    federation: Federation, silo: Silo, dpo: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looked for the key before the first one committed, finds the person erased, and is answered all the same."""
    headers, wish = {**dpo, "Idempotency-Key": "twice"}, _wish("erasure", silo.client_id)
    path, looks, look = "/api/v1/privacy/requests", iter([True]), idempotency.replayed
    first = federation.http.post(path, json=wish, headers=headers)

    monkeypatch.setattr(idempotency, "replayed", lambda *key: None if next(looks, False) else look(*key))
    second = federation.http.post(path, json=wish, headers=headers)
    other = federation.http.post(path, json=wish, headers={**dpo, "Idempotency-Key": "another"})

    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 404)
    assert second.json == first.json
