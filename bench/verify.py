"""The verifier, every check on, beside reading, JSON-parsing and hashing the same bytes in plain Python.

CPU time of one run: each way reads the whole bundle from the ZIP, in turn. The entries are made by the audit package's
own code, with fields of the sizes that the real key store gives; ids, times and places differ, and ciphertexts repeat
further apart than the compression looks back. The goal is that of the issue "The audit log that an outsider can trust".
"""

from __future__ import annotations

import json
import re
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import chain
from pathlib import Path
from random import Random
from typing import TypeAlias
from zipfile import ZipFile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit.bundle import write_entries
from audit.canonical import JsonValue
from audit.checkpoint import NoteSigner, SignedTree, checkpoint_text
from audit.cosignature import CosignatureSigner
from audit.draft import Personal, draft
from audit.entry import FIRST_PREV, Sealed, place, time_text
from audit.events import EventType, Outcome, Retention
from audit.merkle import CompactRange, leaf_hash
from audit.proof import Proof
from audit.verifier.opening import ENTRIES
from audit.verify import verify_bundle
from bench.figures import Figure, cpu_seconds, options, report
from compliance.keyring.sealing import pad

_GOAL = 3.0
_PAGE = 1000
_SEAL_BYTES = 12 + 16  # nonce and tag
_TEMPLATES = 400  # of about a kilobyte: deflate looks back 32
_BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)
_APART = timedelta(milliseconds=40)
_HASH = sha256(b"x").hexdigest()
_UUID = "018f0000-0000-7000-8000-%012x"

_CHECKS = 6  # signature, chain, root, two older checkpoints, cosignature

Details: TypeAlias = "dict[str, JsonValue | Personal]"


@dataclass(frozen=True, slots=True)
class Held:
    """What the auditor holds: the key, an older checkpoint, a witness's key, and a proof file of the first entry."""

    vkey: str
    since: str
    witness: str
    proof: str


def main() -> None:
    """Measure and print."""
    chosen = options(__doc__ or "")
    count, rounds = (100_000, 3) if chosen.quick else (1_000_000, 1)
    with tempfile.TemporaryDirectory(prefix="flg-bench-") as folder:
        bundle = Path(folder) / "log.zip"
        held = write(bundle, count)
        verified, plain = cpu_seconds([lambda: _verify(bundle, held, count), lambda: _plain(bundle)], rounds)
    figure = Figure(
        f"verifying {count} entries, CPU time of an entry",
        verified / count * 1e6,
        "us",
        "reading, json.loads and SHA-256",
        plain / count * 1e6,
        goal=_GOAL,
        at_most=True,
    )
    report([figure], ("cryptography",), as_json=chosen.json)


def _verify(bundle: Path, held: Held, count: int) -> None:
    verdict = verify_bundle(
        bundle, vkey=held.vkey, since=held.since, witnesses=[held.witness], receipts=[held.proof]
    )
    assert (verdict.ok, verdict.size, verdict.remarks) == (True, count, ()), verdict.text()
    assert len(verdict.checks) == _CHECKS, verdict.text()


def _plain(bundle: Path) -> None:
    """What anybody would write first."""
    with ZipFile(bundle) as archive, archive.open(ENTRIES) as lines:
        for line in lines:
            json.loads(line)
            sha256(line).digest()


# The bundle


def write(bundle: Path, count: int) -> Held:
    """Write a bundle of so many entries, made twice over: its checkpoint stands before them and covers them."""
    signer = NoteSigner("bench.example/log", Ed25519PrivateKey.generate())
    witness = CosignatureSigner("bench.example/witness", Ed25519PrivateKey.generate())
    tree = CompactRange()
    for entry in chain.from_iterable(_pages(count)):
        if tree.size == 0:
            first = Proof(0, (), signer.sign(1, leaf_hash(entry)), entry)
        if tree.size == count // 2:
            since = signer.sign(tree.size, tree.root())
        tree.append(leaf_hash(entry))
    text = checkpoint_text(SignedTree(signer.origin, tree.size, tree.root()))
    note = signer.sign(tree.size, tree.root()) + witness.cosign(text, _BEGIN)
    write_entries(bundle, note, signer.vkey, _pages(count))
    return Held(signer.vkey, since, witness.vkey, first.text())


def _pages(count: int) -> Iterator[list[bytes]]:
    templates, prev = [_template(number) for number in range(_TEMPLATES)], FIRST_PREV.encode()
    page: list[bytes] = []
    for seq in range(count):
        at = time_text(_BEGIN + seq * _APART).encode()
        entry = templates[seq % _TEMPLATES] % ((_UUID % seq).encode(), prev, seq, at)
        prev = leaf_hash(entry).hex().encode()
        page.append(entry)
        if len(page) == _PAGE:
            yield page
            page = []
    yield page


def _template(number: int) -> bytes:
    """The canonical bytes of an entry, with places for id, prev, seq and time."""
    event_type, resource, details = _event(number)
    sealer = _SizedSealer(Random(number))
    person = Personal(f"subject-{number}", f"client-{number:030}")
    made = draft(
        event_type,
        sealer=sealer,
        now=_BEGIN,
        actor=person,
        action=event_type.rpartition(".")[2],
        resource=resource,
        outcome=Outcome.DENIED if event_type is EventType.ACCESS_REFUSED else Outcome.SUCCESS,
        request_id=_UUID % number,
        trace_id=_HASH[:32],
        ip_address=Personal(person.subject, "192.0.2.1"),
        details=details,
    )
    whole = place(made.body(), 0, FIRST_PREV).canonical.replace(b"%", b"%%")
    for name, hole in (("id", b'"%b"'), ("prev", b'"%b"'), ("seq", b"%d"), ("time", b'"%b"')):
        whole, found = re.subn(rb'(?<=,"%b":)("[^"]*"|0)' % name.encode(), hole, whole)
        assert found == 1, name
    return whole


def _event(number: int) -> tuple[EventType, str, Details]:
    """A round's traffic: of twenty entries twelve are updates, four tokens, three downloads, one a refusal."""
    match number % 20:
        case 0:
            return (
                EventType.ACCESS_REFUSED,
                "api",
                {"reason": "INSUFFICIENT_SCOPE", "status": 403, "count": 1},
            )
        case 1 | 2 | 3:
            told: Details = {
                "model_id": _UUID % number,
                "model_version": "1.4.0",
                "checksum": _HASH,
                "status": 200,
            }
            return EventType.MODEL_DOWNLOADED, "models/1.4.0", told
        case 4 | 5 | 6 | 7:
            scope = "training:participate model:download"
            return (
                EventType.TOKEN_ISSUED,
                "tokens",
                {"scope": scope, "auth": "client_secret", "lifetime_s": 900},
            )
        case _:
            return EventType.UPDATE_ACCEPTED, "round/17", _update(number)


def _update(number: int) -> Details:
    owner = f"subject-{number}"
    return {
        "round_number": 17,
        "size_bytes": 41_943_040,
        "policy_hash": _HASH,
        "update_mac": _HASH,
        "update_id": Personal(owner, _UUID % number),
        "client_id": Personal(owner, _UUID % number),
    }


class _SizedSealer:
    """Stands for the key store: ciphertexts of the true length."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def seal(
        self, subject: str, retention: Retention, context: str, value: JsonValue, at: datetime
    ) -> Sealed:
        del context  # the real one binds it to the ciphertext
        hidden = self._random.randbytes(_SEAL_BYTES + len(pad(value)))
        return Sealed(b64encode(hidden).decode(), sha256(f"{subject}/{retention}/{at}".encode()).hexdigest())

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        raise NotImplementedError("nothing is read here")


if __name__ == "__main__":
    main()
