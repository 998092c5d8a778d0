"""What a witness cosigns and what not: C2SP tlog-witness, with the published test vectors of a public witness."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logbook import ORIGIN, SIGNER
from services.clock import FixedClock

from audit.checkpoint import NoteSigner, NoteVerifier, SignedTree, checkpoint_text, parse_note
from audit.cosignature import CosignatureSigner, CosignatureVerifier
from audit.merkle import EMPTY_ROOT, CompactRange, leaf_hash, node_hash, prove_consistency, root_hash
from audit.witness import Memory, Submission, Witness, WitnessError, parse_submission
from audit.witness.errors import (
    BadSubmission,
    NotContinued,
    NotSigned,
    RootConflict,
    SizeConflict,
    UnknownLog,
)

COSIGNER = CosignatureSigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
VERIFIER = CosignatureVerifier.parse(COSIGNER.vkey)

# torchwood (Go), internal/witness/witness_test.go: a log's key, and its checkpoints with their proofs.
SIGSUM = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
SIGSUM_KEY = bytes.fromhex("ffdc2d4d98e4124d3feaf788c0c2f9abfd796083d1f0495437f302ec79cf100f")
OF_ONE = f"""\
old 0

{SIGSUM}
1
KgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

— {SIGSUM} UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=
"""
FROM_ONE_TO_THREE = f"""\
old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
KgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
3
RcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=

— {SIGSUM} UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=
"""
FROM_ONE_TO_FIVE = f"""\
old 1
KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=
KgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=

{SIGSUM}
5
QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=

— {SIGSUM} UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=
"""
SIXTY_FOUR_LINES = OF_ONE.replace("\n", "\n" + "KgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n" * 64, 1)
LITTLE_LOG = "geomys.org/witness/test-log+c0787ff4+AeMb5VOzy60PTGdGmLPxOKGAa0jNyDGsgv2rnprGju1t"
LITTLE_NOTE = """\
geomys.org/witness/test-log
1
BCml5C32yqMcl0gjTrcSOeNVx59oPnSdytBzDGBO5k0=

— geomys.org/witness/test-log wHh/9BPsoBNr2x0Ol3qPBYasIN0HI2ZiBg5ac0v3LQq/7F+YO7U4oWbDeJn1VaWVrlbSEM30Gr7WWYQjj2SBxRoJ/Ao=
"""  # noqa: E501


class Tree:
    """A log of some leaves, which signs and proves as a log does."""

    def __init__(self, size: int, *, fork_at: int | None = None, signer: NoteSigner = SIGNER) -> None:
        at = size if fork_at is None else fork_at
        self._leaves = [leaf_hash(b"%d%s" % (seq, b"" if seq < at else b" forked")) for seq in range(size)]
        self._signer = signer

    def node(self, level: int, index: int) -> bytes:
        some = self._leaves[index << level : (index + 1) << level]
        while len(some) > 1:
            some = [node_hash(*some[place : place + 2]) for place in range(0, len(some), 2)]
        return some[0]

    def root(self, size: int) -> bytes:
        return root_hash(self, size)

    def note(self, size: int) -> str:
        return self._signer.sign(size, self.root(size))

    def step(self, old: int, new: int) -> Submission:
        return Submission(old, tuple(prove_consistency(self, old, new)), self.note(new))


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory.create(tmp_path / "witness.db", COSIGNER.name)


@pytest.fixture
def witness(memory: Memory, clock: FixedClock) -> Witness:
    return Witness(COSIGNER, [NoteVerifier.parse(SIGNER.vkey)], memory, clock)


def cosigned_at(witness: Witness, submission: Submission) -> datetime | None:
    line = witness.add_checkpoint(submission.body())
    return VERIFIER.find(submission.note + line)


def test_the_published_requests_of_another_witness_are_judged_alike(
    memory: Memory, clock: FixedClock
) -> None:
    """The vectors: a first tree, one of five, then one of three that comes too late and must not roll back."""
    witness = Witness(COSIGNER, [NoteVerifier.of(SIGSUM, SIGSUM_KEY)], memory, clock)

    for body in (OF_ONE, FROM_ONE_TO_FIVE):
        assert VERIFIER.find(parse_submission(body.encode()).note + witness.add_checkpoint(body.encode()))
    with pytest.raises(SizeConflict) as conflict:
        witness.add_checkpoint(FROM_ONE_TO_THREE.encode())
    with pytest.raises(BadSubmission, match="63"):
        witness.add_checkpoint(SIXTY_FOUR_LINES.encode())

    assert (conflict.value.status, conflict.value.size) == (409, 5)
    last = memory.last(SIGSUM)
    assert (last.size, last.root) == (5, b64decode("QrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY="))


def test_the_public_test_log_is_cosigned(memory: Memory, clock: FixedClock) -> None:
    """The checkpoint by which the public witnesses are monitored, with the key that belongs to it."""
    witness = Witness(COSIGNER, [NoteVerifier.parse(LITTLE_LOG)], memory, clock)

    assert cosigned_at(witness, Submission(0, (), LITTLE_NOTE)) == clock.now


@pytest.mark.parametrize(
    ("root", "size", "proof", "refusal"),
    [
        (EMPTY_ROOT, 0, (), None),
        (leaf_hash(b"leaf"), 0, (), NotContinued),
        (bytes(32), 0, (), NotContinued),
        (EMPTY_ROOT, 0, (leaf_hash(b"leaf"),), NotContinued),
        (leaf_hash(b"leaf"), 1, (), None),
        (leaf_hash(b"leaf"), 1, (leaf_hash(b"leaf"),), NotContinued),
    ],
    ids=[
        "empty tree",
        "wrong empty root",
        "zero root",
        "empty with a proof",
        "first leaf",
        "first with a proof",
    ],
)
def test_a_first_tree_needs_no_proof_and_may_have_none(
    witness: Witness,
    memory: Memory,
    clock: FixedClock,
    root: bytes,
    size: int,
    proof: tuple[bytes, ...],
    refusal: type[WitnessError] | None,
) -> None:
    """The cases of torchwood's TestZeroSize; each request is made twice."""
    submission = Submission(0, proof, SIGNER.sign(size, root))

    if refusal:
        for _ in range(2):
            with pytest.raises(refusal):
                witness.add_checkpoint(submission.body())
        assert memory.last(ORIGIN) == SignedTree(ORIGIN, 0, EMPTY_ROOT)
    else:
        assert cosigned_at(witness, submission) == clock.now
        assert cosigned_at(witness, Submission(size, (), submission.note)) == clock.now
        assert memory.last(ORIGIN) == SignedTree(ORIGIN, size, root)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6).map(sorted))
def test_a_log_that_only_grows_is_always_cosigned(tmp_path_factory: Any, sizes: list[int]) -> None:
    """Whatever its steps, also none at all."""
    clock = FixedClock()
    memory = Memory.create(tmp_path_factory.mktemp("grows") / "witness.db", COSIGNER.name)
    witness, tree, old = Witness(COSIGNER, [NoteVerifier.parse(SIGNER.vkey)], memory, clock), Tree(40), 0

    for size in sizes:
        assert cosigned_at(witness, tree.step(old, size)) == clock.now
        old = size

    assert memory.last(ORIGIN).size == sizes[-1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    known=st.integers(1, 20), fork_at=st.integers(0, 19), more=st.integers(0, 15), junk=st.binary(max_size=96)
)
def test_a_fork_is_never_cosigned(
    tmp_path_factory: Any, known: int, fork_at: int, more: int, junk: bytes
) -> None:
    """Another history below the size that was cosigned: with its own proof, or any other, it is refused."""
    memory = Memory.create(tmp_path_factory.mktemp("forks") / "witness.db", COSIGNER.name)
    witness = Witness(COSIGNER, [NoteVerifier.parse(SIGNER.vkey)], memory, FixedClock())
    honest, forked = Tree(40), Tree(40, fork_at=min(fork_at, known - 1))
    witness.add_checkpoint(honest.step(0, known).body())
    own = forked.step(known, known + more)
    some = tuple(junk[place : place + 32] for place in range(0, len(junk) - 31, 32))

    for proof in (own.proof, honest.step(known, known + more).proof, some, ()):
        with pytest.raises((NotContinued, RootConflict)):
            witness.add_checkpoint(Submission(known, proof, own.note).body())

    assert memory.last(ORIGIN) == SignedTree(ORIGIN, known, honest.root(known))


def test_a_checkpoint_that_does_not_begin_at_the_last_one_is_told_where_to_begin(witness: Witness) -> None:
    """C2SP: 409 with the size; smaller ones, unknown ones, and those of the future alike."""
    tree = Tree(30)
    witness.add_checkpoint(tree.step(0, 20).body())

    for old, new in ((0, 10), (0, 20), (10, 20), (10, 30), (25, 30)):
        with pytest.raises(SizeConflict) as conflict:
            witness.add_checkpoint(tree.step(old, new).body())
        assert (conflict.value.status, conflict.value.size) == (409, 20)
        assert not isinstance(conflict.value, RootConflict)
    with pytest.raises(BadSubmission, match="larger"):
        witness.add_checkpoint(Submission(20, (), tree.note(10)).body())


def test_the_same_tree_is_cosigned_again_and_another_of_its_size_is_not(
    witness: Witness, memory: Memory, clock: FixedClock
) -> None:
    """C2SP: equal sizes need equal roots, else 409; the second cosignature says that time has passed."""
    tree, fork = Tree(9), Tree(9, fork_at=3)
    first = cosigned_at(witness, tree.step(0, 9))
    clock.advance(timedelta(hours=1))

    assert cosigned_at(witness, Submission(9, (), tree.note(9))) == clock.now != first
    with pytest.raises(RootConflict) as conflict:
        witness.add_checkpoint(Submission(9, (), fork.note(9)).body())
    with pytest.raises(NotContinued, match="too long"):
        witness.add_checkpoint(Submission(9, (bytes(32),), tree.note(9)).body())

    assert (conflict.value.status, conflict.value.size) == (409, 9)
    assert memory.last(ORIGIN).root == tree.root(9)


def test_what_a_log_signed_against_its_own_past_is_kept_as_evidence(
    witness: Witness, memory: Memory, clock: FixedClock
) -> None:
    """Both notes bear the log's signature: an outsider can show that it forked, whatever the operator says."""
    tree, fork = Tree(9), Tree(12, fork_at=3)
    witness.add_checkpoint(tree.step(0, 9).body())

    for size in (9, 12, 12):
        with pytest.raises(WitnessError):
            witness.add_checkpoint(fork.step(9, size).body())

    kept = memory.refused()
    assert [(one.origin, one.why, one.at) for one in kept] == [
        (ORIGIN, "ROOT_CONFLICT", clock.now),
        (ORIGIN, "NOT_CONTINUED", clock.now),
    ]
    assert {one.cosigned for one in kept} == {tree.note(9)}
    assert [one.refused for one in kept] == [fork.note(9), fork.note(12)]


def test_only_a_known_log_with_its_own_signature_is_cosigned(witness: Witness, memory: Memory) -> None:
    """C2SP: 404 for an origin that is not followed, 403 where no trusted key signed."""
    stranger = NoteSigner("example.com/other", Ed25519PrivateKey.generate())
    impostor = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
    note = SIGNER.sign(1, leaf_hash(b"leaf"))
    other_text = note.replace("\n1\n", "\n2\n")

    for wrong, refusal, status in (
        (stranger.sign(1, bytes(32)), UnknownLog, 404),
        (impostor.sign(1, bytes(32)), NotSigned, 403),
        (other_text, NotSigned, 403),
        (f"{parse_note(note).text}\n— {ORIGIN} AAAAAAAA\n", NotSigned, 403),
    ):
        with pytest.raises(refusal) as refused:
            witness.add_checkpoint(Submission(0, (), wrong).body())
        assert refused.value.status == status

    assert memory.last(ORIGIN).size == 0


def test_other_signatures_and_further_lines_do_not_matter(witness: Witness, clock: FixedClock) -> None:
    """C2SP: unknown signatures are ignored; extension lines are signed along."""
    tree, stranger = Tree(3), NoteSigner("example.com/other", Ed25519PrivateKey.generate())
    text = checkpoint_text(SignedTree(ORIGIN, 3, tree.root(3))) + "an extension\nand another\n"
    foreign = stranger.sign_text(text).rpartition("\n\n")[2]
    own = SIGNER.sign_text(text).rpartition("\n\n")[2]

    assert cosigned_at(witness, Submission(0, (), f"{text}\n{foreign}{own}{foreign}")) == clock.now


def test_a_log_with_two_keys_is_cosigned_when_either_signed(memory: Memory, clock: FixedClock) -> None:
    """C2SP: "the public key(s) it trusts for the checkpoint origin"; so a log can change its key."""
    new = NoteSigner(ORIGIN, Ed25519PrivateKey.generate())
    keys = [NoteVerifier.parse(SIGNER.vkey), NoteVerifier.parse(new.vkey)]
    witness, tree, renewed = Witness(COSIGNER, keys, memory, clock), Tree(5), Tree(5, signer=new)

    assert cosigned_at(witness, tree.step(0, 2)) == clock.now
    assert cosigned_at(witness, renewed.step(2, 5)) == clock.now


def test_logs_do_not_get_into_each_other_s_way(memory: Memory, clock: FixedClock) -> None:
    """Each origin has a memory of its own."""
    other = NoteSigner("example.com/other", Ed25519PrivateKey.generate())
    keys = [NoteVerifier.parse(signer.vkey) for signer in (SIGNER, other)]
    witness = Witness(COSIGNER, keys, memory, clock)

    for tree in (Tree(5), Tree(5, fork_at=0, signer=other)):
        assert cosigned_at(witness, tree.step(0, 5)) == clock.now

    assert memory.last(ORIGIN).root != memory.last(other.origin).root


GOOD = Tree(3).step(0, 3).body()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"\n\n",
        GOOD.replace(b"old 0", b"old"),
        GOOD.replace(b"old 0", b"old 00"),
        GOOD.replace(b"old 0", b"old 01"),
        GOOD.replace(b"old 0", b"old -1"),
        GOOD.replace(b"old 0", b"old +1"),
        GOOD.replace(b"old 0", b"old  0"),
        GOOD.replace(b"old 0", b"old 0 "),
        GOOD.replace(b"old 0", b"OLD 0"),
        GOOD.replace(b"old 0", "old \u0660".encode()),
        GOOD.replace(b"old 0", b"old " + b"9" * 5000),
        GOOD.replace(b"old 0\n", b"old 0\r\n"),
        GOOD.replace(b"old 0\n", b"old 0\nAAAA\n"),
        GOOD.replace(b"old 0\n", b"old 0\n" + b"A" * 44 + b"\n"),
        GOOD.replace(b"old 0\n", b"old 0\n" + b"A" * 42 + b"B=\n"),
        GOOD.replace(b"old 0\n", b"old 0\n!\n"),
        GOOD.replace(b"\n\n", b"\n", 1),
        GOOD[:-1],
        GOOD.replace(b"\n3\n", b"\n03\n"),
        GOOD.replace(b"\n3\n", b"\n-3\n"),
        GOOD.partition("—".encode())[0],
        GOOD + b"\xff",
        GOOD + b"\0",
        b"\xff\xfe",
    ],
)
def test_a_malformed_request_is_told_so(witness: Witness, memory: Memory, body: bytes) -> None:
    """400, whatever is wrong with it; no other exception comes out, and nothing is remembered."""
    with pytest.raises(BadSubmission) as refused:
        witness.add_checkpoint(body)

    assert refused.value.status == 400
    assert memory.last(ORIGIN).size == 0


@given(body=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_no_bytes_upset_the_parser(body: bytes) -> None:
    """A stranger's bytes give a submission, which is read again as it was, or a refusal."""
    try:
        read = parse_submission(body)
    except BadSubmission:
        return
    assert parse_submission(read.body()) == read


@given(
    old=st.integers(0, 10**18 - 1),
    proof=st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple),
    size=st.integers(0, 10**18 - 1),
)
def test_a_submission_is_read_as_it_was_written(old: int, proof: tuple[bytes, ...], size: int) -> None:
    """The client and the witness speak of the same."""
    submission = Submission(old, proof, SIGNER.sign(size, bytes(32)))

    assert parse_submission(submission.body()) == submission


def test_the_tree_of_these_tests_is_that_of_the_library() -> None:
    """So that the refusals above are none of a test's own making."""
    grown = CompactRange()
    for seq in range(40):
        grown.append(leaf_hash(b"%d" % seq))

    assert grown.root() == Tree(40).root(40)
