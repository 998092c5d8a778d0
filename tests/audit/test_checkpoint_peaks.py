"""Peaks of a checkpoint's tree beside its root: they spare proofs the last leaves, and nothing is signed by them."""

from __future__ import annotations

import pytest
from logbook import Killed, Logbook, published, tree_of
from sqlalchemy import event, select

from audit.merkle import HASH_BYTES, CompactRange, verify_inclusion
from audit.reading import reading
from audit.store import entry_at
from audit.tables import audit_checkpoints
from audit.tree import inclusion


def _sound(log: Logbook) -> list[int]:
    """The sizes of the checkpoints whose peaks give their root."""
    with reading(log.engine) as conn:
        rows = conn.execute(select(audit_checkpoints).order_by(audit_checkpoints.c.size)).all()
    return [
        row.size
        for row in rows
        if CompactRange(row.size, _hashes(bytes(row.peaks or b""))).root() == bytes(row.root)
    ]


def _hashes(packed: bytes) -> list[bytes]:
    return [packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)]


def test_every_checkpoint_has_its_peaks(log: Logbook) -> None:
    """Whether it is signed with its batch or, after a crash, by the next run."""
    log.grow(300)
    log.stage(270)
    with pytest.raises(Killed):
        log.sequencer(crash_at="sequencer.batch").run_once()
    log.sequencer().run_once()

    assert _sound(log) == [300, 570]


def test_a_path_to_a_checkpoint_is_one_question(log: Logbook) -> None:
    """From the first tile, which is full, and from the last, which is not, on either database."""
    log.grow(570)
    signed, asked = published(log), list[str]()
    assert signed is not None
    event.listen(log.engine, "before_cursor_execute", lambda _c, _cursor, told, *_: asked.append(told))

    for seq in (3, 569):
        with reading(log.engine) as conn:
            entry = entry_at(conn, seq)
            assert entry is not None
            asked.clear()
            path = inclusion(conn, seq, 570)
        verify_inclusion(entry.leaf, seq, 570, path, signed.root)
        assert len([told for told in asked if told.startswith("SELECT")]) == 1


@pytest.mark.parametrize("peaks", ["x'00'", "CAST(x'ff' AS TEXT)", "7"])
def test_what_stands_in_their_place_does_not_stop_who_signs(sqlite_log: Logbook, peaks: str) -> None:
    """Not even what the driver cannot read as the text that it says it is."""
    sqlite_log.grow(3)
    sqlite_log.tamper("UPDATE audit_checkpoints SET peaks = " + peaks)  # noqa: S608 - the test's own words

    sqlite_log.grow(2)

    assert tree_of(sqlite_log) == published(sqlite_log)
    assert tree_of(sqlite_log).size == 5
