"""Bundles at the edges: an empty log, members of other names, too many or too long ones."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logbook import SIGNER, checkpoint, entries, lines, zipped

from audit.checkpoint import parse_note
from audit.cosignature import CosignatureSigner
from audit.merkle import EMPTY_ROOT
from audit.verify import verify_bundle

CHAIN = entries(3)
NOTE = checkpoint(CHAIN)
EMPTY = SIGNER.sign(0, EMPTY_ROOT)
WITNESS = CosignatureSigner("witness.example", Ed25519PrivateKey.from_private_bytes(bytes(32)))


def with_members(path: Path, members: dict[str, str]) -> Path:
    zipped(path, lines(CHAIN), NOTE)
    with ZipFile(path, "a", ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_an_empty_log_verifies(tmp_path: Path) -> None:
    """Size 0 is a tree as well: its root is the hash of nothing."""
    note = EMPTY + WITNESS.cosign(parse_note(EMPTY).text, datetime(2026, 11, 24, tzinfo=UTC))

    verdict = verify_bundle(
        zipped(tmp_path / "b.zip", [], note), vkey=SIGNER.vkey, since=EMPTY, witnesses=[WITNESS.vkey]
    )

    assert verdict.ok, verdict.text()
    assert (verdict.size, verdict.root, verdict.remarks) == (0, EMPTY_ROOT.hex(), ())


@pytest.mark.parametrize(
    ("chain", "note", "first_bad"),
    [([], SIGNER.sign(0, bytes(32)), 0), (CHAIN, EMPTY, 0), ([], NOTE, 0)],
    ids=["another root", "with entries", "without entries"],
)
def test_a_log_that_is_not_what_an_empty_one_is_is_refused(
    tmp_path: Path, chain: list[object], note: str, first_bad: int
) -> None:
    """Neither may hide what is not there."""
    verdict = verify_bundle(zipped(tmp_path / "b.zip", lines(chain), note), vkey=SIGNER.vkey)  # type: ignore[arg-type]

    assert (verdict.ok, verdict.first_bad_seq) == (False, first_bad)


def test_an_empty_tree_of_another_root_is_no_beginning(tmp_path: Path) -> None:
    """As a witnessed or an older checkpoint."""
    odd = SIGNER.sign(0, bytes(32))

    for verdict in (
        verify_bundle(with_members(tmp_path / "1.zip", {"witnessed": odd}), vkey=SIGNER.vkey),
        verify_bundle(with_members(tmp_path / "2.zip", {"rotations/0001": odd}), vkey=SIGNER.vkey),
        verify_bundle(with_members(tmp_path / "3.zip", {}), vkey=SIGNER.vkey, since=odd),
    ):
        assert not verdict.ok
        assert "a root of its own" in (verdict.problem or "")


@pytest.mark.parametrize(
    "name", ["rotations/1", "rotations/0001.txt", "rotations/00011", "../x", "/etc/x", "Witnessed"]
)
def test_members_of_other_names_are_not_looked_at(tmp_path: Path, name: str) -> None:
    """A later version may add some; nothing is extracted."""
    assert verify_bundle(with_members(tmp_path / "b.zip", {name: "junk"}), vkey=SIGNER.vkey).ok


@pytest.mark.parametrize(
    "name", ["./entries.jsonl", "/checkpoint", "keys//LOG.vkey", "../checkpoint", "..\\checkpoint"]
)
def test_members_that_are_unpacked_over_each_other_are_refused(tmp_path: Path, name: str) -> None:
    """What was verified is what the auditor finds in the folder, whatever unpacks it."""
    verdict = verify_bundle(with_members(tmp_path / "b.zip", {name: "junk"}), vkey=SIGNER.vkey)

    assert not verdict.ok
    assert "two members of one name" in (verdict.problem or "")


def test_members_that_expand_without_end_do_not_fill_the_memory(tmp_path: Path) -> None:
    """Ninety zip bombs in the place of checkpoints: the first that is too long ends it."""
    bombs = {f"rotations/{number:04}": "0" * 900_000 for number in range(1, 91)}
    bundle = with_members(tmp_path / "b.zip", bombs)
    del bombs

    tracemalloc.start()
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not verdict.ok
    assert "'rotations/0001' is too long" in (verdict.problem or "")
    assert peak < 3_000_000


@pytest.mark.parametrize("name", ["witnessed", "rotations/0001"])
def test_a_damaged_member_is_a_clear_finding(tmp_path: Path, name: str) -> None:
    """Cut in the middle of its bytes, which ZIP's own checksum does not judge here."""
    bundle = with_members(tmp_path / "b.zip", {name: NOTE * 50})
    data = bytearray(bundle.read_bytes())
    start = data.find(name.encode()) + len(name)
    data[start : start + 40] = bytes(40)
    bundle.write_bytes(bytes(data))

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert not verdict.ok
    assert verdict.problem
