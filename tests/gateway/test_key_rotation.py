"""Signing keys follow one another: announced under the old key, both for a time, whatever is killed in between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from federation import Federation, file_of, tensors
from flask.testing import FlaskClient
from services.clock import FixedClock
from sqlalchemy import delete

from audit.bundle import export_bundle
from audit.checkpoint import NoteSigner, NoteVerifier, parse_note
from audit.entry import parse_entry
from audit.errors import BadSignature, NoCheckpoint
from audit.events import EventType
from audit.key_succession import announced
from audit.reading import reading
from audit.receipt import ReceiptKeys, parse_receipt
from audit.rotation_notes import rotation_notes
from audit.store import each_entry, latest_checkpoint
from audit.tables import audit_pending
from audit.verify import verify_bundle
from compliance.keyring.keys import SigningUse
from compliance.keyring.signing_keys import SigningKeys
from gateway.api.audit import log_vkey
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.key_rotation import Rotation, begin_announced, rotate_signing_key
from gateway.log_key import LogKeys, Places, log_keys
from gateway.parts.sequencing import sequencer_of
from gateway.parts.starting import recover
from gateway.services import Services, open_services
from gateway.storage.state import FileState

MONTH = timedelta(days=30)
GOOD = file_of(tensors(0.5))
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Killed(Exception):
    """Stands for SIGKILL at a crash point."""


def rotate_log(services: Services) -> Rotation:
    """Let a new log key follow."""
    return rotate_signing_key(services, SigningUse.LOG, both_for=MONTH)


def work(services: Services) -> None:
    """What the sequencer's loop does with one entry that came."""
    services.trail.note(EventType.SERVER_STOPPED, mode="web")
    sequencer_of(services).run_once()
    begin_announced(services)


def checkpoint(services: Services) -> str:
    """The newest checkpoint, after one more entry."""
    work(services)
    with reading(services.engine) as conn:
        note = latest_checkpoint(conn)
    assert note is not None
    return note


def vkeys_on(note: str) -> list[str]:
    """The ids of the keys that signed a note."""
    return [line.key_id.hex() for line in parse_note(note).signatures]


def ids(*vkeys: str) -> list[str]:
    """Their key ids."""
    return [vkey.split("+")[1] for vkey in vkeys]


@pytest.fixture
def old(services: Services) -> str:
    """The name of the key that signed the log's first checkpoint."""
    recover(services)
    work(services)
    return log_vkey(services)


def test_both_keys_sign_for_a_set_time_and_then_the_new_one_alone(
    services: Services, old: str, clock: FixedClock
) -> None:
    """Issue 5, build 10: announced under the old key; both for a month; on SQLite and PostgreSQL."""
    done = rotate_log(services)
    work(services)  # the announcement is covered, and the new key begins
    new = log_vkey(services)
    at_first = checkpoint(services)
    clock.advance(MONTH - timedelta(seconds=1))
    at_last = checkpoint(services)
    clock.advance(timedelta(seconds=1))
    afterwards = checkpoint(services)

    assert not done.has_begun
    assert new != old
    assert vkeys_on(at_first) == vkeys_on(at_last) == ids(new, old)
    assert vkeys_on(afterwards) == ids(new)
    for note in (at_first, at_last):
        assert NoteVerifier.parse(old).open(note) == NoteVerifier.parse(new).open(note)
    with pytest.raises(BadSignature):
        NoteVerifier.parse(old).open(afterwards)


def test_the_first_checkpoint_with_the_announcement_is_the_first_that_the_new_key_signs(
    services: Services, old: str
) -> None:
    """Both sign it: who trusts the old key finds the new one, and who has the new one finds every checkpoint since."""
    rotate_log(services)
    with reading(services.engine) as conn:
        before, unannounced = rotation_notes(conn), latest_checkpoint(conn)
    staged = log_vkey(services)
    work(services)

    with reading(services.engine) as conn:
        (note,) = rotation_notes(conn)
        newest = latest_checkpoint(conn)
        told = [announced(parse_entry(stored.canonical)) for stored in each_entry(conn)]
    (change,) = [one for one in told if one is not None]
    assert unannounced is not None
    assert (before, staged, vkeys_on(unannounced)) == ([], old, ids(old))
    assert newest == note
    assert vkeys_on(note) == ids(log_vkey(services), old)
    assert told.index(change) < NoteVerifier.parse(old).open(note).size
    assert (change.old_vkey, change.new_vkey) == (old, log_vkey(services))


@on_sqlite
def test_a_running_sequencer_takes_the_new_key_up_without_a_restart(
    services: Services, old: str, config: Config, clock: FixedClock
) -> None:
    """Each process asks the key store once an epoch; the rotation moves it."""
    running = open_services(config, part="sequencer", clock=clock)
    sequencer = sequencer_of(running)
    services.trail.note(EventType.SERVER_STOPPED, mode="web")
    sequencer.run_once()

    rotate_log(services)
    for _ in range(2):
        services.trail.note(EventType.SERVER_STOPPED, mode="web")
        sequencer.run_once()
        begin_announced(running)

    with reading(services.engine) as conn:
        note = latest_checkpoint(conn)
    running.close()
    assert note is not None
    assert vkeys_on(note) == ids(log_vkey(services), old)


@on_sqlite
@pytest.mark.parametrize("goes_on", [rotate_log, recover], ids=["the command again", "a start"])
@pytest.mark.parametrize("point", ["keys.prepared", "keys.announced"])
def test_a_crash_between_the_steps_leaves_no_half(
    services: Services, old: str, point: str, goes_on: Callable[[Services], object], tmp_path: Path
) -> None:
    """Until its announcement is signed the new key signs nothing; one command more and all is done, once."""

    def crash(here: str) -> None:
        if here == point:
            raise Killed

    with pytest.raises(Killed):
        rotate_log(replace(services, crash=crash))
    left = log_vkey(services)
    goes_on(services)
    work(services)
    if log_vkey(services) == old:  # no entry was staged, and a start knows nothing of the wish
        rotate_log(services)
        work(services)

    bundle = tmp_path / "log.zip"
    export_bundle(services.engine, bundle, log_vkey(services))
    note, new = checkpoint(services), log_vkey(services)
    with reading(services.engine) as conn:
        changes = [
            change for stored in each_entry(conn) if (change := announced(parse_entry(stored.canonical)))
        ]
    assert left == old
    assert verify_bundle(bundle).ok
    assert vkeys_on(note) == ids(new, old)
    assert [(change.old_vkey, change.new_vkey) for change in changes] == [(old, new)]


@on_sqlite
def test_an_announcement_that_a_restore_lost_is_made_again(services: Services, old: str) -> None:
    """The key that waits for it never signs unannounced."""
    first = rotate_log(services)
    with services.engine.begin() as conn:
        conn.execute(delete(audit_pending))
    work(services)
    waited = log_vkey(services)

    second = rotate_log(services)
    work(services)

    assert waited == old
    assert second.new_kid != first.new_kid
    assert vkeys_on(checkpoint(services)) == ids(log_vkey(services), old)


class _Overtaken:
    """The state, while another process does something right after each look at the epoch."""

    def __init__(self, state: FileState) -> None:
        self._state = state
        self.then: Callable[[], object] = lambda: None

    def epoch(self) -> int:
        """The epoch of before that."""
        seen = self._state.epoch()
        self.then()
        return seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)


@on_sqlite
def test_a_key_that_begins_while_a_checkpoint_is_signed_signs_it(
    services: Services, old: str, config: Config, clock: FixedClock
) -> None:
    """The command lets it begin between two looks of the sequencer: no checkpoint after the announcement misses it."""
    rotate_log(services)
    sequencer_of(services).run_once()
    state = _Overtaken(services.state)
    signing = SigningKeys(services.keystore_engine, services.keystore.master, clock, state)
    keys = LogKeys(services.origin, signing, config, lambda _id, _size: True)
    keys.sign(7, bytes(32))  # it has looked once

    state.then = lambda: begin_announced(services)
    note = keys.sign(8, bytes(32))

    assert vkeys_on(note) == ids(log_vkey(services), old)


@on_sqlite
def test_two_rotations_within_the_time_lead_from_the_first_key_to_the_third(
    services: Services, old: str
) -> None:
    """Each signs until its own time is over, the newest first, and each change is told."""
    vkeys = [old]
    for _ in range(2):
        rotate_log(services)
        work(services)
        vkeys.insert(0, log_vkey(services))

    with reading(services.engine) as conn:
        notes = rotation_notes(conn)
    assert vkeys_on(checkpoint(services)) == ids(*vkeys)
    assert [
        NoteVerifier.parse(vkey).open(note).size > 0 for vkey, note in zip(vkeys[:0:-1], notes, strict=True)
    ]
    assert log_keys(services).vkeys == tuple(vkeys)


@on_sqlite
def test_a_rotation_that_is_under_way_is_not_begun_anew(services: Services, old: str) -> None:
    """The command given twice makes one key."""
    first, second = rotate_log(services), rotate_log(services)

    assert (first.new_kid, first.old_kid) == (second.new_kid, second.old_kid)
    assert [row.use for row in services.keystore.public_keys()].count(SigningUse.LOG) == 2


@on_sqlite
def test_a_command_that_another_one_overtakes_takes_nothing_from_it(services: Services, old: str) -> None:
    """The key that the other has announced stays: it is in the log for ever, and begins."""
    others = iter([rotate_log])

    def clock() -> datetime:
        for rotate in others:
            rotate(services)
        return services.clock()

    with pytest.raises(ConfigError, match="another command"):
        rotate_log(replace(services, clock=clock))
    waiting = services.keystore.signing.waiting(SigningUse.LOG)
    work(services)

    assert waiting is not None
    assert services.keystore.signing.newest(SigningUse.LOG) == replace(waiting, awaits=None)


@on_sqlite
def test_a_time_of_nothing_leaves_one_checkpoint_that_both_sign(services: Services, old: str) -> None:
    """`--both-for 0s`, for a key that is not to be used any more: the announcement is covered all the same."""
    rotate_signing_key(services, SigningUse.LOG, both_for=timedelta(0))
    first = checkpoint(services)

    assert vkeys_on(first) == ids(log_vkey(services), old)
    assert vkeys_on(checkpoint(services)) == ids(log_vkey(services))


@on_sqlite
def test_who_trusts_the_first_key_verifies_a_bundle_of_the_third(
    services: Services, old: str, tmp_path: Path
) -> None:
    """The verifier follows the announcements that the rotation wrote, long after the old keys ended."""
    for _ in range(2):
        rotate_signing_key(services, SigningUse.LOG, both_for=timedelta(0))
        work(services)
    checkpoint(services)
    export_bundle(services.engine, tmp_path / "log.zip", log_vkey(services))

    verdict = verify_bundle(tmp_path / "log.zip", vkey=old)
    strange = verify_bundle(
        tmp_path / "log.zip", vkey=NoteSigner(services.origin, Ed25519PrivateKey.generate()).vkey
    )

    assert verdict.ok, verdict
    assert not strange.ok


@on_sqlite
def test_without_a_key_there_is_nothing_to_follow(services: Services) -> None:
    """The gateway has to be started once."""
    with pytest.raises(ConfigError, match="start the gateway"):
        rotate_log(services)
    with pytest.raises(NoCheckpoint):
        log_vkey(services)


# Receipts and packages


@pytest.mark.parametrize("use", [SigningUse.RECEIPT, SigningUse.PACKAGE])
def test_a_rotated_key_signs_at_once_and_the_old_one_s_work_still_verifies(
    services: Services, http: FlaskClient, use: SigningUse
) -> None:
    """Receipts are kept for years: every public key stays in jwks.json."""
    recover(services)
    before = services.keystore.signing_key(use).kid

    done = rotate_signing_key(services, use, both_for=MONTH)

    published = {key["kid"] for key in http.get("/.well-known/jwks.json").get_json()["keys"]}
    assert (done.has_begun, done.old_kid, done.both_until) == (True, before, None)
    assert services.keystore.signing_key(use).kid == done.new_kid != before
    assert {before, done.new_kid} <= published


@on_sqlite
def test_the_change_of_a_receipt_key_is_an_entry_with_the_names_of_both(
    services: Services, entries: Callable[..., list[dict[str, object]]]
) -> None:
    """In clear, so that an auditor who got two receipts knows why they name two keys."""
    recover(services)

    done = rotate_signing_key(services, SigningUse.RECEIPT, both_for=MONTH)

    (entry,) = entries("keys.rotated")
    assert entry["details"] == {"use": "receipt", "old_kid": done.old_kid, "new_kid": done.new_kid}
    assert entry["sealed"] == set()


@on_sqlite
def test_receipts_of_the_old_key_and_of_the_new_one_verify(services: Services, http: FlaskClient) -> None:
    """An update that was acknowledged before the rotation, and one after it."""
    recover(services)
    federation = Federation(services, http)
    federation.add_model()
    federation.open_round()
    given = [federation.submit(federation.register(), GOOD).json["receipt"]]
    rotate_signing_key(services, SigningUse.RECEIPT, both_for=MONTH)
    given.append(federation.submit(federation.register(), GOOD).json["receipt"])

    keys = ReceiptKeys.parse(http.get("/.well-known/jwks.json").text)

    assert len({parse_receipt(receipt, keys).kid for receipt in given}) == 2


# Keys outside of the key store


def pem(path: Path) -> str:
    """Make a key in a file; how `FLG_LOG_KEY` names it."""
    key = Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    path.chmod(0o600)
    return f"file:{path}"


@pytest.fixture
def with_file(services: Services, tmp_path: Path) -> Services:
    """A gateway whose log key is in a file from the first start on."""
    return replace(services, config=replace(services.config, log_key=pem(tmp_path / "log.pem")))


@on_sqlite
def test_a_log_key_in_a_file_signs_from_the_first_start_on(with_file: Services) -> None:
    """It never gets into the key store; before the first checkpoint there is no key to show."""
    recover(with_file)
    with pytest.raises(NoCheckpoint):
        log_vkey(with_file)

    note = checkpoint(with_file)

    assert NoteVerifier.parse(log_vkey(with_file)).open(note).size == 1
    (row,) = with_file.keystore.signing.rows(SigningUse.LOG)
    assert row.held_at == with_file.config.log_key


@on_sqlite
def test_another_setting_alone_does_not_change_the_log_s_key(
    services: Services, old: str, tmp_path: Path
) -> None:
    """Auditors would take the log for a forged one: only an announced rotation changes it."""
    other = replace(services, config=replace(services.config, log_key=pem(tmp_path / "log.pem")))

    before = checkpoint(other)
    rotate_log(other)
    work(other)

    assert vkeys_on(before) == ids(old)
    assert vkeys_on(checkpoint(other)) == ids(log_vkey(other), old)
    with pytest.raises(ConfigError, match="name a new one"):
        rotate_log(other)


@on_sqlite
def test_a_key_comes_back_from_a_file_into_the_key_store(with_file: Services) -> None:
    """With an empty FLG_LOG_KEY the next key is made in the key store; the file is needed while both sign."""
    first = checkpoint(with_file)
    back = replace(with_file, config=replace(with_file.config, log_key=""))

    rotate_log(back)
    work(back)

    assert vkeys_on(checkpoint(back)) == [*ids(log_vkey(back)), *vkeys_on(first)]
    assert with_file.keystore.signing.rows(SigningUse.LOG)[0].held_at is None


@on_sqlite
def test_a_file_with_another_key_than_the_log_s_signs_nothing(with_file: Services, tmp_path: Path) -> None:
    """Somebody put another key there: the log waits, and the operator is told what to do."""
    checkpoint(with_file)
    pem(tmp_path / "log.pem")
    with_file.trail.note(EventType.SERVER_STOPPED, mode="web")

    with pytest.raises(ConfigError, match="put that one back"):
        sequencer_of(with_file).run_once()


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [(b"nonsense", 0o600, "Ed25519 key in PEM"), (None, 0o644, "chmod 600"), (None, None, "cannot be read")],
)
def test_a_bad_key_file_is_told(tmp_path: Path, content: bytes | None, mode: int | None, says: str) -> None:
    """What is wrong, and nothing of the key."""
    place = pem(tmp_path / "log.pem")
    path = tmp_path / "log.pem"
    if content:
        path.write_bytes(content)
    path.unlink() if mode is None else path.chmod(mode)

    with pytest.raises(ConfigError, match=says):
        Places(Config()).at(place)
