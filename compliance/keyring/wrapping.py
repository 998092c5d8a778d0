"""Wraps the secrets of the key store with the master key (AES-256-GCM).

The row's identity is the associated data: a wrapped key moved into another row does not open. While the master key is
rotated there are two: the newest wraps, each opens what it wrapped (decision 0108).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from compliance.errors import BadMasterKey

KEY_BYTES = 32
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class _Known:
    """The keys with the epoch at which they were read: of one moment, so that threads which race never mix two."""

    epoch: int | None
    ciphers: Mapping[str, AESGCM]


class MasterKey:
    """What opens the key store; it is kept apart from it.

    Args:
        keys: the newest, which wraps; then those that still open rows.
        read_again: the keys as they stand now, where they are kept; they may change while this process runs.
        epoch: the number whose change says that they may have changed.
    """

    __slots__ = ("_epoch", "_known", "_read_again")

    def __init__(
        self,
        *keys: bytes,
        read_again: Callable[[], Sequence[bytes]] | None = None,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self._read_again, self._epoch = read_again, epoch
        # `keys` may be older than this epoch: whoever can read them again does so before the first wrap.
        self._known = _Known(None if read_again else epoch(), _ciphers(keys))

    @property
    def kids(self) -> tuple[str, ...]:
        """The names of the keys, the newest first; a name tells nothing of its key."""
        return tuple(self._known.ciphers)

    def wrap(self, secret: bytes, *row: str) -> bytes:
        """Encrypt a secret for the row that `row` names, under the key that is the newest now."""
        if self._epoch() != self._known.epoch:
            self.refresh()
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._newest.encrypt(nonce, secret, _identity(row))

    def unwrap(self, wrapped: bytes, *row: str) -> bytes:
        """Decrypt the secret of the row that `row` names."""
        known = self._opened(wrapped, row)
        if known is None:
            self.refresh()  # another process has wrapped it under a newer key
            known = self._opened(wrapped, row)
        if known is None:
            raise BadMasterKey("the master key does not open this key store: give the one it was made with")
        return known

    def rewrapped(self, wrapped: bytes, *row: str) -> bytes | None:
        """The same secret under the newest key; None where it is under that already."""
        if _decrypted(self._newest, wrapped, row) is not None:
            return None
        return self.wrap(self.unwrap(wrapped, *row), *row)

    def refresh(self) -> None:
        """Read the keys again."""
        if self._read_again is not None:
            epoch = self._epoch()  # first: keys that change meanwhile are read once more
            self._known = _Known(epoch, _ciphers(self._read_again()))

    @property
    def _newest(self) -> AESGCM:
        return next(iter(self._known.ciphers.values()))

    def _opened(self, wrapped: bytes, row: tuple[str, ...]) -> bytes | None:
        found = (_decrypted(cipher, wrapped, row) for cipher in self._known.ciphers.values())
        return next((secret for secret in found if secret is not None), None)


def kid_of(key: bytes) -> str:
    """The name of a master key."""
    return sha256(b"flg-master-key" + key).hexdigest()[:16]


def _ciphers(keys: Sequence[bytes]) -> dict[str, AESGCM]:
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise BadMasterKey(f"the master key must have {KEY_BYTES} bytes")
    return {kid_of(key): AESGCM(key) for key in keys}


def _decrypted(cipher: AESGCM, wrapped: bytes, row: tuple[str, ...]) -> bytes | None:
    nonce, ciphertext = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
    try:
        return cipher.decrypt(nonce, ciphertext, _identity(row))
    except (InvalidTag, ValueError):
        return None


def _identity(row: tuple[str, ...]) -> bytes:
    return json.dumps(["flg-wrap", *row], separators=(",", ":")).encode()
