"""What the gateway puts into a person's package: all of it, described, proven, and no more than that is theirs."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from federation import Federation, Silo, file_of, tensors
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator, FormatChecker
from participations import add_participations, subject_of

from audit.checkpoint import NoteVerifier
from audit.draft import Personal
from audit.reading import reading
from audit.store import seqs_of_keys
from compliance.errors import BadPackage
from compliance.packages import own_entries
from compliance.packages.own_entries import OwnEntries
from compliance.packages.proving import verify_proofs
from compliance.requests.reasons import Exemption
from gateway.api.audit import log_vkey
from gateway.auth.clients import Move, move_client
from gateway.auth.people.place import subject_of_user
from gateway.cli import main
from gateway.exporting import participation
from gateway.exporting.participation import Participation
from gateway.places import ClientBook
from gateway.privacy import desk_parts, privacy_desk
from gateway.services import Services

UPDATE = file_of(tensors(0.5))


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """A federation in which one client took part in a completed round with noise."""
    made = Federation(services, http)
    made.add_model(privacy_budget={"epsilon": 3.0, "delta": 1e-5})
    privacy = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}
    made.open_round(planned_clients=1, privacy=privacy)
    return made


@pytest.fixture
def silo(federation: Federation) -> Silo:
    """The client that took part; its name would be a formula."""
    found = federation.register("=canary-device")
    federation.submit(found, UPDATE, headers={"X-Update-Metadata": '{"num_samples": 7}'})
    federation.work()
    assert federation.round()["status"] == "completed"
    federation.sequence()
    return found


@pytest.fixture
def dpo(federation: Federation) -> dict[str, str]:
    """Credentials of the data-protection officer."""
    return federation.staff("dpo")


def package_of(federation: Federation, dpo: dict[str, str], silo: Silo, kind: str = "access") -> bytes:
    """The package that answers a request."""
    wish = {"type": kind, "subject": {"client_id": silo.client_id}}
    opened = federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo)
    assert (opened.status_code, opened.json["status"]) == (201, "completed"), opened.text
    path = f"/api/v1/privacy/requests/{opened.json['id']}/package"
    content: bytes = federation.http.get(path, headers=dpo, buffered=True).data
    return content


@pytest.fixture
def package(federation: Federation, dpo: dict[str, str], silo: Silo) -> Iterator[zipfile.ZipFile]:
    """The client's package."""
    with zipfile.ZipFile(io.BytesIO(package_of(federation, dpo, silo))) as opened:
        yield opened


def rows_of(package: zipfile.ZipFile, name: str) -> list[dict[str, Any]]:
    """The rows of a JSON file."""
    rows: list[dict[str, Any]] = json.loads(package.read(name))
    return rows


def test_a_package_has_what_the_specification_lists(package: zipfile.ZipFile, silo: Silo) -> None:
    """Specification 7.1: client_id, registration_date, participation_history, training_statistics at least."""
    (client,) = rows_of(package, "data/clients.json")
    (update,) = rows_of(package, "data/participation_history.json")
    (totals,) = rows_of(package, "data/training_statistics.json")

    assert client["client_id"] == update["client_id"] == totals["client_id"] == silo.client_id
    assert client["registration_date"] <= update["submitted_at"] == totals["first_update_at"]
    assert (update["round_number"], update["status"], update["model_version"]) == (1, "counted", "1.1.0")
    assert update["training_metrics"] == {"num_samples": 7}
    assert (totals["updates"], totals["updates_counted"], totals["bytes_sent"]) == (1, 1, len(UPDATE))
    assert package.read(f"updates/{update['update_id']}.safetensors") == UPDATE


def test_each_table_fits_its_schema_and_its_csv(package: zipfile.ZipFile) -> None:
    """JSON Schema 2020-12 for each table; the CSV has the same rows, and no cell of it is a formula."""
    names = [name for name in package.namelist() if name.startswith("data/") and name.endswith(".json")]

    for name in names:
        category, rows = Path(name).stem, rows_of(package, name)
        schema = json.loads(package.read(f"schemas/{category}.schema.json"))
        Draft202012Validator(schema, format_checker=FormatChecker()).validate(rows)
        text = package.read(f"data/{category}.csv").decode()
        table = list(csv.reader(io.StringIO(text, newline="")))
        assert len(table) == len(rows) + 1, name
        assert not [cell for line in table for cell in line if cell[:1] in set("=+-@\t\r")], name
    assert {"data/clients.json", "data/invitations.json", "data/privacy_requests.json"} <= set(names)
    assert "'=canary-device" in package.read("data/clients.csv").decode()


def test_the_notice_answers_each_letter_of_article_15(package: zipfile.ZipFile) -> None:
    """Art. 15(1)(a) to (h), and (2); the categories are those of the data map."""
    notice = json.loads(package.read("article-15.json"))

    letters = {part["article"] for part in notice.values() if isinstance(part, dict)}
    assert letters == {*(f"15(1)({letter})" for letter in "abcdefgh"), "15(2)"}
    categories = {one["category"]: one for one in notice["categories"]["items"]}
    assert any(line.startswith("clients: ") for line in categories["identifier"]["data"])
    assert categories["contribution"]["legal_basis"] == ["Art. 6(1)(b)"]
    assert "controller" in notice


def test_what_the_desk_keeps_of_a_person_is_in_the_package(
    federation: Federation, dpo: dict[str, str], silo: Silo
) -> None:
    """Art. 15: since when it is known and restricted, what it asked to be put right, and holds without their matter."""
    subject = subject_of(federation.services, silo.client_id)
    wish = {"type": "rectification", "subject": {"client_id": silo.client_id}, "correction": {"name": "ada"}}
    assert federation.http.post("/api/v1/privacy/requests", json=wish, headers=dpo).status_code == 201
    restrict = {"type": "restriction", "subject": {"client_id": silo.client_id}}
    assert federation.http.post("/api/v1/privacy/requests", json=restrict, headers=dpo).status_code == 201
    desk = privacy_desk(federation.services)
    review_at = federation.services.clock() + timedelta(days=30)
    officer = Personal(subject, "dpo")
    hold = desk.holds.place(
        subject, matter="secret claim", basis=Exemption.LEGAL_CLAIMS, review_at=review_at, by=officer
    )

    with zipfile.ZipFile(io.BytesIO(package_of(federation, dpo, silo))) as package:
        (standing,) = rows_of(package, "data/standing.json")
        (held,) = rows_of(package, "data/legal_holds.json")
        asked = rows_of(package, "data/privacy_requests.json")

    assert (standing["subject_id"], standing["objected_at"]) == (subject, None)
    assert standing["known_since"] <= standing["restricted_at"]
    assert (held["id"], held["basis"], held["lifted_at"]) == (hold.id, Exemption.LEGAL_CLAIMS.value, None)
    assert "secret claim" not in json.dumps(held)
    assert [row["correction"] for row in asked if row["type"] == "rectification"] == [{"name": "ada"}]


@pytest.mark.parametrize(
    "whose", ["nonsense", "", "a\x00b", "00000000-0000-0000-0000-00000000000g", "x" * 5000]
)
def test_what_is_no_id_is_nobody_s(services: Services, whose: str) -> None:
    """A slip at the console is told as such on every database, and never as a fault of it."""
    found = ClientBook(services).subject_of(whose), subject_of_user(services, whose)

    assert found == (None, None)


def test_the_notice_names_recipients_and_terms_as_they_are_set(services: Services) -> None:
    """Art. 15(1)(c), (d): who gets the data by name, and how long each kind is kept."""
    sinks = "syslog+tls://siem.example:6514"
    config = replace(services.config, siem_sinks=sinks, retention="updates=90d", retention_apply=True)

    notice = desk_parts(replace(services, config=config)).notice("anybody")

    assert "siem.example: a SIEM, which gets pseudonyms" in notice["recipients"]["items"]
    terms = {line["category"]: line["most_days"] for line in notice["retention"]["schedule"]}
    assert terms["updates"] == 90
    assert terms["clients"] is None


def test_the_privacy_loss_in_each_model_is_told(package: zipfile.ZipFile) -> None:
    """Promise 9: what bounds the person's influence, as the budget has it."""
    (loss,) = rows_of(package, "data/privacy_loss.json")

    assert float(loss["epsilon"]) == pytest.approx(0.9263, abs=1e-3)
    assert (loss["delta"], loss["unit"], loss["rounds"]) == ("0.00001", "client", 1)
    assert "e^epsilon" in loss["meaning"]


def test_without_noise_no_bound_is_claimed(federation: Federation, dpo: dict[str, str], silo: Silo) -> None:
    """Promise 9: a plain statement that nothing holds, and no number."""
    federation.add_model()
    federation.open_round(planned_clients=1)
    federation.submit(silo, UPDATE, number=2)
    federation.work()

    with zipfile.ZipFile(io.BytesIO(package_of(federation, dpo, silo))) as package:
        losses = rows_of(package, "data/privacy_loss.json")

    (bare,) = [loss for loss in losses if loss["first_round"] == 2]
    assert (bare["epsilon"], bare["delta"]) == (None, None)
    assert bare["meaning"].startswith("Nothing bounds")


def test_own_entries_are_opened_beside_what_is_stored_and_proven(
    federation: Federation, package: zipfile.ZipFile, silo: Silo, tmp_path: Path
) -> None:
    """Each entry decrypted beside the stored form, one checkpoint, and a tlog-proof each; another's stays sealed."""
    rows = rows_of(package, "audit/entries.json")
    path = tmp_path / "package.zip"
    path.write_bytes(package.fp.getvalue())  # type: ignore[union-attr]
    log = NoteVerifier.parse(log_vkey(federation.services))

    proven = verify_proofs(path, log)

    assert proven == len(rows) >= 2
    (told,) = [row for row in rows if row["opened"]["event_type"] == "client.registered"]
    assert told["opened"]["details"]["client_id"] == silo.client_id
    assert silo.client_id not in told["stored"]
    assert json.loads(told["stored"])["seq"] == told["seq"]
    log.open(package.read("audit/checkpoint").decode())


@pytest.mark.parametrize("spoil", ["proof", "entry", "key"])
def test_an_entry_that_is_not_in_the_log_is_found(
    federation: Federation, package: zipfile.ZipFile, tmp_path: Path, spoil: str
) -> None:
    """A shown entry without a proof that holds is worth nothing."""
    path, log = tmp_path / "package.zip", NoteVerifier.parse(log_vkey(federation.services))
    files = {name: package.read(name) for name in package.namelist()}
    name = next(name for name in files if name.startswith("audit/proofs/"))
    if spoil == "proof":
        del files[name]
    elif spoil == "entry":
        files["audit/entries.json"] = files["audit/entries.json"].replace(b"success", b"failure", 4)
    else:
        log = NoteVerifier.of(log.name, bytes(32))
    with zipfile.ZipFile(path, "w") as out:
        for one, content in files.items():
            out.writestr(one, content)

    with pytest.raises(BadPackage):
        verify_proofs(path, log)


def test_a_portable_package_has_what_another_service_can_read(
    federation: Federation, dpo: dict[str, str], silo: Silo
) -> None:
    """Art. 20: what the person gave, by a request of its own type."""
    with zipfile.ZipFile(io.BytesIO(package_of(federation, dpo, silo, "portability"))) as package:
        names = package.namelist()
        (client,) = rows_of(package, "portability/clients.json")
        (update,) = rows_of(package, "portability/participation_history.json")

    assert client["client_id"] == silo.client_id
    assert client["name"] == "=canary-device"
    assert "receipt" not in update
    assert f"updates/{update['update_id']}.safetensors" in names
    assert not [name for name in names if name.startswith(("data/", "audit/"))]


def test_a_package_verifies_offline_with_saved_keys(
    federation: Federation, package: zipfile.ZipFile, tmp_path: Path
) -> None:
    """`fl-gateway privacy verify`: the file, the saved jwks.json and the log's key are all it takes."""
    (tmp_path / "package.zip").write_bytes(package.fp.getvalue())  # type: ignore[union-attr]
    (tmp_path / "jwks.json").write_bytes(federation.http.get("/.well-known/jwks.json").data)
    (tmp_path / "log.vkey").write_text(log_vkey(federation.services))
    words = ["privacy", "verify", str(tmp_path / "package.zip"), "--jwks", str(tmp_path / "jwks.json")]

    done = CliRunner().invoke(main, [*words, "--vkey", str(tmp_path / "log.vkey"), "--json"])
    plain = CliRunner().invoke(main, words)
    other = CliRunner().invoke(main, [*words[:3], "--key", "00" * 32])
    neither = CliRunner().invoke(main, words[:3])

    told = json.loads(done.output)
    assert (done.exit_code, told["ok"], told["kind"]) == (0, True, "package")
    assert told["proven_entries"] == len(rows_of(package, "audit/entries.json"))
    assert "the package is whole and signed by this gateway" in plain.output
    assert (other.exit_code, neither.exit_code) == (1, 2)


def test_rows_are_read_page_by_page_and_none_is_lost(
    services: Services, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Constant memory: pages by key; their seams lose and double nothing, in the log neither."""
    monkeypatch.setattr(participation, "_PAGE", 3)
    monkeypatch.setattr(own_entries, "_PAGE", 2)
    silo = federation.register("many")
    rounds = add_participations(services, silo.client_id, 10)
    for move in (Move.SUSPEND, Move.RESUME) * 3:
        move_client(services, silo.client_id, move)

    federation.sequence()
    subject = subject_of(services, silo.client_id)

    history, _statistics, _folder = Participation(services).updates(subject)
    (chosen,) = Participation(services).invitations(subject)
    entries, *_ = OwnEntries(services.engine, services.keystore, services.sealer).parts(subject)
    numbers = [row["round_number"] for row in history.rows]

    assert numbers == rounds
    assert [row["round_number"] for row in chosen.rows] == numbers
    seqs = [row["seq"] for row in entries.rows]
    assert seqs == seqs_of(services, subject)
    assert len(seqs) > 6


def seqs_of(services: Services, subject: str) -> list[int]:
    """The places of the person's entries, asked for at once."""
    keys = [row.key_id for row in services.keystore.keys_of(subject)]
    with reading(services.engine) as conn:
        return seqs_of_keys(conn, keys)
