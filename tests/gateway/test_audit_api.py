"""The log over HTTP: entries as stored, in order, with proofs that an outsider can check."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from federation import Federation
from flask.testing import FlaskClient

from audit.checkpoint import NoteVerifier
from audit.entry import parse_entry
from audit.errors import AuditError
from audit.merkle import verify_consistency, verify_inclusion
from audit.verify import verify_bundle
from gateway.api.audit import log_vkey
from gateway.services import Services


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation whose log has some entries in a signed tree."""
    made = Federation(services, http)
    made.add_model()
    for number in range(3):
        made.register(f"silo {number}")
    made.sequence()
    return made


@pytest.fixture
def auditor(federation: Federation) -> dict[str, str]:
    """Credentials with audit:read."""
    return federation.staff("auditor")


def test_entries_are_shown_as_stored(federation: Federation, auditor: dict[str, str]) -> None:
    """API.md: `after` and `limit`, no `after`: from the first; `data` holds entries as stored."""
    first = federation.http.get("/api/v1/audit/entries?limit=2", headers=auditor).json["data"]
    rest = federation.http.get("/api/v1/audit/entries?after=1&limit=1000", headers=auditor).json["data"]
    paged = federation.http.get("/api/v1/audit/entries?page=2&per_page=2", headers=auditor).json

    assert [entry["seq"] for entry in first] == [0, 1]
    assert rest[0]["seq"] == 2
    assert [entry["seq"] for entry in paged["data"]] == [2, 3]
    assert first[0]["prev"] == "0" * 64
    assert set(rest[0]["actor"]) == {"enc", "key"}


def test_a_proof_over_http_proves(federation: Federation, auditor: dict[str, str]) -> None:
    """API.md: `{hashes: [base64]}` of inclusion and consistency, against the checkpoint."""
    note = federation.http.get("/api/v1/audit/checkpoint", headers=auditor).text
    tree = NoteVerifier.parse(log_vkey(federation.services)).open(note)
    raw = federation.http.get("/api/v1/audit/entries/2", headers=auditor).data

    answer = federation.http.get(f"/api/v1/audit/proof/inclusion?seq=2&size={tree.size}", headers=auditor)
    hashes = [base64.b64decode(one) for one in answer.json["hashes"]]

    leaf = parse_entry(raw).leaf()
    verify_inclusion(leaf, 2, tree.size, hashes, tree.root)
    with pytest.raises(AuditError):
        verify_inclusion(leaf, 1, tree.size, hashes, tree.root)


def test_growth_over_http_is_consistent(federation: Federation, auditor: dict[str, str]) -> None:
    """The tree of an older checkpoint is the beginning of the newer one."""
    verifier = NoteVerifier.parse(log_vkey(federation.services))
    old = verifier.open(federation.http.get("/api/v1/audit/checkpoint", headers=auditor).text)
    federation.register("later")
    federation.sequence()
    new = verifier.open(federation.http.get("/api/v1/audit/checkpoint", headers=auditor).text)

    answer = federation.http.get(
        f"/api/v1/audit/proof/consistency?from={old.size}&to={new.size}", headers=auditor
    )

    verify_consistency(
        old.size, new.size, old.root, new.root, [base64.b64decode(one) for one in answer.json["hashes"]]
    )


def test_the_bundle_verifies_offline(federation: Federation, auditor: dict[str, str], tmp_path: Path) -> None:
    """DESIGN: `GET /api/v1/audit/bundle`; the export is an entry itself."""
    answer = federation.http.get("/api/v1/audit/bundle", headers=auditor, buffered=True)
    bundle = tmp_path / "bundle.zip"
    bundle.write_bytes(answer.data)

    verdict = verify_bundle(bundle, vkey=log_vkey(federation.services))

    assert answer.status_code == 200
    assert verdict.ok, verdict.problem
    federation.sequence()
    last = federation.http.get("/api/v1/audit/entries?limit=1000", headers=auditor).json["data"][-1]
    assert last["event_type"] == "audit.exported"


@pytest.mark.parametrize(
    "path",
    [
        "entries?limit=0",
        "entries?limit=1001",
        "entries?after=-1",
        "proof/inclusion",
        "proof/inclusion?seq=999999",
        "proof/inclusion?seq=0&size=999999",
        "proof/consistency?from=0",
        "proof/consistency?from=5&to=3",
    ],
)
def test_a_question_without_an_answer_is_refused(
    federation: Federation, auditor: dict[str, str], path: str
) -> None:
    """Bad values: 422 VALIDATION_FAILED."""
    answer = federation.http.get(f"/api/v1/audit/{path}", headers=auditor)

    assert (answer.status_code, answer.json["code"]) == (422, "VALIDATION_FAILED")


def test_there_is_no_bundle_before_the_first_checkpoint(services: Services, http: FlaskClient) -> None:
    """It is not there yet, as the checkpoint is not: 404, neither an error of ours nor an entry about an export."""
    auditor = Federation(services, http).staff("auditor")

    answers = [http.get(f"/api/v1/audit/{path}", headers=auditor) for path in ("bundle", "checkpoint")]

    assert [(answer.status_code, json.loads(answer.data)["code"]) for answer in answers] == [
        (404, "NOT_FOUND")
    ] * 2


def test_the_log_is_for_those_who_may_read_it(federation: Federation) -> None:
    """Every route of the log needs audit:read."""
    silo = federation.register()
    paths = (
        "entries",
        "entries/0",
        "checkpoint",
        "proof/inclusion?seq=0",
        "proof/consistency?from=1",
        "bundle",
    )

    answers = [federation.http.get(f"/api/v1/audit/{path}", headers=silo.headers) for path in paths]

    assert {answer.status_code for answer in answers} == {403}
    assert all(json.loads(answer.data)["code"] == "INSUFFICIENT_SCOPE" for answer in answers)
