"""The Merkle tree of RFC 6962: hashes, proofs, and their verification.

Nothing here reads a database: whoever keeps the tree offers a `NodeSource`, and a verifier needs none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Protocol, TypeAlias

from audit.errors import BadProof

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()

NodeListener: TypeAlias = Callable[[int, int, bytes], None]
RowListener: TypeAlias = Callable[[int, int, Sequence[bytes]], None]


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf: a zero byte, then the data."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node: a one byte, then its two children."""
    return sha256(b"\x01" + left + right).digest()


def paired(row: Sequence[bytes]) -> list[bytes]:
    """The nodes above a row of nodes; an odd last one has none yet."""
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)]


class NodeSource(Protocol):
    """Whoever keeps the tree's perfect subtrees."""

    def node(self, level: int, index: int) -> bytes:
        """The root of the perfect subtree of 2^level leaves that starts at leaf index * 2^level."""


class CompactRange:
    """A tree of which only the roots of its perfect subtrees are kept: O(log n), and it still grows."""

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if len(peaks) != size.bit_count():
            raise BadProof(f"a tree of {size} leaves has {size.bit_count()} peaks, not {len(peaks)}")
        self._size = size
        self._peaks = list(peaks)

    @property
    def size(self) -> int:
        """How many leaves it has."""
        return self._size

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest (leftmost) first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes, on_node: NodeListener | None = None) -> None:
        """Add a leaf hash; `on_node(level, index, hash)` hears of every inner node that it completes."""
        node, level, index = _checked(leaf), 0, self._size
        while index & 1:
            node, level, index = node_hash(self._peaks.pop(), node), level + 1, index >> 1
            if on_node:
                on_node(level, index, node)
        self._peaks.append(node)
        self._size += 1

    def root(self) -> bytes:
        """The RFC 6962 root hash of the whole tree."""
        return _fold(self._peaks) if self._peaks else EMPTY_ROOT

    def root_with(self, leaf: bytes) -> bytes:
        """The root it would have with one more leaf."""
        grown = CompactRange(self._size, self._peaks)
        grown.append(leaf)
        return grown.root()


def peak_places(size: int) -> list[tuple[int, int]]:
    """(level, index) of the perfect subtrees that a tree consists of, the largest first."""
    places, start = [], 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            places.append((level, start >> level))
            start += 1 << level
    return places


def grown(
    size: int, peaks: Sequence[bytes], leaves: Sequence[bytes], on_row: RowListener
) -> tuple[bytes, ...]:
    """The peaks of a tree of `size` with more leaves: a row at a time, about one hash a leaf, none of the old tree.

    `on_row(level, first, nodes)` hears of the nodes that each level gains, from the index `first` on.
    """
    standing = list(CompactRange(size, peaks).peaks)
    row, first, level = [_checked(leaf) for leaf in leaves], size, 0
    added: list[bytes] = []
    while row:
        on_row(level, first, row)
        if first & 1:
            row = [standing.pop(), *row]  # the old tree's peak of this level
        if len(row) & 1:
            added.append(row[-1])
        row, first, level = paired(row), first >> 1, level + 1
    return (*standing, *reversed(added))


def root_hash(source: NodeSource, size: int) -> bytes:
    """The root of the first `size` leaves."""
    return _range_hash(source, 0, size) if size else EMPTY_ROOT


def prove_inclusion(source: NodeSource, index: int, size: int) -> list[bytes]:
    """The audit path of RFC 6962, 2.1.1, from the leaf's sibling to the root's child."""
    if not 0 <= index < size:
        raise BadProof(f"there is no leaf {index} in a tree of {size}")
    path: list[bytes] = []
    node, level, place, last = source.node, 0, index, size - 1
    while last:
        sibling = place ^ 1
        if sibling < last:
            path.append(node(level, sibling))
        elif sibling == last:  # the right edge, which need not be a perfect subtree
            path.append(_range_hash(source, last << level, size))
        level, place, last = level + 1, place >> 1, last >> 1
    return path


def prove_consistency(source: NodeSource, old: int, new: int) -> list[bytes]:
    """The proof of RFC 6962, 2.1.2, that the first `old` leaves are the beginning of the first `new`."""
    if not 0 <= old <= new:
        raise BadProof(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in (0, new):
        return []
    proof: list[bytes] = []
    low, high, is_whole = 0, new, True
    while old != high:
        middle = low + _split(high - low)
        if old <= middle:
            proof.append(_range_hash(source, middle, high))
            high = middle
        else:
            proof.append(_range_hash(source, low, middle))
            low, is_whole = middle, False
    if not is_whole:
        proof.append(_range_hash(source, low, high))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raise BadProof unless the path leads from this leaf at this index to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        raise BadProof(f"there is no leaf {index} in a tree of {size}")
    place, last, node = index, size - 1, _checked(leaf)
    for sibling in path:
        if last == 0:
            raise BadProof("the inclusion proof is too long")
        if place & 1 or place == last:
            node = node_hash(_checked(sibling), node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            node = node_hash(node, _checked(sibling))
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the inclusion proof is too short")
    if node != _checked(root):
        raise BadProof("the inclusion proof does not lead to the root")


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Raise BadProof unless the old tree is the beginning of the new one (RFC 9162, 2.1.4.2)."""
    if not 0 <= old <= new:
        raise BadProof(f"a tree of {old} leaves is not the beginning of one of {new}")
    if old in (0, new):
        _verify_trivial(old, new, _checked(old_root), _checked(new_root), proof)
        return
    steps = [_checked(step) for step in proof]
    if old & (old - 1) == 0:
        steps.insert(0, _checked(old_root))
    if not steps:
        raise BadProof("the consistency proof is too short")
    _verify_steps(old, new, _checked(old_root), _checked(new_root), steps)


def _verify_trivial(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> None:
    if proof:
        raise BadProof("the consistency proof is too long")
    if old == 0 and old_root != EMPTY_ROOT:
        raise BadProof("an empty tree has another root")
    if old == new and old_root != new_root:
        raise BadProof("two trees of one size have different roots")


def _verify_steps(old: int, new: int, old_root: bytes, new_root: bytes, steps: list[bytes]) -> None:
    place, last = old - 1, new - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old_node = new_node = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise BadProof("the consistency proof is too long")
        if place & 1 or place == last:
            old_node, new_node = node_hash(step, old_node), node_hash(step, new_node)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new_node = node_hash(new_node, step)
        place, last = place >> 1, last >> 1
    if last:
        raise BadProof("the consistency proof is too short")
    if old_node != old_root:
        raise BadProof("the consistency proof does not lead to the old root")
    if new_node != new_root:
        raise BadProof("the consistency proof does not lead to the new root")


def _range_hash(source: NodeSource, low: int, high: int) -> bytes:
    """The RFC 6962 hash of the leaves from low up to high, where low is where such a subtree may start."""
    parts = [source.node(level, (low >> level) + index) for level, index in peak_places(high - low)]
    return _fold(parts)


def _fold(peaks: Sequence[bytes]) -> bytes:
    node = peaks[-1]
    for peak in reversed(peaks[:-1]):
        node = node_hash(peak, node)
    return node


def _split(size: int) -> int:
    """The largest power of two below size."""
    return 1 << (size - 1).bit_length() - 1


def _checked(value: bytes) -> bytes:
    if len(value) != HASH_BYTES:
        raise BadProof(f"a hash has {HASH_BYTES} bytes, not {len(value)}")
    return value
