"""A reader of a tiled log, written from C2SP's tlog-tiles, tlog-checkpoint and signed-note alone: nothing of ours.

It fetches the checkpoint, the entries and every tile that the tree's size requires, and proves all of them.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

Fetch = Callable[[str], bytes]


def node(left: bytes, right: bytes) -> bytes:
    """RFC 6962, section 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def tree_hash(hashes: list[bytes]) -> bytes:
    """The Merkle tree hash over subtree roots, by the recursion of RFC 6962."""
    if len(hashes) == 1:
        return hashes[0]
    half = 1
    while half * 2 < len(hashes):
        half *= 2
    return node(tree_hash(hashes[:half]), tree_hash(hashes[half:]))


def tile_path(kind: str, index: int, width: int) -> str:
    """`<L>/<N>[.p/<W>]` of the specification."""
    digits = f"{index:03}"
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    named = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{kind}/{named}" + (f".p/{width}" if width < 256 else "")


def open_checkpoint(note: str, vkey: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the log's key has signed."""
    text, _, signatures = note.rpartition("\n\n")
    name, key_id, encoded = vkey.strip().split("+", 2)
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    for line in signatures.splitlines():
        _, by, signature = line.split(" ")
        raw = base64.b64decode(signature)
        if (by, raw[:4].hex()) == (name, key_id):
            public.verify(raw[4:], (text + "\n").encode())
            break
    else:
        raise AssertionError("the log's key has not signed the checkpoint")
    origin, size, root = text.split("\n")[:3]
    return origin, int(size), base64.b64decode(root)


def split_bundle(bundle: bytes) -> Iterator[bytes]:
    """The entries of an entry bundle: big-endian uint16, then so many bytes."""
    at = 0
    while at < len(bundle):
        length = int.from_bytes(bundle[at : at + 2], "big")
        entry = bundle[at + 2 : at + 2 + length]
        assert len(entry) == length, "the bundle is cut"
        yield entry
        at += 2 + length


def read_log(fetch: Fetch, vkey: str) -> list[bytes]:
    """Every entry of the log, after all of it was proven: signature, root, each tile of each level, each entry."""
    _, size, root = open_checkpoint(fetch("checkpoint").decode(), vkey)
    entries: list[bytes] = []
    level, hashes = 0, [b""] * size
    while hashes:
        below: list[bytes] = []
        for index in range(-(-len(hashes) // 256)):
            width = min(256, len(hashes) - index * 256)
            raw = fetch(tile_path(str(level), index, width))
            assert len(raw) == 32 * width, "a tile has 32 bytes a hash"
            below += [raw[at : at + 32] for at in range(0, len(raw), 32)]
            if level == 0:
                entries += split_bundle(fetch(tile_path("entries", index, width)))
        if level == 0:
            made = [hashlib.sha256(b"\x00" + entry).digest() for entry in entries]
            leaves = below
        else:
            made = hashes
        assert below == made, f"level {level} is not made of what lies below it"
        hashes = [tree_hash(below[at : at + 256]) for at in range(0, len(below) // 256 * 256, 256)]
        level += 1
    assert len(entries) == size
    assert size == 0 or tree_hash(leaves) == root
    return entries
