"""A log that goes on from another one: its first entry says which, and at which tree that ended (RULES 20).

A database restored from a backup may lack entries that were signed. Its log is never signed again; another one
begins, under another origin, and whoever holds evidence of the old one can tell.
"""

from __future__ import annotations

import re

from audit.checkpoint import SignedTree
from audit.entry import Entry
from audit.events import EventType

_ROOT = re.compile(r"[0-9a-f]{64}")


def succession_details(old: SignedTree, origin: str) -> dict[str, str | int]:
    """The details of the entry `log.succeeded`."""
    return {"old_origin": old.origin, "size": old.size, "root": old.root.hex(), "origin": origin}


def succeeded_tree(entry: Entry) -> SignedTree | None:
    """The tree at which the log before this one ended, if this is the first entry of a log that succeeds it."""
    if entry.seq != 0 or entry.event_type != EventType.LOG_SUCCEEDED:
        return None
    origin, size, root = (entry.details.get(name) for name in ("old_origin", "size", "root"))
    if not isinstance(origin, str) or not isinstance(root, str) or not _ROOT.fullmatch(root):
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        return None
    return SignedTree(origin, size, bytes.fromhex(root))
