"""The names of tiles (C2SP tlog-tiles): `tile/<L>/<N>[.p/<W>]` and `tile/entries/<N>[.p/<W>]`, one spelling each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from audit.tree_rows import TILE_WIDTH

CHECKPOINT = "checkpoint"
ENTRIES = "entries"
_LEVELS = 8  # tree levels in one tile
_LEVEL = re.compile(r"[0-9]|[1-5][0-9]|6[0-3]", re.ASCII)
_REST = re.compile(r"((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Tile:
    """Up to 256 hashes of a level, or the entries below a tile of level 0.

    Args:
        level: the tile's level: its hashes are the roots of 256^level entries each.
        index: its place in the level, from 0.
        width: how many hashes or entries it has; fewer than 256 make a partial tile.
        of_entries: whether it holds the entries themselves (an "entry bundle").
    """

    level: int
    index: int
    width: int = TILE_WIDTH
    of_entries: bool = False

    @property
    def is_full(self) -> bool:
        """Whether it will never be wider."""
        return self.width == TILE_WIDTH

    @property
    def first(self) -> int:
        """The place of its first hash in its level; the seq of its first entry at level 0."""
        return self.index * TILE_WIDTH

    @property
    def path(self) -> str:
        """Its name below the log's prefix."""
        kind = ENTRIES if self.of_entries else str(self.level)
        partial = "" if self.is_full else f".p/{self.width}"
        return f"tile/{kind}/{_spelled(self.index)}{partial}"

    def lies_within(self, size: int) -> bool:
        """Whether a tree of that size has all of it."""
        return self.first + self.width <= size >> _LEVELS * self.level


def parse_tile(kind: str, rest: str) -> Tile | None:
    """The tile of `tile/<kind>/<rest>`; None if that is not its one spelling."""
    found = _REST.fullmatch(rest)
    if found is None or not (kind == ENTRIES or _LEVEL.fullmatch(kind)):
        return None
    index, width = int(found[1].replace("x", "").replace("/", "")), int(found[2] or TILE_WIDTH)
    if _spelled(index) != found[1] or (found[2] and width >= TILE_WIDTH):
        return None
    return Tile(0 if kind == ENTRIES else int(kind), index, width, kind == ENTRIES)


def tiles_between(old: int, new: int) -> Iterator[Tile]:
    """The tiles that a tree of `new` entries has and one of `old` had not, the highest level first.

    Within level 0, the entries come before their hashes.
    """
    top = (new.bit_length() - 1) // _LEVELS
    for level in range(top, -1, -1):
        had, has = old >> _LEVELS * level, new >> _LEVELS * level
        if had == has:
            continue
        for index in range(had // TILE_WIDTH, -(-has // TILE_WIDTH)):
            width = min(TILE_WIDTH, has - index * TILE_WIDTH)
            if level == 0:
                yield Tile(0, index, width, of_entries=True)
            yield Tile(level, index, width)


def _spelled(index: int) -> str:
    """1234067 is x001/x234/067."""
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))
