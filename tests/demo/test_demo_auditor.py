"""The demo's auditor and officer: a changed byte is named, and a destroyed key leaves no field readable."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from services.clock import FixedClock
from sqlalchemy import text

import audit.tables
import audit.triggers
import compliance.keyring.tables
import compliance.tables
from audit.bundle import export_bundle
from audit.checkpoint import NoteSigner
from audit.draft import Personal
from audit.events import EventType
from audit.sequencer import Sequencer
from compliance.keyring.keys import SigningUse
from compliance.subjects import new_subject
from gateway.config import load_config
from gateway.demo.auditor import forge, read_checkpoint, read_entries, read_vkey, verify
from gateway.demo.officer import keys_of_entries, payload_of, read_fields
from gateway.demo.process import Home
from gateway.services import Services, open_services


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A gateway's directory as the demo settles it, with a master key."""
    home = Home(tmp_path / "gateway")
    home.settle()
    home.master_key_path.parent.mkdir(mode=0o700)
    home.master_key_path.write_text("5a" * 32)
    home.master_key_path.chmod(0o600)
    return home


@pytest.fixture
def services(home: Home, clock: FixedClock) -> Iterator[Services]:
    """The stores of that gateway, with their tables."""
    config = load_config({"FLG_MASTER_KEY_FILE": str(home.master_key_path)}, home.settings_path)
    opened = open_services(config, part="test", clock=clock)
    for metadata in (audit.tables.metadata, compliance.tables.metadata):
        metadata.create_all(opened.engine)
    compliance.keyring.tables.metadata.create_all(opened.keystore_engine)
    with opened.engine.begin() as conn:
        for statement in audit.triggers.statements("sqlite"):
            conn.execute(text(statement))
    yield opened
    opened.close()


def _person(services: Services, name: str, entries: int) -> str:
    """A subject with so many entries."""
    subject = str(uuid4())
    with services.engine.begin() as conn:
        new_subject(conn, subject, services.clock())
    for _ in range(entries):
        told = {"role": "participant", "signs": False, "client_id": name, "device": name}
        entry = services.trail.draft(EventType.CLIENT_REGISTERED, details=told, actor=Personal(subject, name))
        with services.engine.begin() as conn:
            services.trail.write(conn, entry)
    return subject


def _bundle(services: Services, path: Path) -> Path:
    signer = NoteSigner(services.origin, services.keystore.signing_key(SigningUse.LOG).private)
    sequencer = Sequencer(services.engine, signer=signer, state=services.state, clock=services.clock)
    while sequencer.run_once():
        pass
    export_bundle(services.engine, path, signer.vkey)
    return path


def test_a_forgery_is_one_byte_and_the_verifier_names_its_entry(services: Services, tmp_path: Path) -> None:
    """Promise 2 as the demo shows it: the copy differs in one byte, and the entry is named."""
    _person(services, "silo-01", entries=9)
    bundle = _bundle(services, tmp_path / "bundle.zip")

    forged = forge(bundle, tmp_path / "forged.zip", 4)

    with zipfile.ZipFile(bundle) as one, zipfile.ZipFile(forged) as other:
        pairs = [(one.read(name), other.read(name)) for name in one.namelist()]
        assert one.namelist() == other.namelist()
    changed = [a != b for before, after in pairs for a, b in zip(before, after, strict=True)]
    assert sum(changed) == 1
    assert verify(bundle, vkey=read_vkey(bundle)).ok
    assert (verify(forged).ok, verify(forged).first_bad_seq) == (False, 4)


def test_the_last_entry_can_be_forged_and_found_too(services: Services, tmp_path: Path) -> None:
    """No later entry holds its hash; the signed root does."""
    _person(services, "silo-01", entries=5)
    bundle = _bundle(services, tmp_path / "bundle.zip")

    verdict = verify(forge(bundle, tmp_path / "forged.zip", 4))

    assert not verdict.ok


def test_fields_are_read_until_their_key_is_destroyed(services: Services, home: Home, tmp_path: Path) -> None:
    """Promise 5 as the demo shows it: one person's fields go dark, another's do not, and the log verifies."""
    doomed = _person(services, "silo-04", entries=3)
    _person(services, "silo-05", entries=2)
    bundle = _bundle(services, tmp_path / "before.zip")
    entries = read_entries(bundle)
    keys = keys_of_entries(entries, {entries[0].id})
    others = keys_of_entries(entries, {entries[-1].id})

    before = read_fields(home, entries, keys)
    services.keystore.destroy([row.key_id for row in services.keystore.keys_of(doomed)])
    after = read_fields(home, entries, keys)

    assert {(field.name, field.value) for field in before} == {
        ("actor", "silo-04"),
        ("details.client_id", "silo-04"),
        ("details.device", "silo-04"),
    }
    assert len(before) == len(after) == 9
    assert not any(field.is_readable or field.value for field in after)
    assert all(field.is_readable for field in read_fields(home, entries, others))
    later = _bundle(services, tmp_path / "after.zip")
    assert verify(later, vkey=read_vkey(bundle), since=read_checkpoint(bundle)).ok


def test_the_payload_of_a_receipt_is_read_without_judging_it() -> None:
    """Any length of base64url, with and without padding to add."""
    tokens = ["e30.eyJhIjoxfQ.c2ln", "e30.eyJhIjoxMn0.c2ln", "e30.eyJhIjoxMjN9.c2ln\n"]

    payloads = [payload_of(token) for token in tokens]

    assert payloads == [{"a": 1}, {"a": 12}, {"a": 123}]
