"""The Merkle tree against the published vectors of RFC 6962 implementations and against its definition."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.errors import BadProof
from audit.merkle import (
    EMPTY_ROOT,
    CompactRange,
    grown,
    leaf_hash,
    node_hash,
    peak_places,
    prove_consistency,
    prove_inclusion,
    root_hash,
    verify_consistency,
    verify_inclusion,
)

# The eight leaves and the roots that certificate-transparency's implementations publish.
DATA = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
B = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
C = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
D = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
E = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
F = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
INCLUSIONS = [
    (0, 1, []),
    (0, 8, [A, B, C]),
    (5, 8, [D, E, ROOTS[3]]),
    (2, 3, [ROOTS[1]]),
    (1, 5, [ROOTS[0], B, D]),
]
CONSISTENCIES = [(1, 1, []), (1, 8, [A, B, C]), (6, 8, [F, E, ROOTS[3]]), (2, 5, [B, D])]

LEAVES = [leaf_hash(bytes([number])) for number in range(200)]


class Leaves:
    """A node source that computes everything from its leaves, by the definition."""

    def __init__(self, leaves: list[bytes]) -> None:
        self._leaves = leaves

    def node(self, level: int, index: int) -> bytes:
        return definition(self._leaves[index << level : (index + 1) << level])


def definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(definition(leaves[:k]), definition(leaves[k:]))


def path_by_definition(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if index < k:
        return [*path_by_definition(index, leaves[:k]), definition(leaves[k:])]
    return [*path_by_definition(index - k, leaves[k:]), definition(leaves[:k])]


def proof_by_definition(old: int, leaves: list[bytes], *, is_whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2, word for word."""
    if old == len(leaves):
        return [] if is_whole else [definition(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if old <= k:
        return [*proof_by_definition(old, leaves[:k], is_whole=is_whole), definition(leaves[k:])]
    return [*proof_by_definition(old - k, leaves[k:], is_whole=False), definition(leaves[:k])]


@pytest.mark.parametrize("size", range(1, 9))
def test_the_roots_are_the_published_ones(size: int) -> None:
    """RFC 6962, 2.1: our hashes are those of every other implementation."""
    leaves = [leaf_hash(data) for data in DATA[:size]]

    tree = CompactRange()
    for leaf in leaves:
        tree.append(leaf)

    assert tree.root().hex() == ROOTS[size - 1]
    assert root_hash(Leaves(leaves), size).hex() == ROOTS[size - 1]


@pytest.mark.parametrize(("index", "size", "path"), INCLUSIONS)
def test_the_inclusion_proofs_are_the_published_ones(index: int, size: int, path: list[str]) -> None:
    """RFC 6962, 2.1.1."""
    leaves = [leaf_hash(data) for data in DATA]

    made = prove_inclusion(Leaves(leaves), index, size)

    assert [step.hex() for step in made] == path
    verify_inclusion(leaves[index], index, size, made, bytes.fromhex(ROOTS[size - 1]))


@pytest.mark.parametrize(("old", "new", "proof"), CONSISTENCIES)
def test_the_consistency_proofs_are_the_published_ones(old: int, new: int, proof: list[str]) -> None:
    """RFC 6962, 2.1.2."""
    leaves = [leaf_hash(data) for data in DATA]

    made = prove_consistency(Leaves(leaves), old, new)

    assert [step.hex() for step in made] == proof
    verify_consistency(old, new, bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1]), made)


def test_the_example_of_rfc_9162_has_the_paths_that_it_names() -> None:
    """RFC 9162, 2.1.5: seven leaves; a to f, g, h, i, j, k and l as in its picture."""
    a, b, c, d, e, f, j = leaves = [leaf_hash(f"d{number}".encode()) for number in range(7)]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, m = node_hash(g, h), node_hash(i, j)
    source = Leaves(leaves)

    assert prove_inclusion(source, 0, 7) == [b, h, m]
    assert prove_inclusion(source, 3, 7) == [c, g, m]
    assert prove_inclusion(source, 4, 7) == [f, j, k]
    assert prove_inclusion(source, 6, 7) == [i, k]
    assert prove_consistency(source, 3, 7) == [c, d, g, m]
    assert prove_consistency(source, 4, 7) == [m]
    assert prove_consistency(source, 6, 7) == [i, j, k]
    assert root_hash(source, 7) == node_hash(k, m)


def test_an_empty_tree_has_the_root_of_nothing() -> None:
    """RFC 6962, 2.1: the hash of an empty list is that of an empty string."""
    assert CompactRange().root() == EMPTY_ROOT == definition([])
    assert root_hash(Leaves([]), 0) == EMPTY_ROOT
    verify_consistency(0, 8, EMPTY_ROOT, bytes.fromhex(ROOTS[7]), [])


@given(st.integers(0, 200))
def test_a_growing_tree_has_the_root_of_the_definition(size: int) -> None:
    """Appending without hashing again gives what hashing everything gives."""
    tree, heard = CompactRange(), {}
    for leaf in LEAVES[:size]:
        tree.append(leaf, lambda level, index, node: heard.__setitem__((level, index), node))

    assert tree.root() == definition(LEAVES[:size])
    assert CompactRange(size, tree.peaks).root() == tree.root()
    assert all(node == Leaves(LEAVES).node(*place) for place, node in heard.items())
    assert len(heard) == size - size.bit_count()


@given(st.integers(0, 150), st.integers(0, 50))
def test_a_tree_that_grows_by_rows_is_the_one_that_grows_by_leaves(size: int, more: int) -> None:
    """RFC 6962: many leaves at once give the same peaks, and tell every node that they complete, once."""
    by_leaves = CompactRange(size, [Leaves(LEAVES).node(*place) for place in peak_places(size)])
    old_peaks, heard_by_leaves = by_leaves.peaks, {}
    for leaf in LEAVES[size : size + more]:
        by_leaves.append(leaf, lambda level, index, node: heard_by_leaves.__setitem__((level, index), node))
    heard: list[tuple[int, int, bytes]] = []

    peaks = grown(
        size,
        old_peaks,
        LEAVES[size : size + more],
        lambda level, first, row: heard.extend((level, i, node) for i, node in enumerate(row, first)),
    )

    assert peaks == by_leaves.peaks
    inner = [(level, index) for level, index, _ in heard if level]
    assert sorted(inner) == sorted(heard_by_leaves)
    assert all(heard_by_leaves[level, index] == node for level, index, node in heard if level)
    assert [node for level, _, node in heard if level == 0] == LEAVES[size : size + more]


@given(st.data())
def test_the_proofs_are_those_of_the_definition(data: st.DataObject) -> None:
    """RFC 6962, 2.1.1 and 2.1.2: PATH and PROOF, at any size."""
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    source = Leaves(LEAVES)

    assert prove_inclusion(source, index, size) == path_by_definition(index, LEAVES[:size])
    assert prove_consistency(source, index + 1, size) == proof_by_definition(index + 1, LEAVES[:size])


@given(st.data())
def test_every_inclusion_proof_verifies_for_its_leaf_alone(data: st.DataObject) -> None:
    """Promise 2: a proof fits one leaf at one place in one tree."""
    size = data.draw(st.integers(1, 200))
    index = data.draw(st.integers(0, size - 1))
    root = definition(LEAVES[:size])

    path = prove_inclusion(Leaves(LEAVES), index, size)

    verify_inclusion(LEAVES[index], index, size, path, root)
    other = data.draw(st.integers(0, size - 1).filter(lambda place: place != index)) if size > 1 else None
    for wrong in (
        (leaf_hash(b"other"), index, size, path, root),
        (LEAVES[index], index, size, [*path, root], root),
        (LEAVES[index], index, size, path, leaf_hash(b"other")),
        *(
            [(LEAVES[index], other, size, path, root), (LEAVES[index], index, size, path[:-1], root)]
            if path
            else []
        ),
    ):
        with pytest.raises(BadProof):
            verify_inclusion(*wrong)


@given(st.data())
def test_every_consistency_proof_verifies_for_its_trees_alone(data: st.DataObject) -> None:
    """Promise 2: a rewritten beginning has no proof."""
    new = data.draw(st.integers(1, 200))
    old = data.draw(st.integers(1, new))
    old_root, new_root = definition(LEAVES[:old]), definition(LEAVES[:new])

    proof = prove_consistency(Leaves(LEAVES), old, new)

    verify_consistency(old, new, old_root, new_root, proof)
    for wrong in (
        (old, new, leaf_hash(b"other"), new_root, proof),
        (old, new, old_root, leaf_hash(b"other"), proof),
        (old, new, old_root, new_root, [*proof, new_root]),
        *([(old, new, old_root, new_root, proof[:-1])] if proof else []),
    ):
        with pytest.raises(BadProof):
            verify_consistency(*wrong)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_only_hashes_of_32_bytes_are_taken(length: int) -> None:
    """A node cannot be passed off as two hashes run together."""
    wrong = bytes(length)
    root = definition(LEAVES[:2])

    for attempt in (
        lambda: verify_inclusion(wrong, 0, 1, [], wrong),
        lambda: verify_inclusion(LEAVES[0], 0, 2, [wrong], root),
        lambda: verify_consistency(1, 2, LEAVES[0], root, [wrong]),
        lambda: verify_consistency(2, 2, wrong, wrong, []),
        lambda: CompactRange().append(wrong),
    ):
        with pytest.raises(BadProof):
            attempt()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_tree_takes_no_other_leaves_when_it_grows_by_rows(length: int) -> None:
    """A wrong hash stops the whole row."""
    with pytest.raises(BadProof):
        grown(0, [], [LEAVES[0], bytes(length)], lambda *_: None)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 3)])
def test_a_place_outside_of_the_tree_has_no_proof(index: int, size: int) -> None:
    """An index is a place in the tree."""
    with pytest.raises(BadProof):
        prove_inclusion(Leaves(LEAVES), index, size)
    with pytest.raises(BadProof):
        verify_inclusion(LEAVES[0], index, size, [], EMPTY_ROOT)


@given(st.integers(0, 5000))
def test_the_peaks_cover_the_tree_without_a_gap(size: int) -> None:
    """A tree of n leaves is as many perfect subtrees as n has one bits, the largest first."""
    places = peak_places(size)

    covered = [(index << level, (index + 1) << level) for level, index in places]

    assert [start for start, _ in covered] == [0, *[end for _, end in covered]][: len(covered)]
    assert (covered[-1][1] if covered else 0) == size
    assert len(places) == size.bit_count()
