"""The verifier and the auditor's witnesses: a log that they did not see is found, though its own key signed it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logbook import SIGNER, chained, checkpoint, entries, lines, zipped

from audit.canonical import canonical
from audit.checkpoint import NoteSigner, parse_note
from audit.cosignature import CosignatureSigner
from audit.entry import Entry
from audit.errors import BadKey
from audit.verifier.verdict import Verdict
from audit.verify import main, verify_bundle

CHAIN = entries(12)
NOTE = checkpoint(CHAIN)
AT = datetime(2026, 11, 24, 13, tzinfo=UTC)
WITNESSES = [
    CosignatureSigner(f"witness{number}.example", Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)))
    for number in (1, 2, 3)
]
VKEYS = [witness.vkey for witness in WITNESSES]


def cosigned(note: str, *witnesses: CosignatureSigner) -> str:
    """The note with the lines of these witnesses."""
    return note + "".join(witness.cosign(parse_note(note).text, AT) for witness in witnesses)


def bundle(tmp_path: Path, note: str, *, chain: list[Entry] = CHAIN, **members: str) -> Path:
    """A bundle with further members."""
    path = zipped(tmp_path / "b.zip", lines(chain), note)
    with ZipFile(path, "a", ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def verify(path: Path, *, witnesses: list[str] = VKEYS, quorum: int | None = None) -> Verdict:
    return verify_bundle(path, vkey=SIGNER.vkey, witnesses=witnesses, quorum=quorum)


def test_a_log_that_all_witnesses_cosigned_verifies(tmp_path: Path) -> None:
    """Which of them when is told, to people and to machines."""
    verdict = verify(bundle(tmp_path, cosigned(NOTE, *WITNESSES)))

    assert verdict.ok, verdict.text()
    assert "the first 12 entries are cosigned by 3 witnesses: witness1.example+" in verdict.text()
    told = verdict.public()["witnessed"]
    assert isinstance(told, dict)
    assert told["size"] == 12
    assert told["cosignatures"][0]["time"] == "2026-11-24T13:00:00+00:00"
    assert verdict.remarks == ()


@pytest.mark.parametrize("quorum", [1, 2, 3, None])
def test_as_many_witnesses_are_needed_as_the_auditor_says(tmp_path: Path, quorum: int | None) -> None:
    """`--quorum N`; all that were given are needed without it."""
    verdict = verify(bundle(tmp_path, cosigned(NOTE, *WITNESSES[:2])), quorum=quorum)

    assert verdict.ok == (quorum in (1, 2))
    assert verdict.ok or "the checkpoint of 12 entries is cosigned by 2" in (verdict.problem or "")


def test_signatures_stand_in_any_order(tmp_path: Path) -> None:
    """The log's own need not be the first, and lines of others do not matter."""
    text, own = NOTE.split("\n\n")
    others = "".join(witness.cosign(f"{text}\n", AT) for witness in WITNESSES)
    stranger = CosignatureSigner("stranger.example", Ed25519PrivateKey.generate()).cosign("other\n", AT)

    assert verify(bundle(tmp_path, f"{text}\n\n{others}{stranger}{own}")).ok


def test_what_no_witness_has_seen_yet_is_told(tmp_path: Path) -> None:
    """The gateway asks its witnesses now and then: the newest entries may be ahead of them."""
    older = cosigned(checkpoint(CHAIN[:9]), *WITNESSES)

    verdict = verify(bundle(tmp_path, NOTE, witnessed=older))

    assert verdict.ok, verdict.text()
    assert verdict.witnessed is not None
    assert verdict.witnessed.size == 9
    assert verdict.remarks == ("the entries from seq 9 on are covered by no cosignature yet",)
    assert "the first 9 entries are those of the witnessed checkpoint" in verdict.checks


def forged() -> list[Entry]:
    """The log rewritten at seq 5 and chained anew."""
    members = {**CHAIN[5].members, "action": "forged"}
    return chained([*CHAIN[:5], Entry(members, canonical(members)), *CHAIN[6:]])


def test_a_log_rewritten_with_its_own_stolen_key_is_found(tmp_path: Path) -> None:
    """The forger has the log's key and no witness's: old cosignatures do not fit, and there are no new ones."""
    chain = forged()
    older = cosigned(checkpoint(CHAIN[:9]), *WITNESSES)

    with_the_old = verify(bundle(tmp_path, checkpoint(chain), chain=chain, witnessed=older))
    without = verify(bundle(tmp_path, checkpoint(chain), chain=chain))

    assert verify_bundle(tmp_path / "b.zip", vkey=SIGNER.vkey).ok
    assert (with_the_old.ok, with_the_old.first_bad_seq) == (False, 8)
    assert "rewritten" in (with_the_old.problem or "")
    assert not without.ok
    assert "witnesses are needed" in (without.problem or "")


def test_a_cosignature_moved_to_another_checkpoint_is_found(tmp_path: Path) -> None:
    """It covers the text that it stands under."""
    chain = forged()
    moved = checkpoint(chain) + cosigned(NOTE, *WITNESSES).removeprefix(NOTE)

    verdict = verify(bundle(tmp_path, moved, chain=chain))

    assert not verdict.ok
    assert "does not verify" in (verdict.problem or "")


def test_a_log_restored_from_an_old_backup_is_found(tmp_path: Path) -> None:
    """A cosigned tree larger than the log: entries are gone."""
    chain = CHAIN[:7]

    verdict = verify(bundle(tmp_path, checkpoint(chain), chain=chain, witnessed=cosigned(NOTE, *WITNESSES)))

    assert (verdict.ok, verdict.first_bad_seq) == (False, 7)
    assert "cut" in (verdict.problem or "")


def test_a_cosigned_checkpoint_that_the_log_did_not_sign_is_refused(tmp_path: Path) -> None:
    """Also where nobody asks for witnesses: what a bundle holds must hold."""
    forger = NoteSigner(SIGNER.origin, Ed25519PrivateKey.generate())
    note = forger.sign_text(parse_note(NOTE).text)

    verdict = verify_bundle(bundle(tmp_path, NOTE, witnessed=cosigned(note, *WITNESSES)), vkey=SIGNER.vkey)

    assert not verdict.ok
    assert "the witnessed checkpoint: the note bears no signature" in (verdict.problem or "")


@pytest.mark.parametrize("junk", ["", "junk", "x" * 1_100_000, "\x00\n\n\n", NOTE.replace("12", "99" * 12)])
def test_junk_in_the_place_of_a_witnessed_checkpoint_is_refused(tmp_path: Path, junk: str) -> None:
    """A clear finding, bounded in memory."""
    verdict = verify_bundle(bundle(tmp_path, NOTE, witnessed=junk), vkey=SIGNER.vkey)

    assert not verdict.ok
    assert "witnessed" in (verdict.problem or "")


def test_one_witness_counts_once(tmp_path: Path) -> None:
    """Also under two names; and what cannot be reached is the caller's mistake."""
    path = bundle(tmp_path, cosigned(NOTE, *WITNESSES))
    alias = CosignatureSigner("other.example", Ed25519PrivateKey.from_private_bytes(bytes([1] * 32)))

    for witnesses, quorum in (
        ([VKEYS[0]] * 2, 1),
        ([VKEYS[0], alias.vkey], 1),
        (VKEYS, 4),
        (VKEYS, 0),
        ([], 1),
    ):
        with pytest.raises(BadKey):
            verify(path, witnesses=witnesses, quorum=quorum)
    with pytest.raises(BadKey):
        verify(path, witnesses=[SIGNER.vkey])


def test_the_command_takes_witnesses_as_keys_and_as_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--witness VKEY|FILE` may be repeated, a file may name several; `--quorum` without any is wrong usage."""
    path = str(bundle(tmp_path, cosigned(NOTE, *WITNESSES[:2])))
    (tmp_path / "keys").write_text(f"{VKEYS[1]}\n{VKEYS[2]}\n")
    (tmp_path / "nobody").write_text("\n")
    options = ["--witness", VKEYS[0], "--witness", str(tmp_path / "keys")]

    assert main([path, *options, "--quorum", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["witness"].split("+")[0] for one in told["witnessed"]["cosignatures"]] == [
        "witness1.example",
        "witness2.example",
    ]
    assert main([path, *options]) == 1
    assert main([path, "--quorum", "2"]) == 2
    assert main([path, *options, "--quorum", "4"]) == 2
    assert main([path, "--witness", str(tmp_path / "none")]) == 2
    assert main([path, "--witness", str(tmp_path / "nobody")]) == 2  # not as if nobody had been asked for
    assert main([path, *options, "--quorum", "2", "--witness", str(tmp_path / "nobody")]) == 2
    assert main([path, "--witness", "nonsense+00000000+AAAA"]) == 2
