"""The master key is replaced under running processes, and afterwards the old one opens nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from services.clock import FixedClock
from sqlalchemy import Engine, delete, select

import compliance.keyring.tables
from audit.events import EventType, Retention
from audit.reading import reading
from compliance.errors import BadMasterKey
from compliance.keyring.keys import SigningUse
from compliance.keyring.rewrapping import IDENTITIES, rewrap
from compliance.keyring.tables import subject_keys
from compliance.keyring.wrapping import MasterKey
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.key_rotation import Rotation, rotate_master_key
from gateway.parts.starting import recover
from gateway.services import Services, open_services
from gateway.storage.durable import replace_file
from gateway.storage.master_key import MasterKeys

PART = Retention.PARTICIPATION
OTHER = "77" * 32
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Killed(Exception):
    """Stands for SIGKILL at a crash point."""


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """Where the master key is."""
    return tmp_path / "keys" / "master.key"


@pytest.fixture(params=["sqlite", "postgresql"])
def keystore_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The key store on either database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'keys' / 'subjects.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def config(config: Config, key_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Config:
    """Settings with the master key in a file, and the key store where the test wants it."""
    chosen = {}
    if "keystore_url" in request.fixturenames:
        chosen["keystore_url"] = request.getfixturevalue("keystore_url")
    return replace(config, master_key=f"file:{key_file}", **chosen)


@pytest.fixture
def filled(services: Services) -> Services:
    """A gateway with a secret of every kind."""
    recover(services)
    for number in range(3):
        services.keystore.key_for(f"person-{number}", PART, services.clock())
    services.keystore.index("a device's name")
    services.keystore.new_seed("round-1")
    services.trail.note(EventType.SERVER_STOPPED, mode="web")
    return services


@contextmanager
def process_of(config: Config, clock: FixedClock) -> Iterator[Services]:
    """Another process of the same gateway."""
    opened = open_services(config, part="web", clock=clock)
    try:
        yield opened
    finally:
        opened.close()


def rotate(services: Services) -> Rotation:
    """Rotate, without the time in which running processes catch up."""
    return rotate_master_key(services, grace_s=0, sleep=lambda _: None)


def keys_in(path: Path) -> list[bytes]:
    """The master keys in a file, the one that wraps first."""
    return [bytes.fromhex(line) for line in path.read_text().split()]


def opens(engine: Engine, key: bytes) -> list[str]:
    """The tables in which this master key opens a row."""
    master, found = MasterKey(key), []
    for table, identity in IDENTITIES.items():
        with reading(engine) as conn:
            rows = conn.execute(select(*identity, table.c.wrapped)).all()
        assert rows, table.name
        for *names, wrapped in rows:
            try:
                master.unwrap(bytes(wrapped), table.name, *names)
            except BadMasterKey:
                continue
            found.append(table.name)
    return found


def wrapped_rows(engine: Engine) -> list[bytes]:
    """Every wrapped secret as it stands."""
    found: list[bytes] = []
    for table in IDENTITIES:
        with reading(engine) as conn:
            found += [bytes(wrapped) for wrapped in conn.scalars(select(table.c.wrapped))]
    return found


def test_afterwards_the_old_key_opens_no_row_and_the_new_one_every_row(
    keystore_url: str, filled: Services, key_file: Path
) -> None:
    """Build 10: every row is searched, on SQLite and PostgreSQL; the names are in the log, the keys nowhere."""
    (old,) = keys_in(key_file)
    before = sorted(opens(filled.keystore_engine, old))

    done = rotate(filled)

    (new,) = keys_in(key_file)
    assert opens(filled.keystore_engine, old) == []
    assert sorted(opens(filled.keystore_engine, new)) == before
    assert done.rewrapped == len(before) == 10
    assert (done.old_kid, done.new_kid) == (MasterKey(old).kids[0], MasterKey(new).kids[0])


def test_what_the_old_key_wrapped_is_in_no_file(filled: Services, tmp_path: Path) -> None:
    """Neither in the pages nor in the write-ahead log: who finds the old key and the files has nothing."""
    before = wrapped_rows(filled.keystore_engine)

    rotate(filled)

    files = b"".join(path.read_bytes() for path in (tmp_path / "keys").glob("subjects.db*"))
    assert [row for row in before if row in files] == []
    assert [row for row in wrapped_rows(filled.keystore_engine) if row not in files] == []


@pytest.mark.parametrize("point", ["keys.master.added", "keys.master.rewrapped", "keys.master.told"])
def test_a_crash_in_the_middle_stops_nobody_and_the_command_again_finishes_it(
    filled: Services, config: Config, clock: FixedClock, key_file: Path, point: str
) -> None:
    """Every row is readable at every moment, by processes that run and by those that start; new keys can be made."""
    (old,) = keys_in(key_file)

    def crash(here: str) -> None:
        if here == point:
            raise Killed

    with process_of(config, clock) as running:
        with pytest.raises(Killed):
            rotate(replace(filled, crash=crash))
        with process_of(config, clock) as started:
            for number, process in enumerate((running, started)):
                key = process.keystore.key_for("person-0", PART, clock())
                assert process.keystore.find(key.key_id) == key
                assert process.keystore.signing_key(SigningUse.RECEIPT)
                assert process.keystore.open_seed("round-1")
                process.keystore.key_for(f"newcomer-{number}", PART, clock())
        done = rotate(filled)
        key = running.keystore.key_for("newcomer-1", PART, clock())

    (new,) = keys_in(key_file)
    assert (done.old_kid, done.new_kid) == (MasterKey(old).kids[0], MasterKey(new).kids[0])
    assert opens(filled.keystore_engine, old) == []
    assert filled.keystore.find(key.key_id) == key


def test_a_process_that_runs_takes_the_new_key_up_by_itself(
    filled: Services, config: Config, clock: FixedClock, key_file: Path
) -> None:
    """It has the old key in memory; from the rotation on it wraps under the new one, and reads what that wrapped."""
    with process_of(config, clock) as running:
        known = running.keystore.key_for("person-1", PART, clock())

        rotate(filled)

        made = running.keystore.key_for("newcomer", PART, clock())
        again = running.keystore.find(known.key_id)

    (new,) = keys_in(key_file)
    assert again == known
    assert len(opens(filled.keystore_engine, new)) == 11
    assert filled.keystore.find(made.key_id) == made


def test_a_process_that_starts_at_this_very_moment_wraps_under_the_new_key(
    filled: Services, config: Config, key_file: Path
) -> None:
    """It read the file just before the new key came, and asked for the epoch just after it had moved."""
    kept = MasterKeys(config)
    known = kept.load()
    MasterKeys(config).add()
    filled.state.bump_epoch()

    starting = MasterKey(*known, read_again=kept.load, epoch=filled.state.epoch)

    new = MasterKey(keys_in(key_file)[0])
    assert new.unwrap(starting.wrap(bytes(32), "round_seeds", "round-2"), "round_seeds", "round-2") == bytes(
        32
    )


def test_a_key_file_that_is_taken_away_from_a_running_process_is_not_made_anew(
    filled: Services, config: Config, clock: FixedClock, key_file: Path, tmp_path: Path
) -> None:
    """What a second key wrapped nobody could open, once the file is back from its safe."""
    with process_of(config, clock) as running:
        key_file.rename(tmp_path / "safe")
        filled.state.bump_epoch()
        made = running.keystore.key_for("newcomer", PART, clock())
        was_made = key_file.exists()
        (tmp_path / "safe").rename(key_file)

    assert not was_made
    with process_of(config, clock) as started:
        assert started.keystore.find(made.key_id) == made


def test_a_command_without_the_key_file_of_a_filled_key_store_makes_none(
    filled: Services, config: Config, clock: FixedClock, key_file: Path
) -> None:
    """A new key would open nothing, and the running processes would take it for the next one."""
    key_file.unlink()

    with pytest.raises(ConfigError, match="put it back"), process_of(config, clock):
        pass

    assert not key_file.exists()


def test_a_crash_before_the_files_are_emptied_leaves_nothing_of_the_old_key_in_the_end(
    filled: Services, tmp_path: Path
) -> None:
    """Every row is under the new key when it dies: the command again has no row to change, and empties them."""
    before = wrapped_rows(filled.keystore_engine)
    looked_at: list[int] = []

    def die_at_the_last(rows: int) -> None:
        looked_at.append(rows)
        if len(looked_at) == len(IDENTITIES):
            raise Killed

    with pytest.raises(Killed):
        rotate_master_key(filled, grace_s=0, sleep=lambda _: None, progress=die_at_the_last)
    rotate(filled)

    files = b"".join(path.read_bytes() for path in (tmp_path / "keys").glob("subjects.db*"))
    assert [row for row in before if row in files] == []


def test_a_row_that_was_written_late_under_the_old_key_is_found(
    filled: Services, config: Config, clock: FixedClock, key_file: Path
) -> None:
    """A process wrapped it before the rotation, and its transaction had to wait; the second look comes after that."""
    (old,) = keys_in(key_file)
    slow = MasterKey(old)

    def late_writer(_seconds: float) -> None:
        row = {"round_id": "late", "state": "sealed", "created_at": clock()}
        wrapped = slow.wrap(bytes(32), "round_seeds", "late")
        with filled.keystore_engine.begin() as conn:
            conn.execute(compliance.keyring.tables.round_seeds.insert().values(wrapped=wrapped, **row))

    rotate_master_key(filled, grace_s=60, sleep=late_writer)

    assert opens(filled.keystore_engine, old) == []
    assert filled.keystore.open_seed("late") == bytes(32)


def test_an_erasure_that_overtakes_the_rotation_stays_an_erasure(filled: Services, key_file: Path) -> None:
    """RULES 18: a key that is destroyed between being read and being written is not written back."""
    (old,) = keys_in(key_file)
    doomed = filled.keystore.key_for("person-1", PART, filled.clock())

    class Overtaken(MasterKey):
        def rewrapped(self, wrapped: bytes, *row: str) -> bytes | None:
            if doomed.key_id in row:
                with filled.keystore_engine.begin() as conn:
                    conn.execute(delete(subject_keys).where(subject_keys.c.key_id == doomed.key_id))
            return super().rewrapped(wrapped, *row)

    rewrap(filled.keystore_engine, Overtaken(bytes.fromhex(OTHER), old))

    with reading(filled.keystore_engine) as conn:
        left = conn.scalars(select(subject_keys.c.key_id)).all()
    assert len(left) == 3
    assert doomed.key_id not in left


def test_many_rows_go_in_batches(filled: Services, key_file: Path) -> None:
    """More than one page of keys: each is wrapped anew once."""
    (old,) = keys_in(key_file)
    master, rows = MasterKey(old), []
    for number in range(1201):
        name = f"{number:064}"
        wrapped = master.wrap(bytes(32), "subject_keys", name, "many")
        rows.append({"key_id": name, "subject": "many", "retention": "participation", "wrapped": wrapped})
    with filled.keystore_engine.begin() as conn:
        made = {"created_at": filled.clock()}
        conn.execute(subject_keys.insert(), [row | made | {"period": str(n)} for n, row in enumerate(rows)])
    seen: list[int] = []

    changed = rewrap(filled.keystore_engine, MasterKey(bytes.fromhex(OTHER), old), seen.append)

    assert changed == sum(seen) == 1201 + 10
    assert rewrap(filled.keystore_engine, MasterKey(bytes.fromhex(OTHER), old)) == 0
    assert opens(filled.keystore_engine, old) == []


def test_the_rotation_is_told_in_the_log_before_and_after(
    filled: Services, entries: Callable[..., list[dict[str, object]]]
) -> None:
    """RULES 2; the names are in clear and tell nothing of the keys."""
    done = rotate(filled)

    intended, ended = (entry["details"] for entry in entries("keys.rotated"))
    assert intended == {"use": "master", "phase": "intended", "old_kid": done.old_kid}
    names = {"old_kid": done.old_kid, "new_kid": done.new_kid, "rewrapped": 10}
    assert ended == {"use": "master", "phase": "done", **names}


def test_a_key_in_the_configuration_is_replaced_by_the_operator(
    filled: Services, config: Config, clock: FixedClock, key_file: Path
) -> None:
    """One alone: refused, and told how; NEW,OLD: everything comes under NEW, and OLD can be taken out."""
    (old,) = keys_in(key_file)
    alone = replace(config, master_key=old.hex())
    both = replace(config, master_key=f"{OTHER},{old.hex()}")

    with process_of(alone, clock) as process, pytest.raises(ConfigError, match="NEW,OLD"):
        rotate(process)
    with process_of(both, clock) as process:
        done = rotate(process)

    assert done.rewrapped == 10
    assert opens(filled.keystore_engine, old) == []
    with process_of(replace(config, master_key=OTHER), clock) as process:
        assert process.keystore.open_seed("round-1")


def test_two_commands_at_once_do_not_make_two_keys(filled: Services, config: Config) -> None:
    """The second would forget the first one's key."""
    with MasterKeys(config).alone(), pytest.raises(ConfigError, match="another command"):
        rotate(filled)


@pytest.mark.parametrize("length", [240, 252])  # no room for a name beside it, or not even for the lock
def test_a_key_file_that_cannot_be_written_is_told(filled: Services, tmp_path: Path, length: int) -> None:
    """A read-only folder, a file that a container was given alone: the key stays, and the command says why."""
    (tmp_path / "mounted").mkdir()
    path = tmp_path / "mounted" / ("k" * length)
    path.write_text(OTHER)
    path.chmod(0o600)
    keys = MasterKeys(replace(filled.config, master_key=f"file:{path}"))

    with pytest.raises(ConfigError, match="cannot be written"), keys.alone():
        keys.add()

    assert path.read_text() == OTHER


def test_a_row_that_no_key_opens_stops_the_rotation(filled: Services, key_file: Path) -> None:
    """Nothing is forgotten then: both keys stay where they are."""
    stranger = MasterKey(bytes.fromhex(OTHER)).wrap(bytes(32), "round_seeds", "strange")
    row = {"round_id": "strange", "state": "sealed", "created_at": filled.clock(), "wrapped": stranger}
    with filled.keystore_engine.begin() as conn:
        conn.execute(compliance.keyring.tables.round_seeds.insert().values(**row))

    with pytest.raises(BadMasterKey):
        rotate(filled)

    assert len(keys_in(key_file)) == 2


def test_the_key_file_is_the_owner_s_alone_all_the_time(filled: Services, key_file: Path) -> None:
    """Promise 8."""
    modes: list[int] = []
    crash: Callable[[str], None] = lambda _here: modes.append(key_file.stat().st_mode & 0o777)  # noqa: E731

    rotate(replace(filled, crash=crash))
    modes.append(key_file.stat().st_mode & 0o777)

    assert set(modes) == {0o600}


def test_keys_may_lie_in_another_file_than_the_default(tmp_path: Path, config: Config) -> None:
    """`file:PATH`; several lines are several keys, the first wraps."""
    path = tmp_path / "elsewhere.key"
    replace_file(path, f"{OTHER}\n{'5a' * 32}\n".encode())

    loaded = MasterKeys(replace(config, master_key=f"file:{path}")).load()

    assert loaded == [bytes.fromhex(OTHER), bytes.fromhex("5a" * 32)]
