"""Proof files (C2SP tlog-proof): what we write, what we take, and what a proof is worth."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from logbook import SIGNER, Logbook, entries

from audit.checkpoint import NoteVerifier
from audit.errors import BadProof, BadSignature
from audit.merkle import leaf_hash, node_hash
from audit.proof import Proof, check_entry_proof, check_proof, parse_proof
from audit.reading import reading
from audit.store import add_cosignature
from audit.tree import prove

VERIFIER = NoteVerifier.parse(SIGNER.vkey)
# The layout that the specification shows.
EXAMPLE = """\
c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

— example.com/fancylog hI2DJw==
"""


def proof_of_first() -> Proof:
    """A tree of two: the first entry, the second one's leaf, the signed root."""
    first, second = entries(2)
    root = node_hash(first.leaf(), second.leaf())
    return Proof(0, (second.leaf(),), SIGNER.sign(2, root), first.canonical)


def test_the_layout_is_the_published_one() -> None:
    """C2SP tlog-proof: header, extra, index, hashes, empty line, checkpoint."""
    proof = parse_proof(EXAMPLE)

    assert proof.index == 73894
    assert len(proof.hashes) == 2
    assert proof.extra is not None
    assert proof.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert proof.checkpoint.startswith("example.com/fancylog\n109482\n")
    assert proof.text() == EXAMPLE


def test_without_extra_the_line_is_omitted() -> None:
    """C2SP tlog-proof."""
    proof = replace(parse_proof(EXAMPLE), extra=None)

    assert "extra" not in proof.text()
    assert parse_proof(proof.text()) == proof


def test_a_proof_file_proves_its_entry() -> None:
    """API: the `extra` line is the base64 canonical entry."""
    proof = proof_of_first()

    entry = check_entry_proof(parse_proof(proof.text()), VERIFIER)

    assert entry.canonical == proof.extra
    assert f"extra {b64encode(entry.canonical).decode()}\n" in proof.text()


def test_a_proof_of_another_entry_or_place_is_refused() -> None:
    """`extra` is not authenticated: the leaf is computed from it, and its seq must be the index."""
    proof, second = proof_of_first(), entries(2)[1]

    for wrong in (
        replace(proof, extra=second.canonical),
        replace(proof, extra=second.placed(0, "0" * 64).canonical),
        replace(proof, index=1),
        replace(proof, hashes=()),
        replace(proof, hashes=(*proof.hashes, bytes(32))),
        replace(proof, extra=None),
        replace(proof, extra=b"{}"),
    ):
        with pytest.raises(BadProof):
            check_entry_proof(wrong, VERIFIER)


def test_an_entry_that_claims_another_place_than_its_leaf_has_is_refused() -> None:
    """A signed tree could hold an entry under a false number: its seq must be the index."""
    misnumbered = entries(1)[0].placed(7, "0" * 64)
    proof = Proof(0, (), SIGNER.sign(1, misnumbered.leaf()), misnumbered.canonical)

    check_proof(proof, misnumbered.leaf(), VERIFIER)
    with pytest.raises(BadProof, match="seq"):
        check_entry_proof(proof, VERIFIER)


def test_a_proof_under_an_unsigned_checkpoint_is_refused() -> None:
    """C2SP tlog-proof, verification step 2."""
    proof = proof_of_first()
    forged = replace(proof, checkpoint=proof.checkpoint.replace("\n2\n", "\n3\n"))

    with pytest.raises(BadSignature):
        check_proof(forged, leaf_hash(proof.extra or b""), VERIFIER)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v2\nindex 0\n\nx",
        EXAMPLE.replace("index 73894", "index 073894"),
        EXAMPLE.replace("index 73894", "index -1"),
        EXAMPLE.replace("index 73894\n", ""),
        EXAMPLE.replace("index 73894", "Index 73894"),
        EXAMPLE.replace("extra YWdl", "extra !!!!"),
        EXAMPLE.replace("B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=", "B95l"),
        EXAMPLE.replace(
            "B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=", "B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmB="
        ),
        EXAMPLE.split("\n\n")[0],
        "c2sp.org/tlog-proof@v1\nindex 0\n" + ("A" * 43 + "=\n") * 65 + "\nx",
    ],
)
def test_a_malformed_proof_file_is_refused(text: str) -> None:
    """Strict parsing: hashes of 32 bytes, decimals without leading zeros, canonical base64."""
    with pytest.raises(BadProof):
        parse_proof(text)


@given(st.text(max_size=300))
def test_no_text_makes_the_parser_stumble(text: str) -> None:
    """A text is a proof file or it is refused."""
    for attempt in (text, f"c2sp.org/tlog-proof@v1\n{text}"):
        try:
            proof = parse_proof(attempt)
        except BadProof:
            continue

        assert proof.text() == attempt


def test_the_log_proves_each_of_its_entries(sqlite_log: Logbook) -> None:
    """API: GET …/receipt answers a proof file once the entry is sequenced and signed."""
    drafts = sqlite_log.grow(10)

    with reading(sqlite_log.engine) as conn:
        proofs = [prove(conn, seq) for seq in range(10)]
        beyond = prove(conn, 10)

    assert beyond is None
    for draft, proof in zip(drafts, proofs, strict=True):
        assert proof is not None
        entry = check_entry_proof(parse_proof(proof.text()), VERIFIER)
        assert (entry.id, entry.digest()) == (draft.id, draft.digest())


def test_a_proof_bears_cosignatures_where_witnesses_are_wanted(sqlite_log: Logbook) -> None:
    """The newest witnessed checkpoint that covers the entry; the newest of all while none does."""
    for count in (5, 5, 5):
        sqlite_log.grow(count)
    with sqlite_log.engine.begin() as conn:
        add_cosignature(conn, 10, "w", "— w AAAAAAAA\n", sqlite_log.clock())

    with reading(sqlite_log.engine) as conn:
        proofs = {(seq, quorum): prove(conn, seq, quorum) for seq in (3, 9, 10) for quorum in (0, 1, 2)}

    sizes = {}
    for key, proof in proofs.items():
        assert proof is not None
        assert check_entry_proof(proof, VERIFIER).seq == key[0]
        sizes[key] = VERIFIER.open(proof.checkpoint).size
    assert {key for key, size in sizes.items() if size == 10} == {(3, 1), (9, 1)}
    assert set(sizes.values()) == {10, 15}
