"""Keys that were rotated come back from a backup: what signed verifies, what signs goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from living.driver import BARE, Person
from living.home import Home, home_in
from living.restores import back_up, back_up_keys, lose, put_back
from living.threads import local_gateway_in

from audit.checkpoint import parse_note
from audit.events import EventType
from audit.reading import reading
from audit.store import latest_checkpoint
from audit.verify import verify_bundle
from compliance.errors import BadMasterKey
from compliance.keyring.keys import SigningUse
from gateway.api.audit import log_vkey
from gateway.key_rotation import begin_announced, rotate_master_key, rotate_signing_key
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover

MONTH = timedelta(days=30)
OLD, NEW = "5a" * 32, "77" * 32


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home with a checkpoint of its first log key."""
    with home_in(tmp_path / "home") as made:
        sequence(made)
        yield made


def sequence(home: Home) -> str:
    """Sequence an entry; the newest checkpoint."""
    with home.stores() as services:
        recover(services)
        services.trail.note(EventType.SERVER_STOPPED, mode="web")
        sequencer_of(services).run_once()
        begin_announced(services)
        with reading(services.engine) as conn:
            return latest_checkpoint(conn) or ""


def vkey(home: Home) -> str:
    """The name of the newest log key."""
    with home.stores() as services:
        return log_vkey(services)


def rotate_log(home: Home, *, both_for: timedelta = MONTH) -> None:
    """Announce a new log key."""
    with home.stores() as services:
        rotate_signing_key(services, SigningUse.LOG, both_for=both_for)


def registered(home: Home) -> list[Person]:
    """Two participants of a running gateway."""
    with local_gateway_in(home) as gateway:
        gateway.add_model()
        return [gateway.register() for _ in range(2)]


def test_both_log_keys_sign_on_after_a_restore(home: Home, tmp_path: Path) -> None:
    """Within the time of both, everything but the state is lost; who trusts the first key verifies it all."""
    first = vkey(home)
    rotate_log(home)
    sequence(home)
    people = registered(home)
    data, keys = back_up(home, tmp_path / "data.zip"), back_up_keys(home, tmp_path / "keys.zip")
    bundle = home.bundle(tmp_path / "log.zip")

    put_back(lose(home, keys=True), data, keys=keys, log=bundle)

    note = sequence(home)
    with local_gateway_in(home) as gateway:
        assert gateway.run_round(people, BARE)["status"] == "completed"
    assert len(parse_note(note).signatures) == 2
    assert verify_bundle(home.bundle(tmp_path / "after.zip"), vkey=first).ok


def test_a_key_that_waits_for_its_announcement_waits_on_after_a_restore(home: Home, tmp_path: Path) -> None:
    """The entry is in the backup too, pending; it is sequenced, and the key begins."""
    first = vkey(home)
    rotate_log(home)
    data, keys = back_up(home, tmp_path / "data.zip"), back_up_keys(home, tmp_path / "keys.zip")

    put_back(lose(home, keys=True), data, keys=keys)

    waiting = vkey(home)
    note = sequence(home)
    assert waiting == first != vkey(home)
    assert len(parse_note(note).signatures) == 2


def test_a_log_that_only_the_old_key_signed_is_restored_with_the_keys_of_after_the_rotation(
    home: Home, tmp_path: Path
) -> None:
    """The backup of the database is older than the key: its checkpoint verifies with the old generation."""
    data = back_up(home, tmp_path / "data.zip")
    rotate_log(home)
    sequence(home)
    bundle = home.bundle(tmp_path / "log.zip")

    done = put_back(lose(home), data, log=bundle)

    assert done.replayed > 0
    assert len(parse_note(sequence(home)).signatures) == 2
    assert home.verify_log().ok


def test_who_trusts_the_old_log_key_goes_on_to_the_new_one_after_a_restore_too(
    home: Home, tmp_path: Path
) -> None:
    """The bundle tells of the change with a checkpoint that both signed, which no backup holds: it is kept as well."""
    first = vkey(home)
    data = back_up(home, tmp_path / "data.zip")
    rotate_log(home, both_for=timedelta(0))
    sequence(home)
    sequence(home)
    bundle = home.bundle(tmp_path / "log.zip")
    before = verify_bundle(bundle, vkey=first)

    put_back(lose(home), data, log=bundle)

    note = sequence(home)
    after = verify_bundle(home.bundle(tmp_path / "after.zip"), vkey=first)
    assert len(parse_note(note).signatures) == 1
    assert before.ok, before.text()
    assert after.ok, after.text()
    assert after.signed_by == before.signed_by == vkey(home)


def test_a_backup_of_the_keys_from_before_the_master_key_changed_needs_both(
    home: Home, tmp_path: Path
) -> None:
    """NEW alone: told. NEW,OLD: restored, and the next rotation brings all of it under NEW."""
    data, keys = back_up(home, tmp_path / "data.zip"), back_up_keys(home, tmp_path / "keys.zip")
    lost = lose(home, keys=True)
    new, both = (replace(lost, settings={"master_key": key}) for key in (NEW, f"{NEW},{OLD}"))

    with pytest.raises(BadMasterKey):
        put_back(new, data, keys=keys)
    put_back(both, data, keys=keys)
    with both.stores() as services:
        rotate_master_key(services, grace_s=0, sleep=lambda _: None)

    assert parse_note(sequence(new))
    with home.stores() as services, pytest.raises(BadMasterKey):
        services.keystore.signing_key(SigningUse.RECEIPT)
