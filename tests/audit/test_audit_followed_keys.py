"""The verifier and a log whose key changed: who trusts the old key goes on to the new one, and to no other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logbook import ORIGIN, NotebookSealer, chained, make_draft
from services.clock import FixedClock

from audit.bundle import write_entries
from audit.canonical import JsonValue
from audit.checkpoint import NoteSigner, NoteVerifier
from audit.draft import Personal, draft
from audit.entry import Entry, place
from audit.events import EventType
from audit.key_succession import statement, written_time
from audit.merkle import CompactRange
from audit.proof import Proof
from audit.verifier.log_keys import LogKeys
from audit.verifier.verdict import Verdict
from audit.verify import verify_bundle

UNTIL = datetime(2026, 12, 24, tzinfo=UTC)
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in (1, 2, 3, 4)]
ONE, TWO, THREE, OTHER = (NoteSigner(ORIGIN, key) for key in KEYS)


def announcement(old: int, new: int, *, by: tuple[int, int] | None = None) -> Entry:
    """The entry that announces a key, signed by both of them or by others."""
    new_by, old_by = by or (new, old)
    told: dict[str, JsonValue] = {
        "use": "log",
        "old_kid": "o",
        "new_kid": "n",
        "old_vkey": NoteSigner(ORIGIN, KEYS[old]).vkey,
        "new_vkey": NoteSigner(ORIGIN, KEYS[new]).vkey,
        "both_until": written_time(UNTIL),
        "statement": statement(NoteSigner(ORIGIN, KEYS[new_by], KEYS[old_by]), UNTIL),
    }
    made = draft(
        EventType.KEYS_ROTATED,
        sealer=NotebookSealer(),
        now=FixedClock()(),
        actor=Personal("system", "system"),
        action="rotated",
        details=told,
    )
    return place(made.body(), 0, "0" * 64)


def log(*announced: tuple[int, Entry]) -> list[Entry]:
    """Twenty entries, among them these announcements at these places."""
    clock, sealer = FixedClock(), NotebookSealer()
    bodies = [place(make_draft(sealer, clock, number).body(), 0, "0" * 64) for number in range(20)]
    for seq, entry in announced:
        bodies[seq] = entry
    return chained(bodies)


def signed(chain: Sequence[Entry], signer: NoteSigner) -> str:
    tree = CompactRange()
    for entry in chain:
        tree.append(entry.leaf())
    return signer.sign(tree.size, tree.root())


def both(new: int, old: int) -> NoteSigner:
    return NoteSigner(ORIGIN, KEYS[new], KEYS[old])


TWICE = log((5, announcement(0, 1)), (12, announcement(1, 2)))
ROTATIONS = [signed(TWICE[:6], both(1, 0)), signed(TWICE[:14], both(2, 1))]
NEWEST = signed(TWICE, THREE)


def verify(
    folder: Path,
    chain: Sequence[Entry],
    note: str,
    rotations: Sequence[str],
    vkey: str,
    since: str | None = None,
    receipts: Sequence[str] = (),
) -> Verdict:
    path = folder / "b.zip"
    write_entries(path, note, THREE.vkey, [[entry.canonical for entry in chain]], rotations=rotations)
    return verify_bundle(path, vkey=vkey, since=since, receipts=receipts)


@pytest.mark.parametrize(("signer", "followed"), [(ONE, 2), (TWO, 1), (THREE, 0)])
def test_who_holds_an_old_key_follows_to_the_newest(
    tmp_path: Path, signer: NoteSigner, followed: int
) -> None:
    """Each change is told with the entry that announces it, and the key that signed in the end."""
    verdict = verify(tmp_path, TWICE, NEWEST, ROTATIONS, signer.vkey)

    assert verdict.ok, verdict.text()
    assert verdict.signed_by == THREE.vkey
    assert verdict.text().count("under both keys") == followed
    assert verdict.remarks == ()


def test_who_holds_a_key_that_still_signs_is_told_of_the_next(tmp_path: Path) -> None:
    """While both sign, the old key is enough; the new one is to be kept."""
    chain = log((5, announcement(0, 1)))

    verdict = verify(tmp_path, chain, signed(chain, both(1, 0)), [signed(chain[:6], both(1, 0))], ONE.vkey)

    assert verdict.ok, verdict.text()
    assert verdict.signed_by == ONE.vkey
    (remark,) = verdict.remarks
    assert remark.startswith(f"the entry 5 announces that {TWO.vkey} follows")


def test_evidence_under_an_earlier_or_a_later_key_counts(tmp_path: Path) -> None:
    """A checkpoint kept for years bears the key of its time, which is not the one that the auditor holds now."""
    early, late = signed(TWICE[:3], ONE), signed(TWICE[:18], THREE)
    forged = signed([*TWICE[:2], *TWICE[3:4]], ONE)

    for vkey in (ONE.vkey, TWO.vkey, THREE.vkey):
        assert verify(tmp_path, TWICE, NEWEST, ROTATIONS, vkey, since=early).ok
        assert verify(tmp_path, TWICE, NEWEST, ROTATIONS, vkey, since=late).ok
        found = verify(tmp_path, TWICE, NEWEST, ROTATIONS, vkey, since=forged)
        assert (found.ok, found.first_bad_seq) == (False, 2)
        stranger = verify(tmp_path, TWICE, NEWEST, ROTATIONS, vkey, since=signed(TWICE[:3], OTHER))
        assert not stranger.ok
        assert "the older checkpoint: the note bears no signature" in (stranger.problem or "")


def test_a_proof_file_under_an_earlier_key_counts(tmp_path: Path) -> None:
    """`--receipt` takes proof files of any time."""
    proof = Proof(0, (), signed(TWICE[:1], ONE), TWICE[0].canonical)
    wrong = Proof(0, (), signed(TWICE[1:2], ONE), TWICE[0].canonical)

    assert verify(tmp_path, TWICE, NEWEST, ROTATIONS, THREE.vkey, receipts=[proof.text()]).ok
    assert not verify(tmp_path, TWICE, NEWEST, ROTATIONS, THREE.vkey, receipts=[wrong.text()]).ok


Attack = tuple[list[Entry], str, list[str]]


def attacks() -> dict[str, Attack]:
    """Bundles that somebody without the first key might make, to be believed by who holds it."""
    by_new_alone = log((5, announcement(0, 1, by=(1, 1))))
    by_strangers = log((5, announcement(0, 1, by=(1, 3))))
    unannounced = log()
    good = log((5, announcement(0, 1)))
    elsewhere = log((7, announcement(0, 1)))
    return {
        "nothing announces the key": (unannounced, signed(unannounced, TWO), [signed(unannounced[:6], ONE)]),
        "the new key alone announces itself": (
            by_new_alone,
            signed(by_new_alone, TWO),
            [signed(by_new_alone[:6], ONE)],
        ),
        "another key announces it": (
            by_strangers,
            signed(by_strangers, TWO),
            [signed(by_strangers[:6], ONE)],
        ),
        "no checkpoint of the old key covers it": (good, signed(good, TWO), [signed(good[:5], ONE)]),
        "only the new key signed what covers it": (good, signed(good, TWO), [signed(good[:6], TWO)]),
        "the members are gone": (good, signed(good, TWO), []),
        "they are of another log": (good, signed(good, TWO), [signed(elsewhere[:8], both(1, 0))]),
        "the key is a third one": (good, signed(good, OTHER), [signed(good[:6], both(1, 0))]),
        "the change is one of two": (good, signed(good, THREE), [signed(good[:6], both(1, 0))]),
    }


@pytest.mark.parametrize("attack", attacks().values(), ids=attacks().keys())
def test_a_key_that_was_not_rightly_announced_is_refused(tmp_path: Path, attack: Attack) -> None:
    """An entry under both keys, covered by a checkpoint of the old key that is the beginning of this log."""
    verdict = verify(tmp_path, *attack, ONE.vkey)

    assert not verdict.ok
    assert "checkpoint" in (verdict.problem or "")


STOLEN: dict[str, tuple[Sequence[NoteSigner], str]] = {
    "the stolen key alone": ([ONE], ONE.vkey),
    "a key that the stolen one announces": ([both(3, 0)], ONE.vkey),
    "that key alone, in the end": ([both(3, 0), OTHER], ONE.vkey),
    "the key between": ([TWO], TWO.vkey),
}


@pytest.mark.parametrize(("thief", "vkey"), STOLEN.values(), ids=STOLEN.keys())
def test_who_stole_an_old_key_leads_nobody_away_who_keeps_a_newer_checkpoint(
    tmp_path: Path, thief: Sequence[NoteSigner], vkey: str
) -> None:
    """The kept tree holds the announcement of the key that took over: from there on the old one speaks no more."""
    kept = {ONE.vkey: 8, TWO.vkey: 14}[vkey]
    forged = chained([*TWICE[:kept], announcement(0, 3), *log()[:3]])
    since = signed(TWICE[:kept], both(1, 0) if vkey == ONE.vkey else both(2, 1))
    rotations = [signed(forged[: kept + 1], signer) for signer in thief[:-1]]

    verdict = verify(tmp_path, forged, signed(forged, thief[-1]), rotations, vkey, since=since)

    assert not verdict.ok
    assert "the checkpoint: " in (verdict.problem or "")


def test_a_key_that_was_announced_and_never_signed_is_none_that_took_over(tmp_path: Path) -> None:
    """The first checkpoint with an announcement bears both signatures, so that a lost key stops nobody."""
    chain = log((5, announcement(0, 3)), (9, announcement(0, 1)))

    verdict = verify(tmp_path, chain, signed(chain, TWO), [signed(chain[:10], both(1, 0))], ONE.vkey)

    assert verdict.ok, verdict.text()
    assert verdict.signed_by == TWO.vkey


def test_of_the_keys_that_sign_together_the_newest_is_told(tmp_path: Path) -> None:
    """It is the one to keep."""
    verdict = verify(tmp_path, TWICE, signed(TWICE, both(2, 1)), ROTATIONS, ONE.vkey)

    assert verdict.ok, verdict.text()
    assert verdict.signed_by == THREE.vkey


@pytest.mark.parametrize("junk", ["", "junk", "x" * 60_000, "\x00", f"{ORIGIN}\n1\nAAAA\n\n"])
def test_junk_among_the_changes_of_keys_is_refused(tmp_path: Path, junk: str) -> None:
    """A clear finding that names the member, or its size."""
    verdict = verify(tmp_path, TWICE, NEWEST, [ROTATIONS[0], junk], ONE.vkey)

    assert not verdict.ok
    assert "rotations/0002" in (verdict.problem or "")


def test_a_log_that_announces_keys_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of a hostile log is bounded."""
    monkeypatch.setattr("audit.verifier.log_keys._MAX_CHANGES", 3)
    chain = log(*((seq, announcement(0, 1)) for seq in range(5)))

    verdict = verify(tmp_path, chain, signed(chain, ONE), [], ONE.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, 3)


def test_one_announcement_again_and_again_costs_no_more_than_once() -> None:
    """Anybody can copy it into a log of his own: the long search for what a key signed is made once."""
    asked: list[str] = []

    def reach(key: NoteVerifier) -> int:
        asked.append(key.vkey)
        return 0

    keys = LogKeys(NoteVerifier.parse(ONE.vkey))
    for entry in log(*((seq, announcement(0, 1)) for seq in range(20))):
        keys.hear(entry)

    assert keys.followers(reach) == []
    assert asked == [ONE.vkey]
