"""Ed25519 keys that sign the log, the receipts and the packages: one key per use, the newest signs."""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import IntegrityError

from audit.reading import reading
from compliance.clock import Clock
from compliance.keys import PublicKeyRow, SigningKey, SigningUse
from compliance.keystore_tables import signing_keys
from compliance.wrapping import MasterKey


class SigningKeys:
    """Makes, finds and rotates signing keys."""

    def __init__(self, engine: Engine, master: MasterKey, clock: Clock) -> None:
        self._engine = engine
        self._master = master
        self._clock = clock

    def current(self, use: SigningUse) -> SigningKey:
        """The key that signs for this use now; made and committed at the first call."""
        return self._newest(use) or self._make(use, generation=1)

    def rotate(self, use: SigningUse) -> SigningKey:
        """Make the next generation; older public keys stay, so that what they signed still verifies."""
        return self._make(use, generation=self._generation(use) + 1)

    def public_keys(self) -> list[PublicKeyRow]:
        """Every public key, all generations."""
        columns = select(signing_keys.c.kid, signing_keys.c.use, signing_keys.c.public)
        with reading(self._engine) as conn:
            rows = conn.execute(columns.order_by(signing_keys.c.use, signing_keys.c.generation)).all()
        return [PublicKeyRow(kid, SigningUse(use), public) for kid, use, public in rows]

    def _newest(self, use: SigningUse) -> SigningKey | None:
        newest = signing_keys.c.generation.desc()
        query = select(signing_keys).where(signing_keys.c.use == use.value).order_by(newest).limit(1)
        with reading(self._engine) as conn:
            row = conn.execute(query).one_or_none()
        if row is None:
            return None
        raw = self._master.unwrap(row.wrapped, "signing_keys", row.kid, use.value)
        return SigningKey(row.kid, Ed25519PrivateKey.from_private_bytes(raw))

    def _generation(self, use: SigningUse) -> int:
        query = select(signing_keys.c.generation).where(signing_keys.c.use == use.value)
        with reading(self._engine) as conn:
            return max(conn.execute(query).scalars(), default=0)

    def _make(self, use: SigningUse, *, generation: int) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        kid = sha256(public).hexdigest()[:16]
        row = {
            "kid": kid,
            "use": use.value,
            "generation": generation,
            "public": public,
            "wrapped": self._master.wrap(private.private_bytes_raw(), "signing_keys", kid, use.value),
            "created_at": self._clock(),
        }
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(signing_keys).values(row))
        except IntegrityError:  # another process made this generation first: both use its key
            made = self._newest(use)
            if made is None:
                raise
            return made
        return SigningKey(kid, private)
