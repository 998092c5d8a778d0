"""The log as C2SP tlog-tiles: names, contents, publishing, and the tree made again from the entries.

A tile is 256 hashes of one tree level, or the 256 entries below it; once full it never changes, so that any
web server, bucket or cache can hand it out, and a reader needs nothing of ours to prove what it reads.
"""

from __future__ import annotations

from audit.tiles.content import checkpoint_after, checkpoint_shown, content
from audit.tiles.errors import EntriesUnsigned, NotCovered, TargetForeign
from audit.tiles.name import CHECKPOINT, Tile, parse_tile, tiles_between

__all__ = [
    "CHECKPOINT",
    "EntriesUnsigned",
    "NotCovered",
    "TargetForeign",
    "Tile",
    "checkpoint_after",
    "checkpoint_shown",
    "content",
    "parse_tile",
    "tiles_between",
]
