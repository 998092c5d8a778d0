"""The console's own checker of proofs (`console/static/proof.js`) under WebCrypto: true ones, and each forgery."""

from __future__ import annotations

import json
import subprocess
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import which

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from logbook import ORIGIN, SIGNER, entries

from audit.checkpoint import NoteSigner
from audit.entry import Entry
from audit.merkle import CompactRange, prove_inclusion
from audit.proof import Proof

SCRIPT = Path(__file__).parents[2] / "gateway" / "console" / "static" / "proof.js"
OTHER = NoteSigner(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(32)))
RUN = """
import { readFileSync } from "node:fs";
const { checkProof } = await import(process.argv[1]);
const answers = [];
for (const { text, vkey, seq } of JSON.parse(readFileSync(0, "utf-8"))) {
  const told = [];
  try {
    const proven = await checkProof(text, vkey, seq, (step) => told.push(step));
    answers.push({ told, id: proven.entry.id, size: proven.size, root: proven.root });
  } catch (error) {
    answers.push({ told, step: error.step, fact: error.fact ?? String(error) });
  }
}
console.log(JSON.stringify(answers));
"""
ALL_STEPS = ["key", "entry", "leaf", "path", "checkpoint", "signature"]


@dataclass(frozen=True)
class Case:
    """What a page would be given."""

    text: str
    vkey: str = SIGNER.vkey
    seq: int = 0


class Leaves:
    """The perfect subtrees of a chain of entries."""

    def __init__(self, chain: list[Entry]) -> None:
        self.leaves = [entry.leaf() for entry in chain]

    def node(self, level: int, index: int) -> bytes:
        tree = CompactRange()
        for leaf in self.leaves[index << level : (index + 1) << level]:
            tree.append(leaf)
        return tree.root()


def checked(*cases: Case) -> list[dict[str, object]]:
    """What the script says of each, under Node.js, which has the browsers' WebCrypto."""
    node = which("node")
    assert node, "there is no Node.js: install nodejs, as deploy/debian-packages.txt says"
    told = json.dumps([{"text": case.text, "vkey": case.vkey, "seq": case.seq} for case in cases])
    run = subprocess.run(
        [node, "--input-type=module", "-e", RUN, SCRIPT.as_uri()],
        input=told,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers: list[dict[str, object]] = json.loads(run.stdout)
    return answers


def proof_of(chain: list[Entry], seq: int, *, signer: NoteSigner = SIGNER) -> Proof:
    """The proof of one entry against a checkpoint of the whole chain."""
    source, tree = Leaves(chain), CompactRange()
    for leaf in source.leaves:
        tree.append(leaf)
    path = prove_inclusion(source, seq, tree.size)
    return Proof(seq, tuple(path), signer.sign(tree.size, tree.root()), chain[seq].canonical)


def test_every_entry_of_trees_of_every_shape_is_proven() -> None:
    """RFC 9162, 2.1.3.2: the script comes to the root that we have signed, and tells each step in its order."""
    chain = entries(17)
    places = [(size, seq) for size in (1, 2, 3, 7, 8, 17) for seq in range(size)]

    answers = checked(*(Case(proof_of(chain[:size], seq).text(), seq=seq) for size, seq in places))

    for (size, seq), answer in zip(places, answers, strict=True):
        assert answer["told"] == ALL_STEPS, (size, seq, answer)
        assert (answer["id"], answer["size"]) == (chain[seq].id, size)


def test_a_note_that_others_signed_too_is_proven_by_the_key_that_is_held() -> None:
    """C2SP signed-note: cosignatures of witnesses, and of a key to come, are ignored."""
    both = NoteSigner(ORIGIN, OTHER._keys[0][0], SIGNER._keys[0][0])

    (answer,) = checked(Case(proof_of(entries(5), 3, signer=both).text(), seq=3))

    assert answer["told"] == ALL_STEPS, answer


def _changed_entry(proof: Proof) -> str:
    assert proof.extra is not None
    return replace(proof, extra=proof.extra.replace(b'"success"', b'"denied"')).text()


def _changed_path(proof: Proof) -> str:
    return replace(proof, hashes=(bytes(32), *proof.hashes[1:])).text()


def _changed_size(proof: Proof) -> str:
    return replace(proof, checkpoint=proof.checkpoint.replace("\n7\n", "\n6\n", 1)).text()


FORGERIES: dict[str, tuple[Callable[[Proof], str], str, str]] = {
    "an entry of which one word was changed": (_changed_entry, "path", "other-root"),
    "another hash in the path": (_changed_path, "path", "other-root"),
    "a path that is too short": (
        lambda proof: replace(proof, hashes=proof.hashes[:-1]).text(),
        "path",
        "too-short",
    ),
    "a path that is too long": (
        lambda proof: replace(proof, hashes=(*proof.hashes, bytes(32))).text(),
        "path",
        "too-long",
    ),
    "another size than was signed": (_changed_size, "signature", "bad-signature"),
    "a place beyond the tree": (
        lambda proof: replace(proof, checkpoint=proof.checkpoint.replace("\n7\n", "\n2\n", 1)).text(),
        "path",
        "beyond-tree",
    ),
    "no entry": (lambda proof: replace(proof, extra=b"{").text(), "entry", "no-entry"),
    "no signature at all": (
        lambda proof: replace(proof, checkpoint=proof.checkpoint.rpartition("— ")[0]).text(),
        "signature",
        "not-signed",
    ),
    "base64 in another spelling": (
        lambda proof: proof.text().replace("\nindex", "=\nindex"),
        "entry",
        "no-base64",
    ),
    "no proof file": (lambda _proof: "hello\n\nworld\n", "entry", "no-proof-file"),
}


def test_no_forgery_is_taken_for_a_proof() -> None:
    """Promise 2, in the page: what was changed anywhere is refused, and it is told at which step."""
    good = proof_of(entries(7), 2)

    answers = checked(*(Case(forge(good), seq=2) for forge, _, _ in FORGERIES.values()))

    told = {
        name: (answer.get("step"), answer.get("fact"))
        for name, answer in zip(FORGERIES, answers, strict=True)
    }
    assert told == {name: (step, fact) for name, (_, step, fact) in FORGERIES.items()}


def test_neither_another_key_nor_another_place_nor_another_log_is_believed() -> None:
    """What the page is told beside the proof counts too: the key, the place, and whose log it is."""
    chain = entries(7)
    good, by_other = proof_of(chain, 2).text(), proof_of(chain, 2, signer=OTHER).text()
    elsewhere = NoteSigner("example.org/other", SIGNER._keys[0][0])
    name, _, key = SIGNER.vkey.split("+", 2)

    answers = checked(
        Case(good, vkey=OTHER.vkey, seq=2),
        Case(by_other, seq=2),
        Case(good, seq=3),
        Case(good, vkey=elsewhere.vkey, seq=2),
        Case(good, vkey=f"{name}+00000000+{key}", seq=2),
        Case(good, vkey=f"{name}+00000000+{b64encode(bytes(33)).decode()}", seq=2),
    )

    assert [(answer.get("step"), answer.get("fact")) for answer in answers] == [
        ("signature", "not-signed"),
        ("signature", "not-signed"),
        ("entry", "other-place"),
        ("checkpoint", "other-log"),
        ("key", "other-hash"),
        ("key", "no-key"),
    ]


def test_a_signature_by_another_key_under_our_keys_id_is_found_out() -> None:
    """The key's id in a signature line is four bytes that anybody can write."""
    proof = proof_of(entries(7), 2, signer=OTHER)
    text, _, line = proof.checkpoint.rpartition("— ")
    raw = bytearray(b64decode_line(line))
    raw[:4] = bytes.fromhex(SIGNER.vkey.split("+")[1])
    forged = f"{text}— {ORIGIN} {b64encode(bytes(raw)).decode()}\n"

    (answer,) = checked(Case(replace(proof, checkpoint=forged).text(), seq=2))

    assert (answer.get("step"), answer.get("fact")) == ("signature", "bad-signature")


def b64decode_line(line: str) -> bytes:
    """The bytes of a signature line."""
    return b64decode(line.rstrip("\n").rpartition(" ")[2])
