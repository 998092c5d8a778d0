"""The hammer: readers prove what they read against one checkpoint, while writers let the log grow.

A reader trusts nothing but the log's key: the checkpoint's signature, each entry's path to its root, and the proof
that each later checkpoint goes on from the first. The first proof that does not verify ends it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Protocol

from sqlalchemy import Engine

from audit.checkpoint import NoteVerifier, SignedTree
from audit.errors import AuditError, BadProof, NoCheckpoint
from audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from audit.reading import reading
from audit.store import entry_at, latest_checkpoint
from audit.tree import consistency, inclusion

_CHECKS_A_CHECKPOINT = 50


class LogReader(Protocol):
    """Where a reader gets what it proves."""

    def checkpoint(self) -> str:
        """The newest checkpoint; raises NoCheckpoint while there is none."""

    def entry(self, seq: int) -> bytes:
        """The canonical bytes of an entry."""

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """The path from an entry to the root of the first `size`."""

    def consistency(self, old: int, new: int) -> list[bytes]:
        """The proof that one tree is the beginning of another."""


class DatabaseReader:
    """Reads the log from its database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def checkpoint(self) -> str:
        """As `LogReader` says."""
        with reading(self._engine) as conn:
            note = latest_checkpoint(conn)
        if note is None:
            raise NoCheckpoint("nothing was signed yet: does the sequencer run?")
        return note

    def entry(self, seq: int) -> bytes:
        """As `LogReader` says."""
        with reading(self._engine) as conn:
            found = entry_at(conn, seq)
        if found is None:
            raise BadProof(f"the entry {seq} is covered by a checkpoint and is not there")
        return found.canonical

    def inclusion(self, seq: int, size: int) -> list[bytes]:
        """As `LogReader` says."""
        with reading(self._engine) as conn:
            return inclusion(conn, seq, size)

    def consistency(self, old: int, new: int) -> list[bytes]:
        """As `LogReader` says."""
        with reading(self._engine) as conn:
            return consistency(conn, old, new)


@dataclass(slots=True)
class Blows:
    """What the hammer did; `failure` is the first proof that did not verify."""

    first_size: int = 0
    last_size: int = 0
    checkpoints: int = 0
    inclusions: int = 0
    consistencies: int = 0
    written: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Hammer:
    """Readers and writers, and when they end.

    Args:
        log: the log as readers see it; it must bear several threads.
        verifier: the log's key.
        readers: how many read.
        writers: what each writer does again and again; none for a log that others write.
        is_over: whether time is up.
        random: draws the entries that are proven.
        pause_s: what each of them waits after a proof or an entry.
    """

    log: LogReader
    verifier: NoteVerifier
    readers: int
    writers: Sequence[Callable[[], None]]
    is_over: Callable[[], bool]
    random: Random
    pause_s: float = 0.0

    def run(self) -> Blows:
        """Hammer until time is up or a proof does not verify; raises what reader or writer could not do at all."""
        stop = threading.Event()
        first = self.verifier.open(self.log.checkpoint())
        reads = [Blows(first.size, first.size) for _ in range(self.readers)]
        draws = [Random(self.random.random()) for _ in reads]  # noqa: S311 - chooses entries
        with ThreadPoolExecutor(max(1, len(reads) + len(self.writers))) as pool:
            tasks = [
                pool.submit(self._read, first, mine, draw, stop)
                for mine, draw in zip(reads, draws, strict=True)
            ]
            tasks += [pool.submit(self._write, write, stop) for write in self.writers]
            done = [task.result() for task in tasks]
        return _total(reads, sum(done))

    def _read(self, first: SignedTree, mine: Blows, draw: Random, stop: threading.Event) -> int:
        try:
            while not self._ends(stop):
                self._prove_round(first, mine, draw, stop)
        except AuditError as error:
            mine.failure = f"{error} (at a tree of {mine.last_size} entries)"
        finally:
            if mine.failure or not self.is_over():
                stop.set()
        return 0

    def _prove_round(self, first: SignedTree, mine: Blows, draw: Random, stop: threading.Event) -> None:
        """One checkpoint: it goes on from the first one, and what it covers is proven against it while others write."""
        pinned = self.verifier.open(self.log.checkpoint())
        mine.last_size = pinned.size
        self._prove_growth(first, pinned)
        mine.checkpoints, mine.consistencies = mine.checkpoints + 1, mine.consistencies + 1
        for _ in range(_CHECKS_A_CHECKPOINT):
            if self._ends(stop):
                return
            seq = draw.randrange(pinned.size)
            path = self.log.inclusion(seq, pinned.size)
            verify_inclusion(leaf_hash(self.log.entry(seq)), seq, pinned.size, path, pinned.root)
            mine.inclusions += 1
            stop.wait(self.pause_s)

    def _prove_growth(self, old: SignedTree, new: SignedTree) -> None:
        if new.size < old.size:
            raise BadProof(f"the log shrank from {old.size} entries to {new.size}")
        proof = self.log.consistency(old.size, new.size)
        verify_consistency(old.size, new.size, old.root, new.root, proof)

    def _write(self, write: Callable[[], None], stop: threading.Event) -> int:
        written = 0
        try:
            while not self._ends(stop):
                write()
                written += 1
                stop.wait(self.pause_s)
        finally:
            if not self.is_over():
                stop.set()
        return written

    def _ends(self, stop: threading.Event) -> bool:
        return stop.is_set() or self.is_over()


def _total(reads: Sequence[Blows], written: int) -> Blows:
    return Blows(
        first_size=min((one.first_size for one in reads), default=0),
        last_size=max((one.last_size for one in reads), default=0),
        checkpoints=sum(one.checkpoints for one in reads),
        inclusions=sum(one.inclusions for one in reads),
        consistencies=sum(one.consistencies for one in reads),
        written=written,
        failure=next((one.failure for one in reads if one.failure), ""),
    )
