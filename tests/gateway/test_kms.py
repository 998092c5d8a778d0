"""Keys in AWS KMS: the master key in an envelope, the log's key never outside; an outage delays, and says so."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask.testing import FlaskClient
from living.driver import await_that
from services.clock import FixedClock
from services.kms import CREDENTIALS, EnvelopeService, SigningService, envelope_service, signing_service

from audit.checkpoint import NoteVerifier, parse_note
from audit.events import EventType, Retention
from audit.reading import reading
from audit.store import latest_checkpoint, tree_size
from compliance.keyring.keys import SigningUse
from compliance.keyring.wrapping import MasterKey
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.key_rotation import begin_announced, rotate_master_key, rotate_signing_key
from gateway.log_key import log_keys
from gateway.parts.sequencing import run_sequencer, sequencer_of
from gateway.parts.starting import recover
from gateway.services import Services, open_services
from gateway.storage.kms import KmsAway
from gateway.storage.master_key import MasterKeys

PART = Retention.PARTICIPATION
NOWHERE = "http://127.0.0.1:1"
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    """What boto3 finds by its own search, and nothing of this machine's."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in {**CREDENTIALS, "AWS_EC2_METADATA_DISABLED": "true"}.items():
            patch.setenv(name, value)
        yield


# The master key


@pytest.fixture(scope="module")
def envelopes(credentials: None) -> Iterator[EnvelopeService]:
    """moto."""
    with envelope_service() as service:
        yield service


@pytest.fixture
def in_kms(envelopes: EnvelopeService) -> Config:
    """Settings with the master key in an envelope."""
    return Config(master_key=f"aws-kms:{envelopes.key_id}", kms_endpoint_url=envelopes.url)


def master_keys(config: Config, folder: Path) -> MasterKeys:
    """The master keys of a process that just started."""
    return MasterKeys(config, file=folder / "master.key", kms_file=folder / "master.kms")


def test_the_master_key_is_made_once_and_its_plain_bytes_are_on_no_disk(
    in_kms: Config, tmp_path: Path
) -> None:
    """Envelope encryption: every start has KMS open the same envelope."""
    (first,), (again,) = master_keys(in_kms, tmp_path).load(), master_keys(in_kms, tmp_path).load()

    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert first == again
    assert len(first) == 32
    assert first not in files
    assert first.hex().encode() not in files
    assert (tmp_path / "master.kms").stat().st_mode & 0o777 == 0o600


def test_an_envelope_opens_as_a_master_key_alone(
    in_kms: Config, envelopes: EnvelopeService, tmp_path: Path
) -> None:
    """The encryption context binds it to its use: another program's envelope under the same key is refused."""
    made = envelopes.client().generate_data_key(KeyId=envelopes.key_id, KeySpec="AES_256")
    (tmp_path / "master.kms").touch(mode=0o600)
    (tmp_path / "master.kms").write_text(base64.b64encode(made["CiphertextBlob"]).decode())

    with pytest.raises(KmsAway, match="did not make the envelope"):
        master_keys(in_kms, tmp_path).load()


def test_a_master_key_is_opened_once_a_process(credentials: None, tmp_path: Path) -> None:
    """A web request never waits for KMS: after the start it is not asked again."""
    with envelope_service() as passing:
        keys = master_keys(
            Config(master_key=f"aws-kms:{passing.key_id}", kms_endpoint_url=passing.url), tmp_path
        )
        before = keys.load()

    assert keys.load() == before


def test_the_master_key_moves_from_a_file_into_kms(in_kms: Config, tmp_path: Path) -> None:
    """Both are named while it moves, the new place first."""
    (old,) = master_keys(Config(), tmp_path).load()
    both = replace(in_kms, master_key=f"{in_kms.master_key},file:{tmp_path / 'master.key'}")

    new, still = master_keys(both, tmp_path).load()

    assert still == old
    assert [new] == master_keys(in_kms, tmp_path).load()


@on_sqlite
def test_a_master_key_in_kms_is_rotated(
    config: Config,
    clock: FixedClock,
    services: Services,
    in_kms: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A new envelope; the old one is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    wanted = replace(config, master_key=in_kms.master_key, kms_endpoint_url=in_kms.kms_endpoint_url)
    opened = open_services(wanted, part="console", clock=clock)
    key = opened.keystore.key_for("person", PART, clock())

    done = rotate_master_key(opened, grace_s=0, sleep=lambda _: None)

    opened.close()
    (new,) = MasterKeys(wanted).load()
    assert done.new_kid == MasterKey(new).kids[0] != done.old_kid
    assert len((tmp_path / "keys" / "master.kms").read_text().split()) == 1
    again = open_services(wanted, part="web", clock=clock)
    assert again.keystore.find(key.key_id) == key
    again.close()


def test_a_kms_that_is_away_at_the_start_is_told_within_seconds(in_kms: Config, tmp_path: Path) -> None:
    """With the setting to look at, and without the credentials."""
    master_keys(in_kms, tmp_path).load()
    began_s = time.monotonic()

    with pytest.raises(KmsAway, match="FLG_KMS_ENDPOINT_URL") as told:
        master_keys(replace(in_kms, kms_endpoint_url=NOWHERE), tmp_path).load()

    assert time.monotonic() - began_s < 20
    assert CREDENTIALS["AWS_ACCESS_KEY_ID"] not in str(told.value)


def test_without_credentials_the_operator_is_told_where_boto3_looks(
    in_kms: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no settings of ours."""
    for name in CREDENTIALS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(KmsAway, match="boto3 finds no credentials"):
        master_keys(in_kms, tmp_path).load()


def test_a_file_that_holds_no_envelope_is_told(in_kms: Config, tmp_path: Path) -> None:
    """Not as a fault of the program."""
    (tmp_path / "master.kms").touch(mode=0o600)
    (tmp_path / "master.kms").write_text("no base64!")

    with pytest.raises(ConfigError, match="envelopes of KMS"):
        master_keys(in_kms, tmp_path).load()


# The log's key


@pytest.fixture
def kms(credentials: None) -> Iterator[SigningService]:
    """A KMS that signs."""
    with signing_service() as service:
        yield service


@pytest.fixture
def signed_there(services: Services, kms: SigningService) -> Services:
    """A gateway whose log key is in KMS from the first start on."""
    wanted = replace(services.config, log_key=f"aws-kms:{kms.new_key()}", kms_endpoint_url=kms.url)
    made = replace(services, config=wanted)
    recover(made)
    return made


def sequence(services: Services) -> str:
    """Sequence one more entry; the newest checkpoint."""
    services.trail.note(EventType.SERVER_STOPPED, mode="web")
    sequencer_of(services).run_once()
    begin_announced(services)
    return newest_checkpoint_of(services)


def newest_checkpoint_of(services: Services) -> str:
    """The newest checkpoint, if there is one."""
    with reading(services.engine) as conn:
        return latest_checkpoint(conn) or ""


def test_kms_signs_the_checkpoints_itself(
    signed_there: Services, kms: SigningService, tmp_path: Path
) -> None:
    """Ed25519 over the note's text; the private key is nowhere of ours."""
    note = sequence(signed_there)

    public = kms.keys["key-0"].public_key().public_bytes_raw()
    verifier = NoteVerifier.of(signed_there.origin, public)
    assert verifier.open(note).size == 1
    assert log_vkey(signed_there) == verifier.vkey
    private = kms.keys["key-0"].private_bytes_raw()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and private in path.read_bytes()]
    assert {operation for operation, _ in kms.asked} == {"GetPublicKey", "Sign"}


@on_sqlite
@pytest.mark.parametrize("fault", ["is_away", "refusal"])
def test_while_kms_is_away_the_log_waits_and_then_goes_on_by_itself(
    signed_there: Services, kms: SigningService, fault: str
) -> None:
    """Entries keep their places and nothing is signed; the next try signs all of it, with the same sequencer."""
    first = sequence(signed_there)
    sequencer = sequencer_of(signed_there)
    setattr(kms, fault, "DisabledException" if fault == "refusal" else True)
    signed_there.trail.note(EventType.SERVER_STOPPED, mode="web")
    with pytest.raises(KmsAway):
        sequencer.run_once()
    with reading(signed_there.engine) as conn:
        meanwhile = latest_checkpoint(conn)

    setattr(kms, fault, "" if fault == "refusal" else False)
    sequencer.run_once()

    with reading(signed_there.engine) as conn:
        note, size = latest_checkpoint(conn), tree_size(conn)
    assert meanwhile == first
    assert note is not None
    assert NoteVerifier.parse(log_vkey(signed_there)).open(note).size == size == 2


@on_sqlite
def test_the_running_sequencer_outlives_an_outage_of_kms(signed_there: Services, kms: SigningService) -> None:
    """Nobody restarts it."""
    stop = threading.Event()
    running = threading.Thread(target=run_sequencer, args=(signed_there, stop))
    kms.is_away = True
    running.start()
    signed_there.trail.note(EventType.SERVER_STOPPED, mode="web")
    await_that("KMS was asked", lambda: kms.refused > 1)
    was_alive = running.is_alive()
    kms.is_away = False

    await_that("the log is signed", lambda: newest_checkpoint_of(signed_there) != "")

    stop.set()
    running.join()
    assert was_alive


@on_sqlite
def test_web_requests_do_not_depend_on_kms(
    signed_there: Services, kms: SigningService, http: FlaskClient
) -> None:
    """Health, keys, and whatever stages entries are answered while it is away; so is the log's public key."""
    sequence(signed_there)
    kms.is_away = True
    asked = len(kms.asked)

    answers = [http.get(path).status_code for path in ("/health", "/.well-known/jwks.json")]
    recover(replace(signed_there))

    assert answers == [200, 200]
    assert log_vkey(signed_there)
    assert len(kms.asked) == asked


@on_sqlite
def test_a_key_that_signs_as_another_one_is_found_before_anybody_sees_it(
    signed_there: Services, kms: SigningService
) -> None:
    """An alias was turned to another key: no note leaves that the auditors' key does not verify."""
    first = sequence(signed_there)
    kms.keys["key-0"] = Ed25519PrivateKey.generate()

    with pytest.raises(KmsAway, match="another key"):
        sequence(signed_there)

    with reading(signed_there.engine) as conn:
        assert latest_checkpoint(conn) == first


@on_sqlite
def test_a_kms_key_of_another_kind_is_refused(services: Services, kms: SigningService) -> None:
    """Checkpoints are Ed25519."""
    kms.other_kind = "ecdsa"
    wanted = replace(services.config, log_key="aws-kms:ecdsa", kms_endpoint_url=kms.url)

    with pytest.raises(ConfigError, match="ECC_NIST_EDWARDS25519"):
        log_keys(replace(services, config=wanted)).first()


@on_sqlite
def test_the_log_s_key_moves_from_the_key_store_into_kms_and_on(
    services: Services, kms: SigningService
) -> None:
    """Announced like every change; while both sign, each signs where it is."""
    recover(services)
    vkeys = []
    sequence(services)
    vkeys.append(log_vkey(services))
    for _ in range(2):
        wanted = replace(services.config, log_key=f"aws-kms:{kms.new_key()}", kms_endpoint_url=kms.url)
        services = replace(services, config=wanted)
        rotate_signing_key(services, SigningUse.LOG, both_for=timedelta(days=30))
        sequence(services)
        vkeys.insert(0, log_vkey(services))

    note = sequence(services)

    assert [NoteVerifier.parse(vkey).open(note).origin for vkey in vkeys] == [services.origin] * 3
    assert len(parse_note(note).signatures) == 3
