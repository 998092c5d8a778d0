"""Wraps every secret of the key store anew, under the newest master key (decision 0108).

A batch is read, wrapped anew outside of any transaction, and written row by row only where the row is still the one
that was read: an erasure that overtakes it stays an erasure (RULES 3, 18). Again is nothing: what a crash left is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Column, Engine, Table, bindparam, inspect, select, update

from audit.reading import reading
from compliance.keyring.scrubbing import scrub
from compliance.keyring.tables import index_keys, round_seeds, signing_keys, subject_keys
from compliance.keyring.wrapping import MasterKey

_BATCH = 500

IDENTITIES: Mapping[Table, tuple[Column[Any], ...]] = {
    subject_keys: (subject_keys.c.key_id, subject_keys.c.subject),
    index_keys: (index_keys.c.name,),
    signing_keys: (signing_keys.c.kid, signing_keys.c.use),
    round_seeds: (round_seeds.c.round_id,),
}
"""Every table with wrapped secrets, and the columns that each secret is bound to, the primary key first."""


def rewrap(engine: Engine, master: MasterKey, progress: Callable[[int], None] = lambda _rows: None) -> int:
    """Bring every row under the newest master key; how many were under another one.

    Args:
        engine: the key store.
        master: the newest key and those that may still be in use.
        progress: is told how many rows were looked at, batch by batch.

    Raises:
        BadMasterKey: a row opens under none of the keys.
    """
    changed = 0
    for table, identity in IDENTITIES.items():
        for batch in _batches(engine, table, identity):
            changed += _rewrap(engine, master, table, batch)
            progress(len(batch))
    for table in IDENTITIES:
        scrub(engine, table.name)  # also where nothing changed: a crash may have come just before
    return changed


def has_secrets(engine: Engine) -> bool:
    """Whether anything was wrapped already; a key store without tables is new."""
    there = inspect(engine)
    with reading(engine) as conn:
        return any(
            there.has_table(table.name) and conn.execute(select(table.c.wrapped).limit(1)).first() is not None
            for table in IDENTITIES
        )


def _rewrap(engine: Engine, master: MasterKey, table: Table, batch: list[Any]) -> int:
    stale = []
    for key, *rest, wrapped in batch:
        anew = master.rewrapped(bytes(wrapped), table.name, key, *rest)
        if anew is not None:
            stale.append({"of": key, "was": bytes(wrapped), "anew": anew})
    if stale:
        (primary,) = table.primary_key.columns
        unchanged = (primary == bindparam("of"), table.c.wrapped == bindparam("was"))
        with engine.begin() as conn:
            conn.execute(update(table).where(*unchanged).values(wrapped=bindparam("anew")), stale)
    return len(stale)


def _batches(engine: Engine, table: Table, identity: tuple[Column[Any], ...]) -> Iterator[list[Any]]:
    query = select(*identity, table.c.wrapped).where(table.c.wrapped != b"").order_by(identity[0])
    last: str | None = None
    while True:
        page = query.limit(_BATCH) if last is None else query.where(identity[0] > last).limit(_BATCH)
        with reading(engine) as conn:
            rows = list(conn.execute(page))
        if not rows:
            return
        yield rows
        last = rows[-1][0]
