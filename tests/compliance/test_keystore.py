"""The key store: one key a slot, committed before use, gone for good once erased (RULES 1, 15, 18)."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import pytest
from services.clock import FixedClock
from sqlalchemy import Engine, select, update

from audit.draft import SYSTEM, UNPROVEN
from audit.events import Retention
from audit.reading import reading
from compliance.errors import BadMasterKey, NeverErasable, SubjectErased
from compliance.keyring.keys import SigningUse, SubjectKey, period_of, tombstone_of
from compliance.keyring.keystore import KeyStore
from compliance.keyring.rewrapping import IDENTITIES
from compliance.keyring.tables import metadata, subject_keys
from gateway.storage.database import open_engine
from gateway.storage.state import FileState

MASTER = b"m" * 32
PART, STAFF = Retention.PARTICIPATION, Retention.ACCOUNTABILITY
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = open_engine(database_url, secure_delete=True)
    with engine.begin() as conn:
        metadata.create_all(conn)
    yield engine
    engine.dispose()


@pytest.fixture
def state(tmp_path: Path) -> FileState:
    return FileState(tmp_path / "state")


@pytest.fixture
def keystore(engine: Engine, state: FileState, clock: FixedClock) -> KeyStore:
    return KeyStore(engine, MASTER, state=state, clock=clock)


def test_a_key_id_is_the_hash_of_its_key(keystore: KeyStore) -> None:
    """RULES 15: a ciphertext that names its key's id commits to that key."""
    key = keystore.key_for(str(uuid4()), PART, AT)

    assert key.key_id == sha256(b"flg-key" + key.secret).hexdigest()
    assert len(key.secret) == 32


def test_subjects_classes_and_quarters_have_keys_of_their_own(keystore: KeyStore) -> None:
    """RULES 15: keys are per subject, retention class and quarter, and stay the same within one."""
    one, other = str(uuid4()), str(uuid4())

    ids = [
        keystore.key_for(subject, retention, at).key_id
        for subject in (one, other)
        for retention in (PART, STAFF)
        for at in (AT, AT + timedelta(days=60))
    ]

    assert len(set(ids)) == 8
    assert keystore.key_for(one, PART, AT + timedelta(days=37)).key_id == ids[0]


@pytest.mark.parametrize(
    ("subject", "at", "period"),
    [
        ("person", datetime(2026, 12, 31, 23, 59, tzinfo=UTC), "2026Q4"),
        ("person", datetime(2027, 1, 1, tzinfo=UTC), "2027Q1"),
        (SYSTEM, AT, "2026Q4"),
        (UNPROVEN, AT, "2026-11-24"),
    ],
)
def test_a_period_is_a_quarter_and_for_unproven_callers_a_day(
    subject: str, at: datetime, period: str
) -> None:
    """RULES 15, 25: the label of the time that a key serves."""
    assert period_of(subject, at) == period


def test_a_key_outlives_the_process_that_made_it(
    keystore: KeyStore, engine: Engine, state: FileState, clock: FixedClock
) -> None:
    """RULES 2: a key is committed before its first use."""
    key = keystore.key_for("person", PART, AT)

    another = KeyStore(engine, MASTER, state=state, clock=clock)

    assert another.find(key.key_id) == key
    assert another.subject_of(key.key_id) == "person"
    assert another.find("0" * 64) is None


def test_writers_that_race_for_a_key_agree_on_one(
    engine: Engine, state: FileState, clock: FixedClock
) -> None:
    """Required: two processes that make the same key at once use the same one."""
    stores = [KeyStore(engine, MASTER, state=state, clock=clock) for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(lambda store: store.key_for("person", PART, AT).key_id, stores * 2))
        kids = set(pool.map(lambda store: store.signing_key(SigningUse.LOG).kid, stores))
        names = set(pool.map(lambda store: store.pseudonym("person"), stores))
        indexes = set(pool.map(lambda store: store.index("client-7"), stores))

    assert (len(ids), len(kids), len(names), len(indexes)) == (1, 1, 1, 1)


def test_a_maker_that_looked_too_early_takes_the_key_that_is_there(
    keystore: KeyStore, engine: Engine, state: FileState, clock: FixedClock
) -> None:
    """Required: on a conflict the other's key is read; no ciphertext is made under a key nobody stored."""

    class LookedTooEarly(KeyStore):
        looks = 0

        def _in_slot(self, subject: str, retention: Retention, period: str) -> SubjectKey | None:
            self.looks += 1
            return super()._in_slot(subject, retention, period) if self.looks > 1 else None

    made = keystore.key_for("person", PART, AT)

    late = LookedTooEarly(engine, MASTER, state=state, clock=clock)

    assert late.key_for("person", PART, AT) == made
    assert len(keystore.keys_of("person")) == 1


def test_a_destroyed_key_is_gone_from_every_process(
    keystore: KeyStore, engine: Engine, state: FileState, clock: FixedClock
) -> None:
    """RULES 18: the epoch empties the caches of other processes too."""
    key = keystore.key_for("person", PART, AT)
    another = KeyStore(engine, MASTER, state=state, clock=clock)
    assert another.find(key.key_id) is not None

    gone = keystore.destroy([key.key_id])

    assert gone == 1
    assert another.find(key.key_id) is None
    assert key.key_id in state.erased_keys()


def test_the_state_knows_an_erased_key_before_the_row_goes(
    engine: Engine, tmp_path: Path, clock: FixedClock
) -> None:
    """RULES 1: a crash between the two leaves a key that the next start destroys."""

    class PowerCut(FileState):
        def bump_epoch(self) -> int:
            raise OSError("power cut")

    plain = FileState(tmp_path / "state")
    keystore = KeyStore(engine, MASTER, state=plain, clock=clock)
    key = keystore.key_for("person", PART, AT)
    plain.add_erased_keys([key.key_id])  # what destroy does first

    restarted = KeyStore(engine, MASTER, state=PowerCut(tmp_path / "state"), clock=clock)
    with pytest.raises(OSError, match="power cut"):
        restarted.apply_state()

    with reading(engine) as conn:
        assert conn.execute(select(subject_keys.c.key_id)).all() == []


def test_no_key_is_ever_made_for_an_erased_subject(keystore: KeyStore) -> None:
    """RULES 18: whatever the class or quarter."""
    keystore.key_for("person", PART, AT)

    keystore.forbid("person")

    for retention in (PART, STAFF):
        for at in (AT, AT + timedelta(days=365)):
            with pytest.raises(SubjectErased):
                keystore.key_for("person", retention, at)


def test_a_key_made_while_its_subject_is_forbidden_does_not_stay(
    engine: Engine, tmp_path: Path, clock: FixedClock
) -> None:
    """RULES 18: an erasure that begins between the check and the commit is seen after the commit."""

    class ErasureBegins(FileState):
        asked = 0

        def erased_keys(self) -> frozenset[str]:
            self.asked += 1
            return frozenset({tombstone_of("person")}) if self.asked > 1 else frozenset()

    keystore = KeyStore(engine, MASTER, state=ErasureBegins(tmp_path / "state"), clock=clock)

    with pytest.raises(SubjectErased):
        keystore.key_for("person", PART, AT)

    assert keystore.keys_of("person") == []


def test_the_system_is_never_erased(keystore: KeyStore) -> None:
    """Required: `system` and `unproven` are no persons."""
    for nobody in (SYSTEM, UNPROVEN):
        with pytest.raises(NeverErasable):
            keystore.forbid(nobody)


def test_another_master_key_opens_nothing(
    keystore: KeyStore, engine: Engine, state: FileState, clock: FixedClock
) -> None:
    """Promise 8: the tables alone, or with a wrong key, give no key away."""
    key = keystore.key_for("person", PART, AT)

    with pytest.raises(BadMasterKey):
        KeyStore(engine, b"x" * 32, state=state, clock=clock).find(key.key_id)
    with pytest.raises(BadMasterKey):
        KeyStore(engine, b"short", state=state, clock=clock)


def test_a_wrapped_key_moved_to_another_row_does_not_open(keystore: KeyStore, engine: Engine) -> None:
    """The row's identity is bound to the wrapped key."""
    mine, theirs = keystore.key_for("me", PART, AT), keystore.key_for("them", PART, AT)
    with engine.begin() as conn:
        wrapped = conn.scalar(select(subject_keys.c.wrapped).where(subject_keys.c.subject == "me"))
        conn.execute(update(subject_keys).where(subject_keys.c.subject == "them").values(wrapped=wrapped))
    keystore.state.bump_epoch()

    assert keystore.find(mine.key_id) == mine
    with pytest.raises(BadMasterKey):
        keystore.find(theirs.key_id)


def test_every_table_with_a_wrapped_secret_is_wrapped_anew_when_the_master_key_changes() -> None:
    """A table that is added and forgotten there would be lost at the next rotation."""
    wrapped = {table for table in metadata.tables.values() if "wrapped" in table.c}

    assert wrapped == set(IDENTITIES)


def test_a_rotated_signing_key_leaves_the_old_public_key(keystore: KeyStore) -> None:
    """What the old key signed still verifies; each use has a key of its own."""
    old = keystore.signing_key(SigningUse.RECEIPT)

    new = keystore.signing.prepare(
        SigningUse.RECEIPT, keystore.signing.draw(), awaits="an entry", retires_at=None
    )
    before = keystore.signing_key(SigningUse.RECEIPT)
    keystore.signing.begin(new)

    assert before.kid == old.kid
    assert keystore.signing_key(SigningUse.RECEIPT).kid == new.kid != old.kid
    assert {row.kid for row in keystore.public_keys()} == {old.kid, new.kid}
    assert old.kid == sha256(old.private.public_key().public_bytes_raw()).hexdigest()[:16]
    assert keystore.signing_key(SigningUse.LOG).kid not in {old.kid, new.kid}


def test_a_pseudonym_is_stable_until_it_is_forgotten(keystore: KeyStore) -> None:
    """RULES 28: one random name per subject; an erasure parts the subject from it."""
    name = keystore.pseudonym("person")
    assert keystore.pseudonym("person") == name != keystore.pseudonym("another")

    assert keystore.forget_pseudonym("person")

    assert keystore.pseudonym("person") != name
    assert not keystore.forget_pseudonym("nobody")


def test_a_secret_never_shows_in_a_representation(keystore: KeyStore) -> None:
    """RULES 30: no error and no log line can carry a key."""
    key, signing = keystore.key_for("person", PART, AT), keystore.signing_key(SigningUse.LOG)

    assert key.secret.hex() not in repr(key)
    assert repr(key.secret) not in repr(key)
    assert "Ed25519PrivateKey" not in repr(signing)


def test_a_destroyed_key_leaves_no_byte_in_the_files(tmp_path: Path, clock: FixedClock) -> None:
    """Promise 5: not in the pages, not in the write-ahead log."""
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.db'}", secure_delete=True)
    with engine.begin() as conn:
        metadata.create_all(conn)
    keystore = KeyStore(engine, MASTER, state=FileState(tmp_path / "state"), clock=clock)
    key = keystore.key_for("person", PART, AT)
    with reading(engine) as conn:
        wrapped = conn.scalar(select(subject_keys.c.wrapped))
    assert wrapped in _database_bytes(tmp_path)

    keystore.destroy([key.key_id])

    assert wrapped not in _database_bytes(tmp_path)
    engine.dispose()


def test_a_restored_backup_of_the_key_store_brings_nobody_back(tmp_path: Path, clock: FixedClock) -> None:
    """RULES 1: the state is never restored, and is applied at start."""
    engine = open_engine(f"sqlite:///{tmp_path / 'keys.db'}", secure_delete=True)
    with engine.begin() as conn:
        metadata.create_all(conn)
    state = FileState(tmp_path / "state")
    keystore = KeyStore(engine, MASTER, state=state, clock=clock)
    erased, other = keystore.key_for("person", PART, AT), keystore.key_for("another", PART, AT)
    engine.dispose()
    shutil.copy(tmp_path / "keys.db", tmp_path / "backup.db")
    keystore.forbid("person")
    keystore.destroy([erased.key_id])
    engine.dispose()
    shutil.copy(tmp_path / "backup.db", tmp_path / "keys.db")

    restored = KeyStore(engine, MASTER, state=state, clock=clock)
    revived = restored.apply_state()

    assert revived == 1
    assert restored.find(erased.key_id) is None
    assert restored.find(other.key_id) == replace(other)
    with pytest.raises(SubjectErased):
        restored.key_for("person", PART, AT)
    engine.dispose()


def _database_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("keys.db*"))
