"""Ed25519 keys that sign the log, the receipts and the packages: one key per use signs, for a time beside the next.

A new key is prepared, announced by an entry of the log, and begins: until then it signs nothing (decision 0107).
"""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from audit.reading import reading
from compliance.clock import Clock
from compliance.errors import KeyMissing
from compliance.keyring.epoch_cache import EpochCache
from compliance.keyring.keys import KeyState, PublicKeyRow, SigningKey, SigningKeyRow, SigningUse
from compliance.keyring.tables import signing_keys
from compliance.keyring.wrapping import MasterKey

_TABLE = signing_keys.c


class SigningKeys:
    """Makes, finds and rotates signing keys."""

    def __init__(self, engine: Engine, master: MasterKey, clock: Clock, state: KeyState) -> None:
        self._engine = engine
        self._master = master
        self._clock = clock
        self._state = state
        self._known: EpochCache[SigningUse, list[SigningKeyRow]] = EpochCache(state.epoch)

    def current(self, use: SigningUse) -> SigningKey:
        """The key that signs for this use now; made and committed at the first call."""
        row = self.newest(use) or self.add_first(use, self.draw())
        return SigningKey(row.kid, self.private(row))

    def newest(self, use: SigningUse) -> SigningKeyRow | None:
        """The newest key that has begun; None before the first start."""
        return next((row for row in self.rows(use) if row.awaits is None), None)

    def in_force(self, use: SigningUse) -> list[SigningKeyRow]:
        """The keys that sign now, the newest first; cheap: read once an epoch, and judged by the clock."""
        return self.standing(use)[1]

    def waiting(self, use: SigningUse) -> SigningKeyRow | None:
        """The key that is prepared and has not begun; cheap."""
        return self.standing(use)[0]

    def standing(self, use: SigningUse) -> tuple[SigningKeyRow | None, list[SigningKeyRow]]:
        """The key that waits and those in force, as of one moment: one that begins is always either of them."""
        return self._standing(self._known.get(use, lambda: self.rows(use)))

    def standing_now(self, use: SigningUse) -> tuple[SigningKeyRow | None, list[SigningKeyRow]]:
        """The same, read anew: also what another machine did, whose epoch this one does not see."""
        return self._standing(self.rows(use))

    def _standing(self, rows: list[SigningKeyRow]) -> tuple[SigningKeyRow | None, list[SigningKeyRow]]:
        now = self._clock()
        begun = [row for row in rows if row.awaits is None]
        in_force = begun[:1] + [row for row in begun[1:] if row.retires_at and row.retires_at > now]
        return next((row for row in rows if row.awaits is not None), None), in_force

    def rows(self, use: SigningUse) -> list[SigningKeyRow]:
        """Every key of this use, the newest first."""
        query = select(signing_keys).where(_TABLE.use == use.value).order_by(_TABLE.generation.desc())
        with reading(self._engine) as conn:
            return [_row(row) for row in conn.execute(query)]

    def public_keys(self) -> list[PublicKeyRow]:
        """Every public key, all generations."""
        columns = select(_TABLE.kid, _TABLE.use, _TABLE.public)
        with reading(self._engine) as conn:
            rows = conn.execute(columns.order_by(_TABLE.use, _TABLE.generation)).all()
        return [PublicKeyRow(kid, SigningUse(use), public) for kid, use, public in rows]

    def private(self, row: SigningKeyRow) -> Ed25519PrivateKey:
        """The private key of a row.

        Raises:
            KeyMissing: it is held elsewhere, or the row is gone.
        """
        query = select(_TABLE.wrapped).where(_TABLE.kid == row.kid, _TABLE.held_at.is_(None))
        with reading(self._engine) as conn:
            wrapped = conn.execute(query).scalar_one_or_none()
        if wrapped is None:
            raise KeyMissing(f"the private key {row.kid} is not in the key store")
        raw = self._master.unwrap(wrapped, "signing_keys", row.kid, row.use.value)
        return Ed25519PrivateKey.from_private_bytes(raw)

    @staticmethod
    def draw() -> Ed25519PrivateKey:
        """A new private key, kept nowhere yet."""
        return Ed25519PrivateKey.generate()

    def add_first(
        self,
        use: SigningUse,
        private: Ed25519PrivateKey | None = None,
        *,
        public: bytes = b"",
        held_at: str = "",
    ) -> SigningKeyRow:
        """Commit the first key of a use, which begins at once; the one that another process was faster with.

        Args:
            use: what it signs.
            private: the key, or None if it is held elsewhere.
            public: its public half then.
            held_at: where it is then.
        """
        made = self._values(use, 1, private, public, held_at)
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(signing_keys).values(made))
        except IntegrityError:
            first = self.newest(use)
            if first is None:
                raise
            return first
        self._state.bump_epoch()
        return self.rows(use)[-1]

    def prepare(
        self,
        use: SigningUse,
        private: Ed25519PrivateKey | None = None,
        *,
        public: bytes = b"",
        held_at: str = "",
        awaits: str,
        retires_at: datetime | None,
        instead_of: SigningKeyRow | None = None,
    ) -> SigningKeyRow:
        """Commit the next key, which signs nothing until it begins.

        Args:
            use: what it will sign.
            private: the key, or None if it is held elsewhere.
            public: its public half then.
            held_at: where it is then.
            awaits: the id of the entry that will announce it.
            retires_at: until when the key before it signs too; None: not at all.
            instead_of: one that was prepared before, and gives way.

        Raises:
            IntegrityError: another one was prepared meanwhile; nothing was written.
        """
        before = self.newest(use)
        if before is None:
            raise KeyMissing(f"there is no {use.value} key yet that another one could follow")
        made = self._values(use, before.generation + 1, private, public, held_at) | {"awaits": awaits}
        with self._engine.begin() as conn:
            if instead_of is not None:
                conn.execute(
                    delete(signing_keys).where(_TABLE.kid == instead_of.kid, _TABLE.awaits.is_not(None))
                )
            conn.execute(insert(signing_keys).values(made))
            conn.execute(update(signing_keys).where(_TABLE.kid == before.kid).values(retires_at=retires_at))
        self._state.bump_epoch()
        return self.rows(use)[0]

    def begin(self, row: SigningKeyRow, *, before_until: datetime | None = None) -> bool:
        """Let a prepared key sign, from the next signature on, in every process; again is nothing.

        Args:
            row: the key.
            before_until: until when the keys before it are in force too, at the longest; None: as it was said when this
                one was prepared.

        Returns:
            Whether it began now: it had not begun, and none was prepared in its place.
        """
        begun = update(signing_keys).where(_TABLE.kid == row.kid, _TABLE.awaits == row.awaits)
        before = update(signing_keys).where(_TABLE.use == row.use.value, _TABLE.generation < row.generation)
        with self._engine.begin() as conn:
            is_now = conn.execute(begun.values(awaits=None)).rowcount > 0
            if is_now and before_until is not None:
                still = _TABLE.retires_at.is_(None) | (_TABLE.retires_at > before_until)
                conn.execute(before.where(still).values(retires_at=before_until))
        self._state.bump_epoch()
        return is_now

    def _values(
        self, use: SigningUse, generation: int, private: Ed25519PrivateKey | None, public: bytes, held_at: str
    ) -> dict[str, Any]:
        public = private.public_key().public_bytes_raw() if private else public
        kid = sha256(public).hexdigest()[:16]
        raw = private.private_bytes_raw() if private else None
        return {
            "kid": kid,
            "use": use.value,
            "generation": generation,
            "public": public,
            "wrapped": self._master.wrap(raw, "signing_keys", kid, use.value) if raw else b"",
            "created_at": self._clock(),
            "held_at": held_at or None,
        }


def _row(row: Row[Any]) -> SigningKeyRow:
    return SigningKeyRow(
        row.kid,
        SigningUse(row.use),
        row.generation,
        bytes(row.public),
        row.created_at,
        row.held_at,
        row.awaits,
        row.retires_at,
    )
