"""Privacy reports and the record of processing: signed, proven by the log, the same over HTTP and at the console."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from living.home import home_in

from audit.checkpoint import NoteVerifier
from audit.proof import check_entry_proof, parse_proof
from compliance.datamap import describe
from compliance.evidence.model_report import report_text, signed_report, verify_report
from compliance.evidence.processing_record import record_page
from compliance.jws import BadJws, sign_compact
from compliance.keyring.keys import SigningUse
from compliance.requests import statements
from gateway.api.audit import log_vkey
from gateway.api.records import METADATAS, record_of
from gateway.auth.discovery import key_set
from gateway.cli import main
from gateway.services import Services

GAUSSIAN = {"mechanism": "gaussian", "unit": "client", "clip_norm": 1.0, "noise_multiplier": 4.0}
once_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PAGE = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


@pytest.fixture
def federation(services: Services, http: FlaskClient) -> Federation:
    """Two lineages with noise, whose rounds take turns: 1.1.0, 2.1.0, 1.2.0."""
    made = Federation(services, http)
    for _ in range(2):
        made.add_model(privacy_budget={"epsilon": 5.0, "delta": 1e-5})
    for number, base in enumerate(("1.0.0", "2.0.0", "1.1.0"), start=1):
        opened = made.open_round(base_version=base, privacy=GAUSSIAN, planned_clients=1)
        assert opened.status_code == 201, opened.text
        made.submit(made.register("canary-device"), file_of(tensors(0.5)), number=number)
        made.work()
    return made


def report(federation: Federation, version: str, **headers: str) -> Any:
    found = federation.http.get(
        f"/api/v1/privacy/report/{version}", headers=federation.staff("auditor") | headers
    )
    assert found.status_code == 200, found.text
    return found


def keys(services: Services) -> dict[str, bytes]:
    return {row.kid: row.public for row in services.keystore.public_keys()}


def test_every_ledger_line_is_proven_by_the_log(federation: Federation, services: Services) -> None:
    """Issue 7, Build 5: ledger lines with inclusion proofs; only those of the lineage, up to the version."""
    federation.sequence()

    told = report(federation, "1.2.0").json

    assert [line["round_number"] for line in told["ledger"]] == [1, 3]
    assert [line["round_number"] for line in report(federation, "1.1.0").json["ledger"]] == [1]
    verifier = NoteVerifier.parse(log_vkey(services))
    for line in told["ledger"]:
        proven = [check_entry_proof(parse_proof(entry["proof"]), verifier) for entry in line["entries"]]
        assert [entry.event_type for entry in proven] == ["privacy.spent", "round.completed"]
        details = [json.loads(entry.canonical)["details"] for entry in proven]
        assert {one["round_number"] for one in details} == {line["round_number"]}
        assert line["epsilon_in_log"] == details[0]["epsilon_spent"]
        assert line["mechanism"]["noise_multiplier"] == details[0]["noise_multiplier"]


def test_epsilon_is_the_accountant_s_and_agrees_with_the_log(
    federation: Federation, services: Services
) -> None:
    """Recomputed from the ledger; the log's own word stands beside it."""
    federation.sequence()

    first, second = (report(federation, version).json for version in ("1.1.0", "1.2.0"))

    assert float(first["epsilon"]) == pytest.approx(0.9263, abs=1e-3)
    assert float(first["epsilon"]) < float(second["epsilon"]) == float(second["accountant"]["epsilon_in_log"])
    assert second["accountant"]["agrees_with_log"] is True
    assert second["parameters"]["policy"]["mechanism"] == "gaussian"
    assert second["parameters"]["certificate"]["sigma"]
    assert second["log"] == {"origin": services.origin, "vkey": log_vkey(services)}


@once_only
def test_the_signature_is_over_the_report_itself(federation: Federation, services: Services) -> None:
    """A JWS of `fl-report+jwt` by a key of jwks.json; another key's, and a changed report, are refused."""
    federation.sequence()
    told = report(federation, "1.1.0").json
    other = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    payload = verify_report(told["signature"], keys(services))

    assert payload == {name: value for name, value in told.items() if name != "signature"}
    for wrong in (dict.fromkeys(keys(services), other), {}):
        with pytest.raises(BadJws):
            verify_report(told["signature"], wrong)


def _not_proven(report: dict[str, Any]) -> None:
    report["ledger"][1]["entries"] = []


def _other_noise(report: dict[str, Any]) -> None:
    report["ledger"][1]["mechanism"]["noise_multiplier"] = "9.0"


def _other_epsilon(report: dict[str, Any]) -> None:
    report["ledger"][1]["epsilon_in_log"] = "0.1"


def _another_round(report: dict[str, Any]) -> None:
    report["ledger"][1]["entries"] = report["ledger"][0]["entries"]


def _another_place(report: dict[str, Any]) -> None:
    report["ledger"][0]["entries"][0]["seq"] += 1


def _broken_proof(report: dict[str, Any]) -> None:
    entry = report["ledger"][0]["entries"][0]
    entry["proof"] = entry["proof"].replace("index ", "index 1", 1)


@once_only
@pytest.mark.parametrize(
    "lie", [None, _not_proven, _other_noise, _other_epsilon, _another_round, _another_place, _broken_proof]
)
def test_the_log_s_key_tells_whether_the_ledger_is_the_log_s(
    federation: Federation, services: Services, tmp_path: Path, lie: Callable[[dict[str, Any]], None] | None
) -> None:
    """`privacy verify --vkey`: a gateway that signs other figures than those it logged is caught, offline."""
    federation.sequence()
    told = report(federation, "1.2.0").json
    told.pop("signature")
    if lie is not None:
        lie(told)
    signed = signed_report(told, services.keystore.signing_key(SigningUse.RECEIPT))
    (tmp_path / "report.json").write_text(json.dumps(signed))
    (tmp_path / "jwks.json").write_text(json.dumps(key_set(services.keystore.public_keys())))
    (tmp_path / "log.vkey").write_text(log_vkey(services))
    wanted = ["--jwks", str(tmp_path / "jwks.json"), "--json"]

    plain = CliRunner().invoke(main, ["privacy", "verify", str(tmp_path / "report.json"), *wanted])
    wanted += ["--vkey", str(tmp_path / "log.vkey")]
    proven = CliRunner().invoke(main, ["privacy", "verify", str(tmp_path / "report.json"), *wanted])

    assert plain.exit_code == 0, plain.output
    assert proven.exit_code == (0 if lie is None else 1), proven.output
    assert json.loads(proven.output).get("proven_entries") == (4 if lie is None else None)


@once_only
def test_a_key_of_the_log_is_refused_for_what_has_no_proof(
    federation: Federation, services: Services, tmp_path: Path
) -> None:
    """Nobody may take a text for proven because an option was ignored."""
    federation.sequence()
    text = sign_compact(statements.TYPE, {}, services.keystore.signing_key(SigningUse.RECEIPT))
    (tmp_path / "statement.jws").write_text(text)
    (tmp_path / "jwks.json").write_text(json.dumps(key_set(services.keystore.public_keys())))
    (tmp_path / "log.vkey").write_text(log_vkey(services))
    given = [str(tmp_path / "statement.jws"), "--jwks", str(tmp_path / "jwks.json")]

    done = CliRunner().invoke(main, ["privacy", "verify", *given, "--vkey", str(tmp_path / "log.vkey")])

    assert done.exit_code == 2
    assert "--vkey" in done.output


@once_only
def test_a_line_without_a_place_in_the_log_is_told_as_such(federation: Federation) -> None:
    """Before the sequencer ran: no proof, and nothing to compare."""
    told = report(federation, "1.1.0").json

    assert told["ledger"][0]["entries"] == []
    assert told["accountant"]["agrees_with_log"] is None
    assert "not yet" in report_text(told)


@once_only
def test_a_release_without_noise_claims_nothing(services: Services, http: FlaskClient) -> None:
    """No ledger line, no epsilon, and a page that says so."""
    made = Federation(services, http)
    made.add_model()
    made.open_round(planned_clients=1)
    made.submit(made.register(), file_of(tensors(0.5)))
    made.work()

    told, page = report(made, "1.1.0").json, report(made, "1.1.0", **PAGE).text

    assert (told["epsilon"], told["ledger"]) == (None, [])
    assert "no epsilon is claimed" in page
    assert "No release with noise is counted." in page


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "style", "onclick")]


@once_only
@pytest.mark.parametrize("path", ["report/1.1.0", "records"])
def test_evidence_as_a_page_needs_no_script_and_no_network(federation: Federation, path: str) -> None:
    """For people: one file, nothing loaded, a policy that allows its own style alone."""
    federation.sequence()
    answer = federation.http.get(f"/api/v1/privacy/{path}", headers=federation.staff("auditor") | PAGE)

    page, policy = Page(answer.text), answer.headers["Content-Security-Policy"]

    assert answer.mimetype == "text/html"
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert page.links == []
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert page.tags.count("h1") == 1


@once_only
def test_a_report_names_nobody(federation: Federation) -> None:
    """It is for authorities and the public: no device, no subject, no client."""
    federation.sequence()
    found = federation.http.get("/api/v1/clients", headers=federation.operator).json["data"]

    told = report(federation, "1.2.0").text

    assert "canary-device" not in told
    assert not any(client["client_id"] in told for client in found)


# The record of processing


@once_only
def test_the_record_has_every_personal_column_of_the_data_map(federation: Federation) -> None:
    """Art. 30(1): made from the map, so a new column is in it at once."""
    told = federation.http.get("/api/v1/privacy/records", headers=federation.staff("dpo")).json

    listed = {column for one in told["categories"] for column in one["columns"]}
    assert listed == {f"{one.table}.{one.column}" for one in describe(METADATAS) if one.is_personal}
    assert all(one["legal_basis"] and one["retention"] and one["erased_by"] for one in told["categories"])
    assert {"controller", "purposes", "data_subjects", "recipients", "transfers", "security_measures"} <= set(
        told
    )


@once_only
def test_the_record_names_stores_and_recipients_without_their_secrets(
    services: Services,
) -> None:
    """Art. 30(1)(d), (e): hosts and regions; never a user, a password or an address of a person."""
    config = replace(
        services.config,
        database_url="postgresql+psycopg://app:pass-word@db.example/fl",
        queue_url="amqps://flg:pass-word@mq.example/vhost",
        blob_url="s3://bucket/prefix",
        s3_region="eu-central-1",
        siem_sinks="syslog+tls://siem.example:6514,file:./x.jsonl",
        notices="smtps://mail.example?from=g@fl.example&to=dpo@fl.example",
        controller="Example Hospital",
        dpo_contact="dpo office",
    )

    told = json.dumps(record_of(replace(services, config=config)))

    for host in ("db.example", "mq.example", "eu-central-1", "siem.example", "mail.example", "dpo office"):
        assert host in told
    assert "pass-word" not in told
    assert "dpo@fl.example" not in told


def test_the_record_has_the_terms_of_the_schedule(services: Services) -> None:
    """Art. 30(1)(f): the envisaged time limits, as they are set; and what is set but only reported."""
    config = replace(services.config, retention="updates=90d", retention_apply=False)

    record = record_of(replace(services, config=config))

    terms = {line["category"]: line["most_days"] for line in record["retention_schedule"]["terms"]}
    assert (terms["updates"], terms["clients"]) == (90, None)
    assert record["retention_schedule"]["is_applied"] is False
    assert "<td>updates</td><td>" in record_page(record)


@once_only
def test_a_missing_controller_is_said_to_be_missing(federation: Federation) -> None:
    """An empty setting is no answer."""
    told = federation.http.get("/api/v1/privacy/records", headers=federation.staff("dpo")).json

    assert told["controller"] == "not set: FLG_CONTROLLER"
    assert told["data_protection_officer"] == "not set: FLG_DPO_CONTACT"


# At the console


def test_the_commands_write_what_http_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`privacy records`: text, JSON, a page; another file name is refused."""
    with home_in(tmp_path / "home") as home:
        monkeypatch.chdir(home.directory)
        for name, value in home.environment().items():
            monkeypatch.setenv(name, value)
        run = CliRunner().invoke
        text, as_json = run(main, ["privacy", "records"]), run(main, ["privacy", "records", "--json"])
        page = run(main, ["privacy", "records", "-o", "record.html"])
        wrong = run(main, ["privacy", "records", "-o", "record.pdf"])
        missing = run(main, ["privacy", "report", "1.1.0"])

        assert "category: identifier" in text.output
        assert json.loads(as_json.output)["categories"]
        assert (home.directory / "record.html").read_text().startswith("<!doctype html>")
        assert (page.exit_code, wrong.exit_code, missing.exit_code) == (0, 2, 2)
        assert "There is no such model version" in missing.output
