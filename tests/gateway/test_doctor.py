"""The doctor: every setting has a check, every fault names its setting, and rows are compared with blobs."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blob_stores import Servers, Shelf, shelf
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.kms import CREDENTIALS
from sqlalchemy import select

from audit.checkpoint import SignedTree
from audit.reading import reading
from compliance.tables import privacy_requests
from gateway.cli import main
from gateway.config import Config
from gateway.doctor import CHECKS, Comparison, Finding, compare, examine
from gateway.doctor.stores import LATER
from gateway.log_key import log_keys
from gateway.services import Services, open_services
from gateway.storage.durable import replace_file
from gateway.storage.master_key import KEY_FILE
from gateway.storage.state import open_state
from gateway.tables import client_updates, model_versions

GOOD = file_of(tensors(0.5))
PROVIDER = '{"issuer": "%s", "client_id": "gateway", "client_secret": "x"}'


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """The settings of a gateway that was started once, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["db", "upgrade"])
    assert done.exit_code == 0, done.output
    return Config()


def _faults(config: Config) -> dict[str, str]:
    return {found.name: found.said for found in examine(config) if not found.is_good}


# Settings and stores


def test_every_setting_is_looked_at_by_some_check() -> None:
    """`fl-gateway doctor` checks every one of them: a new setting needs one, too."""
    looked_at = [name for check in CHECKS for name in check.answers_for]

    assert sorted(set(looked_at)) == sorted(field.name for field in fields(Config))


def test_a_gateway_in_order_has_no_fault(whole: Config) -> None:
    """Also before its first start, where most is yet to be made."""
    assert _faults(whole) == {}
    fresh = replace(whole, database_url="sqlite:///new/main.db", keystore_url="sqlite:///new/keys.db")
    assert _faults(replace(fresh, state_url="file:new/state")) == {}
    assert not Path("new").exists()  # to look makes nothing


@pytest.mark.parametrize(
    ("settings", "check", "named"),
    [
        ({"database_url": "postgresql+psycopg://a@127.0.0.1:1/b"}, "database", "FLG_DATABASE_URL"),
        ({"keystore_url": "postgresql+psycopg://a@127.0.0.1:1/b"}, "key store", "FLG_KEYSTORE_URL"),
        ({"keystore_url": "sqlite:///./fl-gateway.db"}, "key store", "FLG_KEYSTORE_URL"),
        ({"state_url": "file:fl-gateway.db/state"}, "state", "FLG_STATE_URL"),
        ({"master_key": "abc"}, "master key", "FLG_MASTER_KEY"),
        ({"blob_url": "ftp:x"}, "blobs", "FLG_BLOB_URL"),
        ({"blob_url": "file:/proc/none"}, "blobs", "FLG_BLOB_URL"),
        ({"tlog_publish": "ftp:x"}, "published log", "FLG_TLOG_PUBLISH"),
        ({"tlog_publish": "file:fl-gateway.db/tlog"}, "published log", "FLG_TLOG_PUBLISH"),
        ({"queue_url": "amqp://a:b@127.0.0.1:1/"}, "queue", "FLG_QUEUE_URL"),
        ({"cache_url": "redis://127.0.0.1:1"}, "cache", "FLG_CACHE_URL"),
        ({"model_download": "redirect"}, "cache", "FLG_MODEL_DOWNLOAD"),
        ({"siem_sinks": "smoke:signal"}, "SIEM sinks", "FLG_SIEM_SINKS"),
        ({"webhook_url": "http://example.org/"}, "webhook", "FLG_WEBHOOK_URL"),
        ({"timezone": "Mars/Olympus"}, "privacy requests", "FLG_TIMEZONE"),
        ({"holidays": "2026-02-30"}, "privacy requests", "FLG_HOLIDAYS"),
        ({"erasure_approvals": 3}, "privacy requests", "FLG_ERASURE_APPROVALS"),
        ({"public_url": "gateway.example"}, "public URL", "FLG_PUBLIC_URL"),
        ({"public_url": "http://gateway.example"}, "public URL", "FLG_PUBLIC_URL"),
        ({"public_url": "https://gateway.example"}, "public URL", "FLG_TRUSTED_PROXY"),
        ({"issuer": "https://gateway.example?x=1"}, "public URL", "FLG_ISSUER"),
        ({"trusted_proxy": "perhaps"}, "TLS front", "FLG_TRUSTED_PROXY"),
        ({"trusted_proxy": "0.0.0.0/0"}, "TLS front", "FLG_TRUSTED_PROXY"),
        ({"openid_provider": '{"issuer": "x"}'}, "OpenID provider", "FLG_OPENID_PROVIDER"),
        (
            {"openid_provider": PROVIDER % "https://idp.example", "public_url": ""},
            "OpenID provider",
            "FLG_PUBLIC_URL",
        ),
        ({"trusted_issuers": '[{"issuer": "x"}]'}, "trusted issuers", "FLG_TRUSTED_ISSUERS"),
        ({"rate_limits": "many"}, "rate limits", "FLG_RATE_LIMITS"),
        ({"rate_limits": "update=5/minute"}, "rate limits", "FLG_RATE_LIMITS"),
        ({"evaluate": "no hook"}, "evaluation", "FLG_EVALUATE"),
        ({"evaluate": "nowhere.to.be.found:hook"}, "evaluation", "FLG_EVALUATE"),
        ({"acme_server": "http://acme.example"}, "certificates", "FLG_ACME_SERVER"),
        ({"engine": "dask://x"}, "aggregation", "FLG_ENGINE"),
        ({"crash_at": "update.blob"}, "aggregation", "FLG_CRASH_AT"),
        ({"upload_threads": 20}, "limits", "FLG_WEB_THREADS"),
        ({"token_ttl_s": 0}, "limits", "FLG_TOKEN_TTL_S"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_fault_is_found_by_its_check_alone_and_names_the_setting(
    whole: Config, settings: dict[str, Any], check: str, named: str
) -> None:
    """One line says what to mend, and every other check is made all the same."""
    faults = _faults(replace(whole, **settings))

    assert list(faults) in ([check], [check, "cache"])  # the cache's way out depends on the blobs' place
    assert named in faults[check]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"s3_secret_access_key": "another"}, "FLG_S3_SECRET_ACCESS_KEY"),
        ({"blob_url": "s3://no"}, "FLG_BLOB_URL"),
    ],
    ids=["secret", "bucket"],
)
def test_a_bucket_is_tried_in_earnest(
    whole: Config, s3_servers: Servers, tmp_path: Path, settings: dict[str, str], named: str
) -> None:
    """A probe is written, read and removed with the keys that are set."""
    with shelf("s3rver", s3_servers, tmp_path) as made:
        good = replace(whole, **made.settings)

        assert _faults(good) == {}
        assert list(made.store.names()) == []
        assert named in _faults(replace(good, **settings))["blobs"]


def test_a_master_key_that_others_can_read_is_a_fault(whole: Config) -> None:
    """It wraps every other key."""
    KEY_FILE.parent.mkdir(exist_ok=True)
    KEY_FILE.write_text("5a" * 32)
    KEY_FILE.chmod(0o644)

    assert "chmod 600" in _faults(whole)["master key"]


def test_an_old_database_beside_a_newer_state_is_a_fault(whole: Config) -> None:
    """A database put back by hand lacks what was signed since: nothing may be built on it."""
    state = open_state(whole.state_url)
    state.advance_checkpoint(None, SignedTree(state.origin(""), 10, bytes(32)))

    assert "fl-gateway restore" in _faults(whole)["database"]


def _run(*words: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *words])


def test_the_command_tells_people_and_machines_and_exits_1_on_a_fault(
    whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 0 on success, 1 on a finding."""
    good = _run()
    monkeypatch.setenv("FLG_SIEM_SINKS", "smoke:signal")
    bad, told = _run(), _run("--json")

    assert (good.exit_code, bad.exit_code, told.exit_code) == (0, 1, 1)
    assert "MEND  SIEM sinks:      FLG_SIEM_SINKS" in bad.stdout
    faults = [found for found in json.loads(told.stdout) if not found["is_good"]]
    assert [found["name"] for found in faults] == ["SIEM sinks"]


def test_deep_without_blobs_is_wrong_usage(whole: Config) -> None:
    """Exit 2."""
    assert _run("--deep").exit_code == 2


def test_the_command_compares_rows_and_blobs(whole: Config) -> None:
    """An empty gateway lacks nothing; a blob that no row names is told, and is no fault."""
    Path("blobs/ab").mkdir(parents=True)
    Path("blobs/ab", "ab" * 16).write_bytes(b"x")

    done, told = _run("--blobs"), _run("--blobs", "--deep", "--json")

    assert (done.exit_code, told.exit_code) == (0, 0)
    assert f"no row names {'ab' * 16} (1 bytes, 0.0 h old)" in done.stdout
    assert json.loads(told.stdout)["nameless"][0]["name"] == "ab" * 16


# Rows and blobs


@pytest.fixture(params=["file", "checking"])
def store(request: pytest.FixtureRequest, s3_servers: Servers, tmp_path: Path) -> Iterator[Shelf]:
    """The blobs' place."""
    with shelf(request.param, s3_servers, tmp_path / "blobs") as made:
        yield made


@pytest.fixture
def federation(
    request: pytest.FixtureRequest, store: Shelf, config: Config, http: FlaskClient, services: Services
) -> Federation:
    """A federation with a model, a round and two updates, one of them sent as .npz."""
    made = Federation(services, http)
    assert made.add_model().status_code == 201
    made.open_round()
    archive = io.BytesIO()
    np.savez(archive, **tensors(0.25))
    assert made.submit(made.register(), GOOD).status_code == 202
    assert made.submit(made.register(), archive.getvalue()).status_code == 202
    return made


@pytest.fixture
def config(request: pytest.FixtureRequest, config: Config) -> Config:
    """Settings with that place, where the test has one."""
    if "store" not in request.fixturenames:
        return config
    made: Shelf = request.getfixturevalue("store")
    return replace(config, **made.settings)


on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def _lacks(found: Comparison) -> list[tuple[str, str]]:
    return [(lack.row, lack.what) for lack in found.lacks]


def _update_blob(services: Services) -> str:
    with reading(services.engine) as conn:
        return str(conn.execute(select(client_updates.c.blob_id).limit(1)).scalar_one())


def _model_blob(services: Services) -> str:
    with reading(services.engine) as conn:
        url = conn.execute(select(model_versions.c.model_blob_url)).scalar_one()
    return str(url).removeprefix("blob:")


def test_rows_that_have_their_blobs_lack_nothing(federation: Federation, services: Services) -> None:
    """Models, updates (also those that came as .npz), and after a round, too; on SQLite and PostgreSQL."""
    before = compare(services, deep=True)
    federation.work()

    assert (before.rows, _lacks(before)) == (3, [])
    assert (_lacks(compare(services, deep=True)), compare(services).rows) == ([], 4)


@on_sqlite
@pytest.mark.parametrize("what", ["missing", "wrong size", "damaged"])
def test_a_row_without_its_whole_blob_is_told(
    federation: Federation, services: Services, store: Shelf, what: str
) -> None:
    """What is damaged and has the right length is found by reading it."""
    for blob in (_model_blob(services), _update_blob(services)):
        raw = store.raw(blob)
        if what == "missing":
            services.blobs.delete(blob)
        else:
            store.spoil(blob, raw[:-1] + bytes([raw[-1] ^ 1]) if what == "damaged" else raw + b"x" * 40)

    quick, deep = compare(services), compare(services, deep=True)

    assert _lacks(deep) == [("model 1.0.0", what), ("update", what)]
    assert _lacks(quick) == ([] if what == "damaged" else _lacks(deep))


@on_sqlite
def test_an_export_package_is_compared_too(federation: Federation, services: Services) -> None:
    """It is encrypted under a key of its own, and lies there for a week."""
    silo = federation.register()
    wish = {"type": "access", "subject": {"client_id": silo.client_id}}
    asked = federation.http.post("/api/v1/privacy/requests", json=wish, headers=federation.staff("dpo"))
    federation.worker.run_once()
    before = compare(services, deep=True)
    with reading(services.engine) as conn:
        package = conn.execute(select(privacy_requests.c.package_blob)).scalar_one()
    services.blobs.delete(package)

    assert asked.status_code == 201, asked.text
    assert (before.rows, _lacks(before)) == (5, [])  # two models, two updates, and the package
    assert _lacks(compare(services)) == [("export package", "missing")]


# Keys


def _finding(config: Config, name: str) -> Finding:
    (found,) = [found for found in examine(config) if found.name == name]
    return found


def _pem(path: Path) -> str:
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return f"file:{path}"


def test_an_unfinished_rotation_of_the_master_key_is_told(whole: Config) -> None:
    """Both keys are needed until the command has been given again."""
    replace_file(KEY_FILE, f"{'77' * 32}\n{'5a' * 32}".encode())

    assert "keys rotate master" in _finding(whole, "master key").said


def test_the_log_s_key_is_opened_and_tried(whole: Config, tmp_path: Path) -> None:
    """In a file: it signs; another one than the log's is told before the sequencer stumbles over it."""
    first, other = (replace(whole, log_key=_pem(tmp_path / f"{name}.pem")) for name in ("first", "other"))
    before = _finding(whole, "log key")
    with_file = _finding(first, "log key")
    services = open_services(first, part="console")
    log_keys(services).first()
    services.close()

    assert (before.is_good, before.said) == (True, f"in the key store; it {LATER}")
    assert (with_file.is_good, with_file.said) == (True, "file: it signs")
    assert _finding(first, "log key").is_good
    assert "keys rotate log" in _finding(other, "log key").said


def test_a_kms_that_does_not_answer_is_told_for_each_key(
    whole: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FLG_KMS_ENDPOINT_URL is what to look at."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    Path("keys/master.kms").write_text("AAAA")
    Path("keys/master.kms").chmod(0o600)
    away = replace(whole, master_key="aws-kms:k", log_key="aws-kms:l", kms_endpoint_url="http://127.0.0.1:1")

    faults = _faults(away)

    assert {name for name, said in faults.items() if "FLG_KMS_ENDPOINT_URL" in said} == {
        "master key",
        "log key",
    }
