"""The bundle: what the database holds, as it stands, in the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from zipfile import ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from logbook import KEY, ORIGIN, SIGNER, Killed, Logbook
from sqlalchemy import Connection, event

from audit.bundle import export_bundle, write_bundle
from audit.checkpoint import NoteSigner, parse_note
from audit.cosignature import CosignatureSigner
from audit.draft import Personal, draft
from audit.errors import NoCheckpoint
from audit.events import EventType
from audit.key_succession import statement, written_time
from audit.reading import reading, snapshot
from audit.store import add_cosignature, newest_checkpoint, stage
from audit.verify import verify_bundle


def test_a_bundle_holds_the_four_members_and_verifies(log: Logbook, tmp_path: Path) -> None:
    """DESIGN, Audit bundle."""
    log.grow(1203)

    bundle = log.bundle(tmp_path / "b.zip")

    with ZipFile(bundle) as archive:
        assert sorted(archive.namelist()) == ["README.txt", "checkpoint", "entries.jsonl", "keys/log.vkey"]
        stored = archive.read("entries.jsonl").splitlines()
        assert archive.read("keys/log.vkey").decode() == SIGNER.vkey + "\n"
    assert [json.loads(line)["seq"] for line in stored] == list(range(1203))
    assert verify_bundle(bundle, vkey=SIGNER.vkey).ok


WITNESSES = [
    CosignatureSigner(f"witness{number}.example", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
    for number in (1, 2)
]


def cosign(log: Logbook, *witnesses: CosignatureSigner) -> None:
    """Let witnesses cosign the newest checkpoint."""
    with log.engine.begin() as conn:
        newest = newest_checkpoint(conn, cosigned=False)
        assert newest is not None
        for witness in witnesses:
            line = witness.cosign(parse_note(newest.note).text, log.clock())
            add_cosignature(conn, newest.size, witness.name, line, log.clock())


def members(log: Logbook, path: Path, quorum: int = 1) -> dict[str, str]:
    """The members of a bundle but for the entries."""
    with snapshot(log.engine) as conn:
        write_bundle(conn, path, SIGNER.vkey, quorum=quorum)
    with ZipFile(path) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if name != "entries.jsonl"}


def test_a_bundle_holds_what_witnesses_cosigned(log: Logbook, tmp_path: Path) -> None:
    """`checkpoint` is the newest, with its cosignatures; `witnessed` an older one, if the newest has none yet."""
    log.grow(3)
    cosign(log, *WITNESSES)
    first = members(log, tmp_path / "1.zip")
    log.grow(2)
    second = members(log, tmp_path / "2.zip")
    cosign(log, WITNESSES[0])
    third, all_asked = members(log, tmp_path / "3.zip"), members(log, tmp_path / "4.zip", quorum=2)

    assert "witnessed" not in first
    assert first["checkpoint"].count("witness") == 2
    assert second["witnessed"] == all_asked["witnessed"] == first["checkpoint"]
    assert "witnessed" not in third
    for name, needed, size in (("1", 2, 3), ("2", 2, 3), ("3", 1, 5), ("4", 2, 3)):
        verdict = verify_bundle(
            tmp_path / f"{name}.zip",
            vkey=SIGNER.vkey,
            witnesses=[witness.vkey for witness in WITNESSES],
            quorum=needed,
        )
        assert verdict.ok, verdict.text()
        assert verdict.witnessed is not None
        assert verdict.witnessed.size == size


def test_a_bundle_tells_of_each_change_of_the_log_s_key(log: Logbook, tmp_path: Path) -> None:
    """`rotations/0001`: who holds the first key gets to the one that signs now."""
    new = Ed25519PrivateKey.from_private_bytes(bytes([9] * 32))
    log.grow(2)
    told = statement(both := NoteSigner(ORIGIN, new, KEY), until := log.clock())
    details = {"use": "log", "old_kid": "o", "new_kid": "n", "old_vkey": SIGNER.vkey, "new_vkey": both.vkey}
    announcement = draft(
        EventType.KEYS_ROTATED,
        sealer=log.sealer,
        now=log.clock(),
        actor=Personal("system", "system"),
        action="rotated",
        details={**details, "both_until": written_time(until), "statement": told},
    )
    with log.engine.begin() as conn:
        stage(conn, announcement)
    log.sequence_as(both)
    log.stage(2)
    log.sequence_as(NoteSigner(ORIGIN, new))

    with snapshot(log.engine) as conn:
        write_bundle(conn, tmp_path / "b.zip", both.vkey)

    with ZipFile(tmp_path / "b.zip") as archive:
        assert "rotations/0001" in archive.namelist()
        assert "rotations/0002" not in archive.namelist()
    for vkey in (None, SIGNER.vkey, both.vkey):
        verdict = verify_bundle(tmp_path / "b.zip", vkey=vkey)
        assert verdict.ok, verdict.text()
        assert verdict.signed_by == both.vkey


def test_a_rewritten_announcement_is_exported_as_it_stands(sqlite_log: Logbook, tmp_path: Path) -> None:
    """The export judges nothing: the auditor gets the bundle, and the verifier finds what was done to the entry."""
    sqlite_log.grow(2)
    sqlite_log.tamper(
        "UPDATE audit_log SET event_type = 'keys.rotated', canonical = 'no entry' WHERE seq = 1"
    )

    bundle = sqlite_log.bundle(tmp_path / "b.zip")

    assert not verify_bundle(bundle).ok


def test_equal_logs_give_equal_bytes(sqlite_log: Logbook, tmp_path: Path) -> None:
    """Two auditors can compare their bundles by hash."""
    sqlite_log.grow(3)
    cosign(sqlite_log, WITNESSES[0])
    sqlite_log.grow(1)

    one, other = sqlite_log.bundle(tmp_path / "1.zip"), sqlite_log.bundle(tmp_path / "2.zip")

    assert one.read_bytes() == other.read_bytes()


def test_a_bundle_streams_to_what_cannot_seek(sqlite_log: Logbook, tmp_path: Path) -> None:
    """API: GET …/bundle sends it as it is made."""

    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.received = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.received += data
            return len(data)

    sqlite_log.grow(3)
    pipe = Pipe()

    with reading(sqlite_log.engine) as conn:
        assert write_bundle(conn, pipe, SIGNER.vkey) == 3  # type: ignore[arg-type]

    (tmp_path / "b.zip").write_bytes(bytes(pipe.received))
    assert verify_bundle(tmp_path / "b.zip", vkey=SIGNER.vkey).ok


def test_a_log_that_was_never_signed_has_no_bundle(sqlite_log: Logbook, tmp_path: Path) -> None:
    """The message says what to do."""
    sqlite_log.stage(1)

    with pytest.raises(NoCheckpoint, match="sequence"), reading(sqlite_log.engine) as conn:
        write_bundle(conn, tmp_path / "b.zip", SIGNER.vkey)


def test_the_export_waits_until_every_entry_is_signed(sqlite_log: Logbook, tmp_path: Path) -> None:
    """CLI commands work beside a running `serve`, whose sequencer may be between leaves and signature."""
    sqlite_log.grow(2)
    sqlite_log.stage(2)
    with pytest.raises(Killed):
        sqlite_log.sequencer(crash_at="sequencer.batch").run_once()
    slept: list[float] = []

    def sign_meanwhile(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            sqlite_log.sequence()

    assert export_bundle(sqlite_log.engine, tmp_path / "b.zip", SIGNER.vkey, sleep=sign_meanwhile) == 4

    assert len(slept) == 3
    assert verify_bundle(tmp_path / "b.zip", vkey=SIGNER.vkey).ok


def test_the_export_tells_how_far_it_is(sqlite_log: Logbook, tmp_path: Path) -> None:
    """DESIGN, CLI: long work shows its progress on a terminal."""
    sqlite_log.grow(2100)
    heard: list[tuple[int, int]] = []

    export_bundle(
        sqlite_log.engine, tmp_path / "b.zip", SIGNER.vkey, progress=lambda *told: heard.append(told)
    )

    assert heard == [(1000, 2100), (2000, 2100), (2100, 2100)]


def test_an_entry_that_comes_while_the_bundle_is_written_is_not_in_it(log: Logbook, tmp_path: Path) -> None:
    """A bundle is one state of the log: its checkpoint covers all of its entries, whatever is sequenced meanwhile."""
    log.grow(2)
    grown: list[str] = []

    def grow_meanwhile(_conn: Connection, _cursor: object, statement: str, *_: object) -> None:
        if "audit_checkpoints" in statement and not grown:
            grown.append(statement)
            log.grow(1)

    event.listen(log.engine, "after_cursor_execute", grow_meanwhile)

    assert export_bundle(log.engine, tmp_path / "b.zip", SIGNER.vkey) == 2

    assert grown
    assert verify_bundle(tmp_path / "b.zip", vkey=SIGNER.vkey).ok


def test_the_export_does_not_hide_what_stays_unsigned(sqlite_log: Logbook, tmp_path: Path) -> None:
    """API: the export never judges; the verifier names the first entry that no checkpoint covers."""
    sqlite_log.grow(2)
    sqlite_log.stage(2)
    with pytest.raises(Killed):
        sqlite_log.sequencer(crash_at="sequencer.batch").run_once()

    export_bundle(sqlite_log.engine, tmp_path / "b.zip", SIGNER.vkey, patience_s=0.1, sleep=lambda _: None)

    verdict = verify_bundle(tmp_path / "b.zip", vkey=SIGNER.vkey)
    assert (verdict.ok, verdict.first_bad_seq) == (False, 2)
    assert "not signed yet" in (verdict.problem or "")


def test_the_steps_of_the_readme_check_the_log_by_hand(sqlite_log: Logbook, tmp_path: Path) -> None:
    """README.txt: with a shell, sha256sum and an Ed25519 tool, without any code of ours."""
    sqlite_log.grow(3)
    cosign(sqlite_log, WITNESSES[0])
    with ZipFile(sqlite_log.bundle(tmp_path / "b.zip")) as archive:
        archive.extractall(tmp_path)
        readme = archive.read("README.txt").decode()
    (command,) = [line.strip() for line in readme.splitlines() if "sha256sum" in line]

    hashed = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout.split()[0]

    stored = (tmp_path / "entries.jsonl").read_bytes().splitlines()
    leaves = [hashlib.sha256(b"\0" + line).digest() for line in stored]
    assert json.loads(stored[1])["prev"] == hashed == leaves[0].hex()
    pair = hashlib.sha256(b"\1" + leaves[0] + leaves[1]).digest()
    note = (tmp_path / "checkpoint").read_text("utf-8").split("\n")
    assert (note[1], b64decode(note[2])) == ("3", hashlib.sha256(b"\1" + pair + leaves[2]).digest())
    signature = b64decode(note[4].split(" ")[-1])[4:]
    public = b64decode((tmp_path / "keys/log.vkey").read_text().strip().split("+", 2)[2])[1:]
    text = "".join(f"{x}\n" for x in note[:3])
    Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode())
    cosignature = b64decode(note[5].split(" ")[-1])[4:]
    seconds = int.from_bytes(cosignature[:8], "big")
    witness = Ed25519PublicKey.from_public_bytes(b64decode(WITNESSES[0].vkey.split("+", 2)[2])[1:])
    witness.verify(cosignature[8:], f"cosignature/v1\ntime {seconds}\n{text}".encode())


def test_the_auditors_page_checks_a_log_by_hand(sqlite_log: Logbook, tmp_path: Path) -> None:
    """docs/audit-log.md: the commands that it shows do what it says, without any code of ours."""
    sqlite_log.grow(21)
    cosign(sqlite_log, *WITNESSES)
    sqlite_log.bundle(tmp_path / "log.zip")
    page = (Path(__file__).parents[2] / "docs" / "audit-log.md").read_text("utf-8")
    (shell,), (python, _) = (
        re.findall(f"```{language}\n(.*?)```", page, re.DOTALL) for language in ("sh", "python")
    )

    signature = subprocess.run(
        ["bash", "-euc", shell], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    chain = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, check=False)
    (tmp_path / "entries.jsonl").write_bytes(
        (tmp_path / "entries.jsonl").read_bytes().replace(b"rounds/7", b"rounds/8")
    )
    forged = subprocess.run([sys.executable, "-c", python], cwd=tmp_path, capture_output=True, check=False)

    assert (signature.returncode, signature.stdout.strip()) == (0, "Signature Verified Successfully"), (
        signature
    )
    assert chain.returncode == 0, chain
    assert b"bad at 8" in forged.stderr
