"""The check of the published log: its place can be used, and nobody else's log lies there; nothing is written."""

from __future__ import annotations

from pathlib import Path

from audit.checkpoint import SignedTree
from audit.reading import reading
from audit.tiles import CHECKPOINT, TargetForeign
from audit.tiles.publish import insist_beginning, read_held
from gateway.config import Config
from gateway.publishing import open_target
from gateway.storage.database import open_engine
from gateway.storage.state import open_state


def published_log(config: Config) -> str:
    """The place can be written, and what lies there is a beginning of this log."""
    readers = "everybody reads /tlog/" if config.tlog_public else "/tlog/ needs audit:read"
    target = open_target(config)
    if target is None:
        return f"published nowhere else; {readers}"
    try:
        target.check()
        stored = target.read(CHECKPOINT)
    finally:
        target.close()
    if stored is None:
        return f"nothing was published yet; {readers}"
    tree, _ = read_held(stored)
    _insist_ours(config, tree)
    return f"{tree.size} entries are published; {readers}"


def _insist_ours(config: Config, tree: SignedTree) -> None:
    folder = Path(config.state_url.removeprefix("file:"))
    signed = open_state(config.state_url).last_checkpoint() if folder.exists() else None
    if signed is None:
        raise TargetForeign("is a log, and this gateway has signed none yet")
    engine = open_engine(config.database_url, part="doctor", pool_size=1)
    try:
        with reading(engine) as conn:
            insist_beginning(conn, tree, signed.origin)
    finally:
        engine.dispose()
