"""The key store: subject keys, pseudonyms, signing keys, round seeds, apart from the data (RULES 1, 15).

A key is committed before its first use; an erasure puts its id into the state first: no backup revives it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Engine, Row, Select, delete, insert, select
from sqlalchemy.exc import IntegrityError

from audit.draft import NOBODY
from audit.events import Retention
from audit.reading import reading
from compliance.clock import Clock
from compliance.errors import KeyMissing, NeverErasable, SubjectErased
from compliance.keyring.epoch_cache import EpochCache
from compliance.keyring.keys import (
    KeyRow,
    KeyState,
    PublicKeyRow,
    SeedState,
    SigningKey,
    SigningUse,
    SubjectKey,
    key_id_of,
    period_of,
    tombstone_of,
)
from compliance.keyring.names import Names
from compliance.keyring.scrubbing import scrub
from compliance.keyring.seeds import RoundSeeds
from compliance.keyring.signing_keys import SigningKeys
from compliance.keyring.tables import subject_keys
from compliance.keyring.wrapping import KEY_BYTES, MasterKey

_BATCH = 500
_WRAPPED = select(subject_keys.c.key_id, subject_keys.c.subject, subject_keys.c.wrapped)
_KEY_ROWS = select(
    subject_keys.c.key_id,
    subject_keys.c.subject,
    subject_keys.c.retention,
    subject_keys.c.period,
    subject_keys.c.created_at,
)


class KeyStore:
    """Every secret the gateway keeps, wrapped with the master key."""

    def __init__(
        self, engine: Engine, master_key: bytes | MasterKey, *, state: KeyState, clock: Clock
    ) -> None:
        self.engine = engine
        self.state = state
        self.master = MasterKey(master_key) if isinstance(master_key, bytes) else master_key
        self.signing = SigningKeys(engine, self.master, clock, state)
        self._clock = clock
        self._names = Names(engine, self.master, clock)
        self._seeds = RoundSeeds(engine, self.master, clock)
        self._made: EpochCache[tuple[str, Retention, str], SubjectKey] = EpochCache(state.epoch)
        self._found: EpochCache[str, SubjectKey] = EpochCache(state.epoch)
        self._signers: EpochCache[SigningUse, SigningKey] = EpochCache(state.epoch)

    # Subject keys

    def key_for(self, subject: str, retention: Retention, at: datetime) -> SubjectKey:
        """The subject's key for that class and time, made and committed if missing.

        Raises:
            SubjectErased: the subject was erased or is being erased (RULES 18).
        """
        slot = (subject, retention, period_of(subject, at))
        return self._made.get(slot, lambda: self._find_or_make(*slot))

    def find(self, key_id: str) -> SubjectKey | None:
        """The key of that id, or None if it was destroyed or never was."""
        try:
            return self._found.get(key_id, lambda: self._load(key_id))
        except KeyMissing:
            return None

    def keys_of(self, subject: str, retention: Retention | None = None) -> list[KeyRow]:
        """What keys a subject has."""
        query = _KEY_ROWS.where(subject_keys.c.subject == subject)
        if retention is not None:
            query = query.where(subject_keys.c.retention == retention.value)
        with reading(self.engine) as conn:
            return [_key_row(row) for row in conn.execute(query.order_by(subject_keys.c.created_at))]

    def subjects(self) -> list[str]:
        """Everybody who has, or had, a key that was not destroyed; also `system` and `unproven`."""
        query = select(subject_keys.c.subject).distinct().order_by(subject_keys.c.subject)
        with reading(self.engine) as conn:
            return list(conn.execute(query).scalars())

    def subject_of(self, key_id: str) -> str | None:
        """Whose key it is, or None if it was destroyed or never was."""
        query = select(subject_keys.c.subject).where(subject_keys.c.key_id == key_id)
        with reading(self.engine) as conn:
            return conn.execute(query).scalar_one_or_none()

    # Erasure

    def forbid(self, subject: str) -> None:
        """Empty the caches; no key is made for the subject any more, not even after a restore."""
        if subject in NOBODY:
            raise NeverErasable(f"{subject} is no person: it cannot be erased")
        self.state.add_erased_keys([tombstone_of(subject)])
        self.state.bump_epoch()

    def is_forbidden(self, subject: str) -> bool:
        """Whether an erasure of the subject has begun."""
        return tombstone_of(subject) in self.state.erased_keys()

    def destroy(self, key_ids: Iterable[str]) -> int:
        """Erase keys, into the state first, then out of table and files; says how many there were."""
        doomed = list(key_ids)
        if doomed:
            self.state.add_erased_keys(doomed)
        gone = self._delete(doomed)
        self.state.bump_epoch()
        if gone:
            scrub(self.engine, subject_keys.name)
        return gone

    def apply_state(self) -> int:
        """At start: destroy what a restored backup brought back, and say how many keys that were."""
        erased = self.state.erased_keys()
        with reading(self.engine) as conn:
            here = [_key_row(row) for row in conn.execute(_KEY_ROWS)]
        revived = [row.key_id for row in here if row.key_id in erased]
        return self.destroy(revived) if revived else 0

    # Names

    def pseudonym(self, subject: str) -> str:
        """The random name a SIEM knows the subject by (RULES 28)."""
        return self._names.pseudonym(subject)

    def known_pseudonym(self, subject: str) -> str | None:
        """The same, where it was drawn already; nothing is drawn."""
        return self._names.drawn(subject)

    def forget_pseudonym(self, subject: str) -> bool:
        """Part a subject from what a SIEM was told of it; True if there was a pseudonym."""
        gone = self._names.forget(subject)
        if gone:
            scrub(self.engine, "pseudonyms")
        return gone

    def index(self, value: str) -> str:
        """The look-up index of a personal value: hex HMAC under a key of the key store (RULES 16)."""
        return self._names.index(value)

    # Signing keys

    def signing_key(self, use: SigningUse) -> SigningKey:
        """The key that signs for that use now; made at the first call."""
        return self._signers.get(use, lambda: self.signing.current(use))

    def public_keys(self) -> list[PublicKeyRow]:
        """Every public key, with what it is for."""
        return self.signing.public_keys()

    # Round seeds

    def new_seed(self, round_id: str) -> None:
        """Commit a noise seed for the round, before its reservation commits (RULES 7)."""
        self._seeds.make(round_id)

    def open_seed(self, round_id: str) -> bytes:
        """The seed, marked opened for good. Raises SeedGone."""
        return self._seeds.open(round_id)

    def seed_state(self, round_id: str) -> SeedState:
        """Whether the seed is absent, sealed or opened."""
        return self._seeds.state(round_id)

    def destroy_seed(self, round_id: str) -> bool:
        """Destroy the seed of a round that is over; True if there was one."""
        gone = self._seeds.destroy(round_id)
        if gone:
            scrub(self.engine, "round_seeds")
        return gone

    def seeds(self) -> list[str]:
        """The rounds that have a seed."""
        return self._seeds.rounds()

    # Inside

    def _find_or_make(self, subject: str, retention: Retention, period: str) -> SubjectKey:
        if self.is_forbidden(subject):
            raise SubjectErased(subject)
        found = self._in_slot(subject, retention, period)
        if found is not None:
            return found
        key = self._make(subject, retention, period)
        if self.is_forbidden(subject):  # the erasure began while the key was made: it may have missed it
            self._delete([key.key_id])
            raise SubjectErased(subject)
        return key

    def _make(self, subject: str, retention: Retention, period: str) -> SubjectKey:
        secret = os.urandom(KEY_BYTES)
        key = SubjectKey(key_id_of(secret), secret)
        row = {
            "key_id": key.key_id,
            "subject": subject,
            "retention": retention.value,
            "period": period,
            "wrapped": self.master.wrap(secret, "subject_keys", key.key_id, subject),
            "created_at": self._clock(),
        }
        try:
            with self.engine.begin() as conn:
                conn.execute(insert(subject_keys).values(row))
        except IntegrityError:  # another process made it first: both use its key
            made = self._in_slot(subject, retention, period)
            if made is None:
                raise
            return made
        return key

    def _in_slot(self, subject: str, retention: Retention, period: str) -> SubjectKey | None:
        return self._read_key(
            _WRAPPED.where(
                subject_keys.c.subject == subject,
                subject_keys.c.retention == retention.value,
                subject_keys.c.period == period,
            )
        )

    def _load(self, key_id: str) -> SubjectKey:
        key = self._read_key(_WRAPPED.where(subject_keys.c.key_id == key_id))
        if key is None:
            raise KeyMissing("no such key: it was destroyed, or never made")
        return key

    def _read_key(self, query: Select[str, str, bytes]) -> SubjectKey | None:
        with reading(self.engine) as conn:
            row = conn.execute(query).one_or_none()
        if row is None:
            return None
        key_id, subject, wrapped = row
        return SubjectKey(key_id, self.master.unwrap(wrapped, "subject_keys", key_id, subject))

    def _delete(self, key_ids: Sequence[str]) -> int:
        gone = 0
        for first in range(0, len(key_ids), _BATCH):
            batch = key_ids[first : first + _BATCH]
            with self.engine.begin() as conn:
                gone += conn.execute(delete(subject_keys).where(subject_keys.c.key_id.in_(batch))).rowcount
        return gone


def _key_row(row: Row[str, str, str, str, datetime]) -> KeyRow:
    return KeyRow(row.key_id, row.subject, Retention(row.retention), row.period, row.created_at)
