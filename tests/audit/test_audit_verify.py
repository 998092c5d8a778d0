"""Promise 2: with the public key and an older checkpoint or receipt, every change of the log is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import KeySet, OKPKey
from logbook import (
    SIGNER,
    Logbook,
    NotebookSealer,
    chained,
    checkpoint,
    entries,
    lines,
    make_draft,
    zipped,
)
from services.clock import FixedClock

from audit.canonical import canonical
from audit.checkpoint import NoteSigner
from audit.entry import FIRST_PREV, Entry, place
from audit.errors import BadKey
from audit.merkle import CompactRange
from audit.reading import reading
from audit.tree import prove
from audit.verifier.verdict import ReceiptVerdict
from audit.verify import main, verify_bundle

COUNT = 12
CHAIN = entries(COUNT)
NOTE = checkpoint(CHAIN)
NOW = datetime(2026, 11, 24, 13, tzinfo=UTC)


def altered(entry: Entry) -> Entry:
    """The same entry telling another story, in the same place."""
    return Entry(*_canonical({**entry.members, "action": "forged"}))


def _canonical(members: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    return members, canonical(members)


def renumbered(chain: Sequence[Entry]) -> list[Entry]:
    """Every entry with the number of its line, and the prev that it had."""
    return [entry.placed(seq, entry.prev) for seq, entry in enumerate(chain)]


def test_a_sound_log_verifies(tmp_path: Path) -> None:
    """A verdict says what was checked."""
    bundle = zipped(tmp_path / "b.zip", lines(CHAIN), NOTE)

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert verdict.ok, verdict.text()
    assert (verdict.size, verdict.origin, verdict.first_bad_seq, verdict.remarks) == (
        COUNT,
        "example.com/log",
        None,
        (),
    )
    assert len(verdict.checks) == 3
    assert "VERIFIED: 12 entries of example.com/log" in verdict.text()


def test_the_key_from_the_bundle_is_used_with_a_warning(tmp_path: Path) -> None:
    """Whoever made the bundle chose that key."""
    verdict = verify_bundle(zipped(tmp_path / "b.zip", lines(CHAIN), NOTE))

    assert verdict.ok
    assert "taken from the bundle itself" in verdict.remarks[0]


def test_a_log_signed_by_another_key_is_refused(tmp_path: Path) -> None:
    """A forger signs with a key of its own."""
    forger = NoteSigner("example.com/log", Ed25519PrivateKey.generate())
    tree = CompactRange()
    for entry in CHAIN:
        tree.append(entry.leaf())
    bundle = zipped(tmp_path / "b.zip", lines(CHAIN), forger.sign(COUNT, tree.root()), forger.vkey)

    assert verify_bundle(bundle).ok
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)
    assert not verdict.ok
    assert "checkpoint" in (verdict.problem or "")


@dataclass(frozen=True)
class Tampering:
    """What a forger without the key does to the entries, and the first bad place."""

    change: Callable[[list[Entry]], list[Entry]]
    first_bad: int


def swap(chain: list[Entry], one: int, other: int) -> list[Entry]:
    chain[one], chain[other] = chain[other], chain[one]
    return chain


FOREIGN = place(make_draft(NotebookSealer(), FixedClock(), 99).body(), 5, CHAIN[4].leaf().hex())
TAMPERINGS = {
    "an altered entry": Tampering(lambda c: [*c[:5], altered(c[5]), *c[6:]], 5),
    "an altered first entry": Tampering(lambda c: [altered(c[0]), *c[1:]], 0),
    "an altered last entry": Tampering(lambda c: [*c[:-1], altered(c[-1])], COUNT - 1),
    "the last but one altered": Tampering(lambda c: [*c[:-2], altered(c[-2]), c[-1]], COUNT - 2),
    "many altered entries": Tampering(lambda c: [*c[:5], *map(altered, c[5:9]), *c[9:]], 5),
    "all altered": Tampering(lambda c: [altered(entry) for entry in c], 0),
    "an altered prev": Tampering(lambda c: [*c[:5], c[5].placed(5, "a" * 64), *c[6:]], 5),
    "an altered first prev": Tampering(lambda c: [c[0].placed(0, "a" * 64), *c[1:]], 0),
    "an altered last prev": Tampering(lambda c: [*c[:-1], c[-1].placed(COUNT - 1, "a" * 64)], COUNT - 1),
    "a dropped entry": Tampering(lambda c: [*c[:5], *c[6:]], 5),
    "a dropped first entry": Tampering(lambda c: c[1:], 0),
    "a dropped last entry": Tampering(lambda c: c[:-1], COUNT - 1),
    "a dropped tail": Tampering(lambda c: c[:4], 4),
    "nothing left": Tampering(lambda _: [], 0),
    "dropped and numbered anew": Tampering(lambda c: renumbered([*c[:5], *c[6:]]), 5),
    "three dropped and numbered anew": Tampering(lambda c: renumbered([*c[:5], *c[8:]]), 5),
    "two swapped": Tampering(lambda c: swap(c, 3, 7), 3),
    "neighbours swapped": Tampering(lambda c: swap(c, 3, 4), 3),
    "neighbours swapped and numbered anew": Tampering(lambda c: renumbered(swap(c, 3, 4)), 3),
    "an inserted entry": Tampering(lambda c: [*c[:5], FOREIGN, *c[5:]], 5),
    "inserted and numbered anew": Tampering(lambda c: renumbered([*c[:5], FOREIGN, *c[5:]]), 5),
    "a doubled entry": Tampering(lambda c: [*c[:5], c[4], *c[5:]], 5),
    "an appended entry": Tampering(lambda c: chained([*c, FOREIGN]), COUNT),
    "all chained anew": Tampering(lambda c: chained([*c[:5], altered(c[5]), *c[6:]]), COUNT - 1),
    "inserted and chained anew": Tampering(lambda c: chained([*c[:5], FOREIGN, *c[5:]]), COUNT - 1),
    "dropped and chained anew": Tampering(lambda c: chained([*c[:5], *c[6:]]), COUNT - 1),
}


@pytest.mark.parametrize("tampering", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_every_change_is_found_and_its_place_named(tmp_path: Path, tampering: Tampering) -> None:
    """Promise 2: rewritten, dropped, reordered, inserted; the first bad seq is named.

    A log that was chained anew throughout breaks only at its root, so that its last place is named.
    """
    bundle = zipped(tmp_path / "b.zip", lines(tampering.change(list(CHAIN))), NOTE)

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert not verdict.ok
    assert verdict.first_bad_seq == tampering.first_bad
    assert f"NOT VERIFIED at seq {tampering.first_bad}" in verdict.text()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_any_flipped_bit_is_found_in_its_entry(tmp_path: Path, data: st.DataObject) -> None:
    """Promise 2: a flipped byte in entry k names k, wherever it is."""
    seq = data.draw(st.integers(0, COUNT - 1))
    line = bytearray(lines(CHAIN)[seq])
    position = data.draw(st.integers(0, len(line) - 2))
    line[position] ^= 1 << data.draw(st.integers(0, 7))
    changed = [*lines(CHAIN)[:seq], bytes(line), *lines(CHAIN)[seq + 1 :]]

    verdict = verify_bundle(zipped(tmp_path / "b.zip", changed, NOTE), vkey=SIGNER.vkey)

    assert not verdict.ok
    assert verdict.first_bad_seq == seq


def test_a_log_that_goes_on_from_an_older_checkpoint_verifies(tmp_path: Path) -> None:
    """`--since`: the older tree is the beginning of this one."""
    bundle = zipped(tmp_path / "b.zip", lines(CHAIN), NOTE)

    for size in range(COUNT + 1):
        verdict = verify_bundle(bundle, vkey=SIGNER.vkey, since=checkpoint(CHAIN[:size]))
        assert verdict.ok, verdict.text()
        assert f"the first {size} entries are those of the older checkpoint" in verdict.checks


def test_a_log_rewritten_and_signed_anew_is_found_by_an_older_checkpoint(tmp_path: Path) -> None:
    """Promise 2: the operator has the key, the auditor has an older checkpoint."""
    forged = chained([*CHAIN[:5], altered(CHAIN[5]), *CHAIN[6:]])
    bundle = zipped(tmp_path / "b.zip", lines(forged), checkpoint(forged))

    assert verify_bundle(bundle, vkey=SIGNER.vkey).ok
    assert verify_bundle(bundle, vkey=SIGNER.vkey, since=checkpoint(CHAIN[:5])).ok
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey, since=checkpoint(CHAIN[:6]))
    assert (verdict.ok, verdict.first_bad_seq) == (False, 5)


def test_a_log_shorter_than_an_older_checkpoint_is_found(tmp_path: Path) -> None:
    """Promise 2: a log restored from an old backup is found."""
    short = CHAIN[:7]
    bundle = zipped(tmp_path / "b.zip", lines(short), checkpoint(short))

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey, since=NOTE)

    assert (verdict.ok, verdict.first_bad_seq) == (False, 7)
    assert "cut" in (verdict.problem or "")


@pytest.mark.parametrize("since", ["", "nonsense", NOTE.replace("\n12\n", "\n11\n"), NOTE[:-9]])
def test_an_older_checkpoint_that_is_not_genuine_is_refused(tmp_path: Path, since: str) -> None:
    """An unsigned note says nothing."""
    verdict = verify_bundle(zipped(tmp_path / "b.zip", lines(CHAIN), NOTE), vkey=SIGNER.vkey, since=since)

    assert not verdict.ok
    assert "older checkpoint" in (verdict.problem or "")


RECEIPT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
JWK = OKPKey.import_key(
    RECEIPT_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)
JWKS = json.dumps({"keys": [{"kty": "RSA", "kid": "r"}, {**JWK.as_dict(private=False), "kid": "k1"}]})


def receipt(entry_id: str, digest: bytes, *, key: Ed25519PrivateKey = RECEIPT_KEY, **changes: Any) -> str:
    """A receipt as the gateway signs it, by another implementation of JWS."""
    header = {"alg": "Ed25519", "typ": "fl-receipt+jwt", "kid": "k1"} | changes.pop("header", {})
    payload = {
        "entry_id": entry_id,
        "entry_digest": digest.hex(),
        "body_hash": "0" * 64,
        "received_at": "2026-11-24T12:00:00.000000Z",
        "origin": "example.com/log",
        "max_delay": 86_400,
    } | changes
    private = OKPKey.import_key(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # RFC 9864 calls the name EdDSA deprecated; API.md uses it
        return jws.serialize_compact(
            header, json.dumps(payload).encode(), private, algorithms=["EdDSA", "Ed25519"]
        )


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return zipped(tmp_path / "sound.zip", lines(CHAIN), NOTE)


@pytest.mark.parametrize("algorithm", ["EdDSA", "Ed25519"])
def test_a_receipt_whose_entry_is_in_the_log_is_proven(sound: Path, algorithm: str) -> None:
    """RULES 21: the verifier recomputes the digest from the canonical entry."""
    given = receipt(CHAIN[4].id, CHAIN[4].digest(), header={"alg": algorithm})

    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[given], jwks=JWKS)

    assert verdict.ok, verdict.text()
    (finding,) = verdict.receipts
    assert (finding.verdict, finding.seq, finding.is_signature_checked) == (ReceiptVerdict.PROVEN, 4, True)


def test_an_unchecked_receipt_is_said_to_be_unchecked(sound: Path) -> None:
    """Without the receipt key its signature is believed, and the verdict says so."""
    given = receipt(CHAIN[4].id, CHAIN[4].digest(), key=Ed25519PrivateKey.generate())

    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[given])

    assert verdict.ok
    assert "not checked" in verdict.text()


def test_other_content_under_the_promised_id_is_found(sound: Path) -> None:
    """RULES 21: the operator cannot put other content under the id."""
    given = receipt(CHAIN[4].id, altered(CHAIN[4]).digest())

    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[given], jwks=JWKS)

    assert (verdict.ok, verdict.first_bad_seq) == (False, 4)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [(0, "not_due"), (24, "not_due"), (25, "overdue_missing"), (1000, "overdue_missing")],
)
def test_a_missing_entry_is_judged_by_its_time(sound: Path, hours: int, expected: str) -> None:
    """RULES 21: proven, not_due, overdue_missing."""
    given = receipt("018f0000-0000-7000-8000-000000000001", bytes(32))
    now = datetime(2026, 11, 24, 12, tzinfo=UTC) + timedelta(hours=hours)

    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[given], jwks=JWKS, now=now)

    assert verdict.ok == (expected == "not_due")
    assert [finding.verdict for finding in verdict.receipts] == [expected]
    assert expected in verdict.text()


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a.b",
        "a.b.c",
        "e30.e30.AAAA",
        receipt(CHAIN[4].id, CHAIN[4].digest(), key=Ed25519PrivateKey.generate()),
        receipt(CHAIN[4].id, CHAIN[4].digest(), header={"typ": "JWT"}),
        receipt(CHAIN[4].id, CHAIN[4].digest(), header={"kid": "k2"}),
        receipt(CHAIN[4].id, CHAIN[4].digest(), origin="example.com/other"),
        receipt(CHAIN[4].id, CHAIN[4].digest(), max_delay="24h"),
        receipt(CHAIN[4].id, CHAIN[4].digest(), max_delay=10**12),
        receipt(CHAIN[4].id, CHAIN[4].digest(), received_at="yesterday"),
        receipt(CHAIN[4].id, CHAIN[4].digest(), received_at="2026-11-24T12:00:00"),
        receipt(CHAIN[4].id, b"short"),
        receipt(CHAIN[4].id, CHAIN[4].digest()) + "=",
        "é" + receipt(CHAIN[4].id, CHAIN[4].digest()),
        receipt(CHAIN[4].id, CHAIN[4].digest())[:-4] + "AAAA",
    ],
)
def test_a_receipt_that_is_not_genuine_is_refused(sound: Path, given: str) -> None:
    """A clear negative finding, never another error."""
    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[given], jwks=JWKS, now=NOW)

    assert not verdict.ok
    assert "receipt" in (verdict.problem or "")


def test_receipt_keys_may_be_one_key_in_pem(sound: Path) -> None:
    """`--jwks` takes a public key file as well."""
    pem = RECEIPT_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    verdict = verify_bundle(
        sound, vkey=SIGNER.vkey, receipts=[receipt(CHAIN[4].id, CHAIN[4].digest())], jwks=pem
    )

    assert verdict.ok
    assert KeySet([JWK]).keys


def test_a_receipt_that_is_due_behind_the_end_of_the_calendar_is_not_due(sound: Path) -> None:
    """Its time is whatever somebody wrote into it."""
    late = receipt("0" * 36, bytes(32), received_at="9999-12-31T23:59:59Z")

    verdict = verify_bundle(sound, vkey=SIGNER.vkey, receipts=[late], now=NOW)

    assert [finding.verdict for finding in verdict.receipts] == [ReceiptVerdict.NOT_DUE]


@pytest.mark.parametrize(
    "jwks", ["", "{}", "[]", '{"keys": 1}', '{"keys": [{"kty": "OKP"}]}', "-----BEGIN x"]
)
def test_malformed_receipt_keys_are_the_callers_mistake(sound: Path, jwks: str) -> None:
    """Wrong usage, not a finding about the log."""
    with pytest.raises(BadKey):
        verify_bundle(sound, jwks=jwks)


def test_an_earlier_proof_file_pins_its_entry_and_its_tree(sqlite_log: Logbook, tmp_path: Path) -> None:
    """`--receipt` takes the proof file that GET …/receipt answered: the entry, and an older checkpoint."""
    sqlite_log.grow(5)
    with reading(sqlite_log.engine) as conn:
        proof = prove(conn, 2)
    assert proof is not None
    sqlite_log.grow(5)
    bundle = sqlite_log.bundle(tmp_path / "log.zip")

    assert verify_bundle(bundle, vkey=SIGNER.vkey, receipts=[proof.text()]).ok
    other = zipped(tmp_path / "other.zip", lines(CHAIN), NOTE)
    assert not verify_bundle(other, vkey=SIGNER.vkey, receipts=[proof.text()]).ok
    assert not verify_bundle(
        bundle, vkey=SIGNER.vkey, receipts=[proof.text().replace("index 2", "index 1")]
    ).ok


def test_a_time_that_goes_back_is_told_and_is_no_failure(tmp_path: Path) -> None:
    """RULES 22: time may lag by up to 60 s; more is reported."""
    clock, sealer = FixedClock(), NotebookSealer()
    drafts = []
    for seconds in (0, 100, -59, 0, -2, 120):
        clock.advance(timedelta(seconds=seconds))
        drafts.append(make_draft(sealer, clock, 0))
    chain: list[Entry] = []
    for seq, draft in enumerate(drafts):
        chain.append(place(draft.body(), seq, chain[-1].leaf().hex() if chain else FIRST_PREV))

    verdict = verify_bundle(zipped(tmp_path / "b.zip", lines(chain), checkpoint(chain)), vkey=SIGNER.vkey)

    assert verdict.ok
    assert verdict.remarks == (
        "1 entries, the first at seq 4, are dated more than 60 s before one that precedes them",
    )


SQL_TAMPERINGS = {
    "UPDATE audit_log SET canonical = replace(canonical, 'rounds/4', 'rounds/9') WHERE seq = 4": 4,
    "UPDATE audit_log SET canonical = replace(canonical, 'success', 'failure') WHERE seq >= 4": 4,
    "DELETE FROM audit_log WHERE seq = 4": 4,
    "DELETE FROM audit_log WHERE seq >= 4": 4,
    "UPDATE audit_log SET seq = -1 WHERE seq = 4": 0,
    "INSERT INTO audit_log SELECT 8, 'x', canonical, leaf_hash, event_type, time FROM audit_log WHERE seq = 7": 8,
}


@pytest.mark.parametrize("sql", SQL_TAMPERINGS, ids=range(len(SQL_TAMPERINGS)))
def test_what_an_operator_changes_in_the_database_is_found(log: Logbook, tmp_path: Path, sql: str) -> None:
    """Promise 2: the export writes what is there and repairs nothing."""
    log.grow(8)
    log.tamper(sql)

    verdict = verify_bundle(log.bundle(tmp_path / "b.zip"), vkey=SIGNER.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, SQL_TAMPERINGS[sql])


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "audit.verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_exits_0_on_a_sound_log(sound: Path, tmp_path: Path) -> None:
    """DESIGN, CLI: 0 on success; `--json` prints machine output."""
    (tmp_path / "vkey").write_text(SIGNER.vkey + "\n")
    (tmp_path / "since").write_text(checkpoint(CHAIN[:3]))
    (tmp_path / "jwks").write_text(JWKS)
    (tmp_path / "answer.json").write_text(json.dumps({"receipt": receipt(CHAIN[1].id, CHAIN[1].digest())}))
    options = ["--vkey", tmp_path / "vkey", "--since", tmp_path / "since", "--jwks", tmp_path / "jwks"]
    receipts = ["--receipt", receipt(CHAIN[2].id, CHAIN[2].digest()), "--receipt", tmp_path / "answer.json"]

    done = run(sound, *options, *receipts, "--json")

    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["ok"], told["size"], told["first_bad_seq"]) == (True, COUNT, None)
    assert [finding["verdict"] for finding in told["receipts"]] == ["proven", "proven"]


def test_the_command_exits_1_and_names_the_first_bad_seq(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DESIGN, CLI: 1 on a negative finding."""
    bundle = zipped(tmp_path / "b.zip", lines([*CHAIN[:5], altered(CHAIN[5]), *CHAIN[6:]]), NOTE)

    assert main([str(bundle)]) == 1
    assert "NOT VERIFIED at seq 5" in capsys.readouterr().out


def test_the_command_exits_2_on_wrong_usage(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DESIGN, CLI: 2 on wrong usage."""
    (tmp_path / "vkey").write_text("nonsense")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "answer.json").write_text('{"other": 1}')

    assert main([str(tmp_path / "missing.zip")]) == 2
    assert main([str(sound), "--vkey", str(tmp_path / "vkey")]) == 2
    assert main([str(sound), "--vkey", str(tmp_path / "missing")]) == 2
    assert main([str(sound), "--since", str(tmp_path / "binary")]) == 2
    assert main([str(sound), "--receipt", str(tmp_path / "answer.json")]) == 2
    with pytest.raises(SystemExit) as leaving:
        main([])
    assert leaving.value.code == 2
    capsys.readouterr()


def test_an_answer_nested_without_end_is_wrong_usage(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Receipts come from the gateway: no file of it makes the verifier stumble."""
    (tmp_path / "answer.json").write_text('{"a":' * 100_000)

    assert main([str(sound), "--receipt", str(tmp_path / "answer.json")]) == 2
    assert "nested too deep" in capsys.readouterr().err


def test_a_terminal_that_lacks_a_letter_shows_the_verdict_all_the_same(tmp_path: Path) -> None:
    """An event type of a later version, on a console without Unicode."""
    members = {**CHAIN[0].members, "event_type": "\u65e5\u672c"}
    chain = [Entry(*_canonical(members))]
    bundle = zipped(tmp_path / "b.zip", lines(chain), checkpoint(chain))
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}

    done = subprocess.run(
        [sys.executable, "-m", "audit.verify", str(bundle)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "does not know: '??'" in done.stdout


def test_an_auditor_needs_neither_database_nor_framework(sound: Path) -> None:
    """DESIGN, The house: the verifier runs on the standard library and `cryptography`."""
    program = (
        "import sys; from audit.verify import main; code = main(sys.argv[1:]);"
        "bad = {'sqlalchemy', 'numpy', 'pydantic', 'joserfc', 'flask', 'httpx', 'rfc8785'} & set(sys.modules);"
        "sys.exit(code or len(bad))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(sound)], capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_progress_is_told_now_and_then(tmp_path: Path) -> None:
    """DESIGN, CLI: long work shows a progress bar."""
    chain, heard = entries(2100), list[tuple[int, int]]()

    verify_bundle(
        zipped(tmp_path / "b.zip", lines(chain), checkpoint(chain)),
        progress=lambda done, total: heard.append((done, total)),
    )

    assert heard == [(1000, 2100), (2000, 2100)]
