"""Publishing: tiles and entries first, the checkpoint last, so that a reader of the target never misses a tile.

What the target holds is the only memory: the next run goes on behind its checkpoint, after it has made sure that this
is a beginning of the log. A tile is written once it is proven to lie under the signed root; nothing is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from sqlalchemy import Connection, Engine

from audit.checkpoint import SignedTree, parse_checkpoint, parse_note
from audit.errors import AuditError, BadNote, BadProof, TilesDamaged
from audit.merkle import EMPTY_ROOT, HASH_BYTES, CompactRange, leaf_hash, root_hash, verify_consistency
from audit.reading import reading
from audit.store import StoredCheckpoint
from audit.tiles.content import bundled, checkpoint_after, checkpoint_shown, content, entries_of
from audit.tiles.errors import EntriesUnsigned, TargetForeign
from audit.tiles.name import CHECKPOINT, Tile, tiles_between
from audit.tree import TreeSource, consistency
from audit.tree_rows import TILE_WIDTH

STEP = 1 << 16


class Target(Protocol):
    """Where tiles are published; what is written there is whole or absent."""

    def read(self, path: str) -> bytes | None:
        """What lies at a path; None if nothing does."""

    def write(self, path: str, content: bytes) -> None:
        """Put it there in one step, with the headers of its kind."""


class Publisher:
    """Brings one target up to the checkpoint that readers are shown; one publisher at a time works on a target.

    Args:
        engine: the database; it is only read.
        target: where to.
        origin: the log's name.
        signed: the last tree that the signer remembers, outside of this database (RULES 23).
        quorum: how many cosignatures a published checkpoint bears.
        step: how many entries lie between two checkpoints while much is to be made up for: what a crash costs.
    """

    def __init__(
        self,
        engine: Engine,
        target: Target,
        origin: str,
        signed: Callable[[], SignedTree | None],
        *,
        quorum: int = 0,
        step: int = STEP,
    ) -> None:
        self._engine, self._target, self._origin, self._signed = engine, target, origin, signed
        self._quorum, self._step = quorum, step
        self._held: tuple[SignedTree, str] | None = None
        self._shown = 0  # how many entries the checkpoint there covers: readers must never see it shrink
        self.is_behind = False  # whether the last run left a checkpoint that may be published

    def forget(self) -> None:
        """Look at the target again before the next run: somebody else may have written there."""
        self._held = None

    def run_once(self, *, is_over: Callable[[], bool] = lambda: False) -> int:
        """Publish one more checkpoint; says how many entries it added.

        Args:
            is_over: whether to leave off before the next object; the next run begins there again.

        Raises:
            TargetForeign: what lies there is no beginning of this log.
            EntriesUnsigned: the database does not hold what was signed.
            Whatever the target raises when it is away.
        """
        tree, note = self._held or self._resume()
        with reading(self._engine) as conn:
            found = checkpoint_after(conn, tree.size, quorum=self._quorum, most=self._step)
            shown = checkpoint_shown(conn, self._quorum)
        self._held = tree, note
        if found is None:
            self._refresh(tree, note, shown)
            return 0
        new = SignedTree(self._origin, found.size, found.root)
        self._insist_signed(new, found.note)
        for tile, made in _proven_tiles(self._engine, tree.size, new):
            if is_over():
                return 0
            self._target.write(tile.path, made)
        if is_over():
            return 0
        if new.size >= self._shown:
            self._target.write(CHECKPOINT, found.note.encode())
            self._shown = new.size
        self._held = new, found.note
        self.is_behind = shown is not None and found.size < shown.size
        return found.size - tree.size

    def _insist_signed(self, tree: SignedTree, note: str) -> None:
        """The checkpoint's row, which somebody could have changed, is a beginning of what the signer remembers."""
        last = self._signed()
        try:
            if last is None or parse_checkpoint(parse_note(note).text) != tree:
                raise EntriesUnsigned(f"the checkpoint of {tree.size} entries")
            with reading(self._engine) as conn:
                proof = consistency(conn, tree.size, last.size)
            verify_consistency(tree.size, last.size, tree.root, last.root, proof)
        except (BadProof, BadNote, TilesDamaged):
            raise EntriesUnsigned(f"the checkpoint of {tree.size} entries") from None

    def _refresh(self, tree: SignedTree, note: str, shown: StoredCheckpoint | None) -> None:
        """The same checkpoint may have got cosignatures since."""
        if shown is not None and shown.size == tree.size and shown.note != note:
            self._target.write(CHECKPOINT, shown.note.encode())
            self._held = tree, shown.note

    def _resume(self) -> tuple[SignedTree, str]:
        """What the target holds: the beginning of this log, with its last tiles."""
        stored = self._target.read(CHECKPOINT)
        nothing = SignedTree(self._origin, 0, EMPTY_ROOT)
        if stored is None:
            return nothing, ""
        tree, note = read_held(stored)
        with reading(self._engine) as conn:
            insist_beginning(conn, tree, self._origin)
            edges = [(tile, content(conn, tile, tree.size)) for tile in _edges(tree.size)]
        self._shown = tree.size
        for tile, expected in edges:
            found = self._target.read(tile.path)
            if found is None:
                return nothing, ""  # somebody tidied up there: write all of it again
            if found != expected:
                raise TargetForeign(f"has another {tile.path} than this log")
        return tree, note


def read_held(stored: bytes) -> tuple[SignedTree, str]:
    """The tree and the text of a checkpoint that a target holds; its signature is not looked at, its root will be.

    Raises:
        TargetForeign: it is none.
    """
    try:
        note = stored.decode()
        return parse_checkpoint(parse_note(note).text), note
    except (UnicodeDecodeError, BadNote):
        raise TargetForeign("has a `checkpoint` that is none") from None


def insist_beginning(conn: Connection, tree: SignedTree, origin: str) -> None:
    """Raise TargetForeign unless this tree is a beginning of the log in the database."""
    if tree.origin != origin:
        raise TargetForeign("is another log (the origin differs)")
    shown = checkpoint_shown(conn, 0)
    size = shown.size if shown else 0
    if tree.size > size:
        raise TargetForeign(f"has {tree.size} entries, of which this log has signed {size}")
    try:
        is_ours = root_hash(TreeSource(conn, tree.size), tree.size) == tree.root
    except AuditError as error:
        raise EntriesUnsigned(str(error)) from None
    if not is_ours:
        raise TargetForeign(f"is no beginning of this log: its first {tree.size} entries are others")


def _edges(size: int) -> Iterator[Tile]:
    """The last tile of each level, and the last entries."""
    last: dict[tuple[int, bool], Tile] = {}
    for tile in tiles_between(0, size):
        last[tile.level, tile.of_entries] = tile
    yield from last.values()


def _proven_tiles(engine: Engine, old: int, signed: SignedTree) -> Iterator[tuple[Tile, bytes]]:
    """Every tile between two trees, each proven to lie under the signed root, from the top down.

    No transaction is open while the caller writes one.
    """
    with reading(engine) as conn:
        source = TreeSource(conn, signed.size)
        try:
            is_signed = root_hash(source, signed.size) == signed.root
        except AuditError as error:
            raise EntriesUnsigned(str(error)) from None
        if not is_signed:
            raise EntriesUnsigned(f"the tree of {signed.size} entries")
        upper = (tile for tile in tiles_between(old, signed.size) if tile.level)
        hashes = {(tile.level, tile.index): source.tile(tile.level, tile.index) for tile in upper}
    for tile in tiles_between(old, signed.size):
        parent = hashes.get((tile.level + 1, tile.index // TILE_WIDTH), [])
        above = parent[tile.index % TILE_WIDTH] if tile.is_full else None
        if tile.level:
            mine = hashes[tile.level, tile.index][: tile.width]
            _insist_root(mine, above, tile)
            yield tile, b"".join(mine)
        elif tile.of_entries:
            yield from _bottom(engine, tile, above, signed.size)


def _bottom(engine: Engine, tile: Tile, above: bytes | None, size: int) -> Iterator[tuple[Tile, bytes]]:
    """256 entries, and the tile of their hashes."""
    leaves = Tile(0, tile.index, tile.width)
    with reading(engine) as conn:
        entries = entries_of(conn, tile)
        stored = content(conn, leaves, size)
    made = [leaf_hash(entry.canonical) for entry in entries]
    if b"".join(made) != stored:
        wrong = next(at for at, leaf in enumerate(made) if leaf != stored[at * HASH_BYTES :][:HASH_BYTES])
        raise EntriesUnsigned(f"the entry {tile.first + wrong}")
    _insist_root(made, above, leaves)
    yield tile, bundled(entries)
    yield leaves, stored


def _insist_root(hashes: list[bytes], above: bytes | None, tile: Tile) -> None:
    """A full tile's root stands in the tile above it; one that is not full went into the signed root itself."""
    if above is None:
        return
    tree = CompactRange()
    for node in hashes:
        tree.append(node)
    if tree.root() != above:
        raise EntriesUnsigned(f"the tile {tile.path}")
