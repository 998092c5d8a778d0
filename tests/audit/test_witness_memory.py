"""A witness's memory and identity: on the disk before it answers, one step at a time, never begun anew by accident."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from services.clock import FixedClock

from audit.checkpoint import SignedTree
from audit.merkle import EMPTY_ROOT
from audit.witness import Memory
from audit.witness.errors import MemoryLost, MemoryUnusable, SizeConflict, WrongIdentity
from audit.witness.identity import open_identity

NAME, LOG = "witness.example/w1", "example.com/log"
NOTHING = SignedTree(LOG, 0, EMPTY_ROOT)


def tree(size: int, kind: int = 0) -> SignedTree:
    return SignedTree(LOG, size, bytes([kind]) * 32)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.create(tmp_path / "witness.db", NAME)


def test_a_step_is_seen_by_whoever_opens_the_file_next(
    memory: Memory, tmp_path: Path, clock: FixedClock
) -> None:
    """Nothing is kept in the process alone."""
    at = memory.advance(NOTHING, tree(3), "note", clock())

    assert at == clock.now
    assert Memory(tmp_path / "witness.db").last(LOG) == tree(3)
    assert memory.last("example.com/other") == SignedTree("example.com/other", 0, EMPTY_ROOT)


def test_a_step_from_another_tree_than_the_last_is_refused(memory: Memory, clock: FixedClock) -> None:
    """Compare-and-set: the size and the root both count."""
    memory.advance(NOTHING, tree(3), "note", clock())

    for known in (NOTHING, tree(2), tree(3, kind=9), tree(4)):
        with pytest.raises(SizeConflict) as conflict:
            memory.advance(known, tree(5), "note", clock())
        assert conflict.value.size == 3

    assert memory.last(LOG) == tree(3)


def test_of_two_requests_that_know_the_same_tree_one_moves_on(memory: Memory, tmp_path: Path) -> None:
    """Forks sent at the same moment to eight threads, each with the file opened anew: one is cosigned."""
    barrier, won, lost = threading.Barrier(8), list[int](), list[int]()

    def go(kind: int) -> None:
        mine = Memory(tmp_path / "witness.db")
        barrier.wait()
        try:
            mine.advance(NOTHING, tree(3, kind), "note", datetime.now(UTC))
            won.append(kind)
        except SizeConflict:
            lost.append(kind)

    threads = [threading.Thread(target=go, args=(kind,)) for kind in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(won), len(lost)) == (1, 7)
    assert memory.last(LOG) == tree(3, won[0])


def test_times_never_go_back(memory: Memory, clock: FixedClock) -> None:
    """A clock that is set back must not make a larger tree look older than a smaller one."""
    first = memory.advance(NOTHING, tree(3), "note", clock())
    clock.advance(timedelta(hours=-5))

    assert memory.advance(tree(3), tree(4), "note", clock()) == first
    assert memory.advance(tree(4), tree(4), "note", clock()) == first


def test_wrong_proofs_by_strangers_leave_room_for_a_fork(
    memory: Memory, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can send true checkpoints with a wrong proof; what only the log's key can make is kept all the same."""
    monkeypatch.setattr("audit.witness.memory._MOST_REFUSED", 3)
    memory.advance(NOTHING, tree(3), "note", clock())

    for size in range(4, 9):
        memory.refuse(tree(size), "true", "NOT_CONTINUED", clock())
    memory.refuse(tree(3, kind=1), "forked", "ROOT_CONFLICT", clock())

    assert [one.why for one in memory.refused()] == ["NOT_CONTINUED"] * 3 + ["ROOT_CONFLICT"]


def test_what_proves_a_fork_takes_the_place_of_what_only_hinted_at_it(
    memory: Memory, clock: FixedClock
) -> None:
    """A tree refused ahead of its time is later one of two of one size: that pair of notes is the evidence."""
    memory.advance(NOTHING, tree(3), "three", clock())
    memory.refuse(tree(5, kind=1), "forked", "NOT_CONTINUED", clock())
    memory.advance(tree(3), tree(5), "five", clock())

    memory.refuse(tree(5, kind=1), "forked", "ROOT_CONFLICT", clock())

    assert [(one.why, one.cosigned, one.refused) for one in memory.refused()] == [
        ("ROOT_CONFLICT", "five", "forked")
    ]


def test_the_same_tree_within_a_second_costs_no_write(
    memory: Memory, tmp_path: Path, clock: FixedClock
) -> None:
    """Whoever repeats a public checkpoint cannot keep the disk busy."""
    memory.advance(NOTHING, tree(3), "note", clock())
    before = (tmp_path / "witness.db").stat().st_mtime_ns

    for _ in range(3):
        memory.advance(tree(3), tree(3), "note", clock())

    assert (tmp_path / "witness.db").stat().st_mtime_ns == before


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("lose", [_delete, _empty])
def test_a_witness_that_lost_its_memory_does_not_start(tmp_path: Path, lose: Callable[[Path], None]) -> None:
    """It would cosign any first tree, a fork of what it has cosigned as well."""
    open_identity(tmp_path, NAME)
    lose(tmp_path / "witness.db")

    for name in (NAME, None):
        with pytest.raises(MemoryLost, match="put that file back"):
            open_identity(tmp_path, name)


def test_a_damaged_memory_is_not_used(tmp_path: Path) -> None:
    """Neither at the start nor later."""
    _, memory = open_identity(tmp_path, NAME)
    (tmp_path / "witness.db").write_bytes(b"no database" * 500)

    with pytest.raises(MemoryUnusable):
        open_identity(tmp_path, NAME)
    with pytest.raises(MemoryUnusable):
        memory.last(LOG)


def test_a_first_start_that_was_cut_off_can_be_repeated(tmp_path: Path) -> None:
    """The memory comes before the key: without a key nothing was ever cosigned."""
    Memory.create(tmp_path / "witness.db", NAME)

    signer, memory = open_identity(tmp_path, NAME)

    assert (signer.name, memory.name) == (NAME, NAME)


def test_key_and_name_are_made_once(tmp_path: Path) -> None:
    """The second start has the key of the first and needs no name; nobody else can read the files."""
    first, _ = open_identity(tmp_path / "state", NAME)
    second, _ = open_identity(tmp_path / "state", None)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}

    assert first.vkey == second.vkey
    assert modes == {"witness.key": 0o600, "witness.db": 0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_first_starts_at_the_same_time_agree_on_one_key(tmp_path: Path) -> None:
    """Two processes of one folder are one witness."""
    barrier, keys = threading.Barrier(6), list[str]()

    def go() -> None:
        barrier.wait()
        keys.append(open_identity(tmp_path, NAME)[0].vkey)

    threads = [threading.Thread(target=go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(keys) == 6
    assert len(set(keys)) == 1


def test_another_name_or_a_bad_key_file_is_refused(tmp_path: Path) -> None:
    """An Ed25519 cosignature does not bind the name: one key, one name (C2SP tlog-cosignature)."""
    with pytest.raises(WrongIdentity, match="needs a name"):
        open_identity(tmp_path, None)
    with pytest.raises(WrongIdentity, match="neither spaces"):
        open_identity(tmp_path, "a b")
    open_identity(tmp_path, NAME)
    with pytest.raises(WrongIdentity, match="two names"):
        open_identity(tmp_path, "witness.example/w2")

    key = tmp_path / "witness.key"
    key.chmod(0o640)
    with pytest.raises(WrongIdentity, match="chmod 600"):
        open_identity(tmp_path, NAME)
    rsa = generate_private_key(65537, 2048).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for content in (b"no key", rsa):
        key.write_bytes(content)
        key.chmod(0o600)
        with pytest.raises(WrongIdentity, match="Ed25519"):
            open_identity(tmp_path, NAME)
