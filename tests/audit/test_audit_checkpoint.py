"""Signed notes and checkpoints against C2SP's texts and the published example of Go's note package."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from logbook import KEY, ORIGIN, SIGNER

from audit.checkpoint import NoteSigner, NoteVerifier, SignedTree, parse_checkpoint, parse_note
from audit.errors import BadKey, BadNote, BadSignature

# golang.org/x/mod/sumdb/note, example.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETERS_LINE = (
    "— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of C2SP signed-note, by a key that we do not know.
QUASIMODO = (
    "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\ned è subito sera.\n\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
)
ROOT = bytes(range(32))


def test_the_published_note_verifies() -> None:
    """C2SP signed-note: key hash, algorithm byte and signed text are everybody's."""
    verifier = NoteVerifier.parse(PETER)

    assert verifier.verify(f"{TEXT}\n{PETERS_LINE}") == TEXT
    assert verifier.vkey == PETER


def test_the_published_note_with_another_text_does_not_verify() -> None:
    """A signature belongs to one text."""
    forged = TEXT.replace("answer", "cure").replace("problem is", "problem be")

    with pytest.raises(BadSignature):
        NoteVerifier.parse(PETER).verify(f"{forged}\n{PETERS_LINE}")


def test_a_text_may_hold_empty_lines() -> None:
    """C2SP signed-note: the last empty line parts the text from the signatures."""
    note = parse_note(QUASIMODO)

    assert note.text.endswith("\n\ned è subito sera.\n")
    assert [line.name for line in note.signatures] == ["quasimodo.example/salvatore"]


def test_a_checkpoint_says_origin_size_and_root() -> None:
    """C2SP tlog-checkpoint."""
    note = SIGNER.sign(20852163, ROOT)

    tree = NoteVerifier.parse(SIGNER.vkey).open(note)

    assert tree == SignedTree(ORIGIN, 20852163, ROOT)
    assert note.split("\n")[:4] == [ORIGIN, "20852163", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", ""]
    assert SIGNER.sign(20852163, ROOT) == note  # Ed25519 draws nothing


def test_the_example_of_the_checkpoint_specification_parses() -> None:
    """C2SP tlog-checkpoint, its example."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"

    assert parse_checkpoint(text).size == 20852163
    assert parse_checkpoint(text + "an extension\n").size == 20852163


def test_signatures_of_others_in_any_order_are_ignored() -> None:
    """C2SP signed-note: witnesses and rotated keys sign too; unknown ones never count."""
    text, ours = SIGNER.sign(5, ROOT).split("\n\n")
    other = (
        NoteSigner("witness.example", Ed25519PrivateKey.generate()).sign_text(f"{text}\n").split("\n\n")[1]
    )
    namesake = NoteSigner(ORIGIN, Ed25519PrivateKey.generate()).sign(5, ROOT).split("\n\n")[1]

    for lines in (other + namesake + ours, ours + other + namesake, namesake + ours + other):
        assert NoteVerifier.parse(SIGNER.vkey).open(f"{text}\n\n{lines}").size == 5


def test_a_note_without_a_signature_of_the_key_is_refused() -> None:
    """C2SP signed-note: a note that no known key signed must be rejected."""
    stranger = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())

    with pytest.raises(BadSignature):
        NoteVerifier.parse(SIGNER.vkey).open(stranger.sign(5, ROOT))


def test_one_bad_signature_of_the_key_spoils_the_note() -> None:
    """C2SP signed-note: a failing signature of a known key rejects the whole note."""
    text, good = SIGNER.sign(5, ROOT).split("\n\n")
    bad = SIGNER.sign(6, ROOT).split("\n\n")[1]

    with pytest.raises(BadSignature):
        NoteVerifier.parse(SIGNER.vkey).open(f"{text}\n\n{good}{bad}")


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """A key speaks for the log of its name alone."""
    note = SIGNER.sign_text("example.com/other\n5\n" + "A" * 43 + "=\n")

    with pytest.raises(BadNote):
        NoteVerifier.parse(SIGNER.vkey).open(note)


NOTE = SIGNER.sign(5, ROOT)


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        NOTE.rstrip("\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE + "\n",
        NOTE + "no signature\n",
        NOTE.replace("— ", "- "),
        NOTE.replace("— ", "—"),
        NOTE.replace("\n", "\r\n"),
        NOTE + "\t\n",
        NOTE.replace("\n\n— ", "\n\n—  "),
        NOTE[:-2] + "\n",
        NOTE.replace("\n\n", "\n\n\n"),
        NOTE + NOTE.split("\n\n")[1] * 100,
        "x" * 2_000_000,
        "\ud800" + NOTE,
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    """Strict parsing: one spelling, bounded size, never another error."""
    with pytest.raises(BadNote):
        NoteVerifier.parse(SIGNER.vkey).open(note)


@pytest.mark.parametrize(
    "text",
    [
        "\n",
        f"{ORIGIN}\n5\n",
        f"{ORIGIN}\n05\n{'A' * 43}=\n",
        f"{ORIGIN}\n-5\n{'A' * 43}=\n",
        f"{ORIGIN}\n+5\n{'A' * 43}=\n",
        f"{ORIGIN}\n\u0665\n{'A' * 43}=\n",
        f"{ORIGIN}\n{'9' * 30}\n{'A' * 43}=\n",
        f"{ORIGIN}\n5\n{'A' * 42}B=\n",
        f"{ORIGIN}\n5\n{'A' * 44}\n",
        f"{ORIGIN}\n5\n{'A' * 40}\n",
        f"{ORIGIN}\n5\n{'A' * 43}=\n\nextension\n",
        f"\n5\n{'A' * 43}=\n",
    ],
)
def test_a_signed_text_that_is_no_checkpoint_is_refused(text: str) -> None:
    """C2SP tlog-checkpoint: decimal size without leading zeros, 32 bytes of root, no empty line."""
    with pytest.raises(BadNote):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "name",
        "name+00000000",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("c74f20a3", "C74F20A3"),
        PETER.replace("PeterNeumann", "Peter Neumann"),
        PETER.replace("PeterNeumann", ""),
        PETER[:-4],
        PETER.replace("ARpc", "BBpc"),
        PETER + "=",
    ],
)
def test_a_malformed_key_is_refused(vkey: str) -> None:
    """A key is name, hash and base64, and the hash is that of the name and the key."""
    with pytest.raises(BadKey):
        NoteVerifier.parse(vkey)


@pytest.mark.parametrize("origin", ["", "with space", "with+plus", "line\nbreak", "no-break\u00a0space"])
def test_a_log_name_that_no_note_could_bear_is_refused(origin: str) -> None:
    """C2SP signed-note: key names hold neither spaces nor plus signs."""
    with pytest.raises(BadKey):
        NoteSigner(origin, KEY)


@given(st.text(max_size=300))
def test_no_text_makes_the_parser_stumble(text: str) -> None:
    """Hostile bundles: a text is a note or it is refused."""
    try:
        note = parse_note(text)
    except BadNote:
        return

    assert text.startswith(note.text)
