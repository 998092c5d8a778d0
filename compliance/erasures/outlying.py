"""What a SIEM leaves of a person on this side: events that it refused, and the name under which it knows the person."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Engine, delete, func, select

from audit.events import Retention
from audit.reading import reading
from audit.store import seqs_of_keys
from audit.tables import siem_dead_letters
from compliance.keyring.keystore import KeyStore
from compliance.places import ErasedCount, ExportPart

_BATCH = 500


class DeadLetterPlace:
    """Events of the person that a SIEM refused for good; the entries themselves are in the log."""

    name = "siem_dead_letters"

    def __init__(self, engine: Engine, keystore: KeyStore) -> None:
        self._engine = engine
        self._keystore = keystore

    def export(self, subject: str) -> Iterator[ExportPart]:  # noqa: ARG002
        """Nothing: the entries are in the log's part of the package."""
        return iter(())

    def erase(self, subject: str) -> ErasedCount:
        """Forget them; it must come before the keys are destroyed, by which they are found."""
        rows = 0
        for seqs in self._batches(subject):
            with self._engine.begin() as conn:
                rows += conn.execute(
                    delete(siem_dead_letters).where(siem_dead_letters.c.seq.in_(seqs))
                ).rowcount
        return ErasedCount(rows=rows)

    def count(self, subject: str) -> int:
        """How many there are."""
        counted = select(func.count()).select_from(siem_dead_letters)
        with reading(self._engine) as conn:
            return sum(
                int(conn.scalar(counted.where(siem_dead_letters.c.seq.in_(seqs))) or 0)
                for seqs in self._batches(subject)
            )

    def _batches(self, subject: str) -> Iterator[list[int]]:
        keys = [row.key_id for row in self._keystore.keys_of(subject, Retention.PARTICIPATION)]
        with reading(self._engine) as conn:
            seqs = seqs_of_keys(conn, keys) if keys else []
        return (seqs[start : start + _BATCH] for start in range(0, len(seqs), _BATCH))


class PseudonymPlace:
    """The random name under which SIEMs know the person (RULES 28)."""

    name = "siem_pseudonym"

    def __init__(self, keystore: KeyStore) -> None:
        self._keystore = keystore

    def export(self, subject: str) -> Iterator[ExportPart]:  # noqa: ARG002
        """Nothing: it tells the person nothing, and whoever has it could look for the person in a SIEM."""
        return iter(())

    def erase(self, subject: str) -> ErasedCount:
        """Part the person from what SIEMs were told; they must have been told to erase it before."""
        gone = self._keystore.forget_pseudonym(subject)
        self._keystore.state.bump_epoch()  # forwarders keep names for as long as the epoch stays
        return ErasedCount(rows=int(gone))

    def count(self, subject: str) -> int:
        """Whether there is one."""
        return int(self._keystore.known_pseudonym(subject) is not None)
