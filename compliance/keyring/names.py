"""Random names and look-up indexes that stand for a person who must not be named (RULES 16, 28)."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from uuid import uuid4

from sqlalchemy import Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from audit.reading import reading
from compliance.clock import Clock
from compliance.keyring.tables import index_keys, pseudonyms
from compliance.keyring.wrapping import KEY_BYTES, MasterKey

_LOOKUP = "lookup"


class Names:
    """Draws pseudonyms and computes look-up indexes."""

    def __init__(self, engine: Engine, master: MasterKey, clock: Clock) -> None:
        self._engine = engine
        self._master = master
        self._clock = clock
        self._lookup: bytes | None = None

    def pseudonym(self, subject: str) -> str:
        """The subject's pseudonym, drawn and committed at the first call."""
        return self.drawn(subject) or self._draw(subject)

    def drawn(self, subject: str) -> str | None:
        """The subject's pseudonym, if it has one."""
        query = select(pseudonyms.c.pseudonym).where(pseudonyms.c.subject == subject)
        with reading(self._engine) as conn:
            return conn.execute(query).scalar_one_or_none()

    def forget(self, subject: str) -> bool:
        """Delete the subject's pseudonym; True if there was one."""
        with self._engine.begin() as conn:
            gone = conn.execute(delete(pseudonyms).where(pseudonyms.c.subject == subject))
        return gone.rowcount > 0

    def index(self, value: str) -> str:
        """Hex HMAC of a personal value under a key that only the key store has."""
        if self._lookup is None:
            self._lookup = self._stored_key() or self._make_key()
        return hmac.new(self._lookup, b"flg-index" + value.encode(), sha256).hexdigest()

    def _draw(self, subject: str) -> str:
        name = str(uuid4())
        row = {"subject": subject, "pseudonym": name, "created_at": self._clock()}
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(pseudonyms).values(row))
        except IntegrityError:  # another process drew it first: both use its draw
            drawn = self.drawn(subject)
            if drawn is None:
                raise
            return drawn
        return name

    def _stored_key(self) -> bytes | None:
        query = select(index_keys.c.wrapped).where(index_keys.c.name == _LOOKUP)
        with reading(self._engine) as conn:
            wrapped = conn.execute(query).scalar_one_or_none()
        return None if wrapped is None else self._master.unwrap(wrapped, "index_keys", _LOOKUP)

    def _make_key(self) -> bytes:
        secret = os.urandom(KEY_BYTES)
        wrapped = self._master.wrap(secret, "index_keys", _LOOKUP)
        row = {"name": _LOOKUP, "wrapped": wrapped, "created_at": self._clock()}
        try:
            with self._engine.begin() as conn:
                conn.execute(insert(index_keys).values(row))
        except IntegrityError:  # another process made it first: both use its key
            made = self._stored_key()
            if made is None:
                raise
            return made
        return secret
