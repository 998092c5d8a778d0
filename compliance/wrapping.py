"""Wraps the secrets of the key store with the master key (AES-256-GCM).

The row's identity is the associated data: a wrapped key moved into another row does not open.
"""

from __future__ import annotations

import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from compliance.errors import BadMasterKey

KEY_BYTES = 32
_NONCE_BYTES = 12


class MasterKey:
    """The one key that opens the key store; it is kept apart from it."""

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise BadMasterKey(f"the master key must have {KEY_BYTES} bytes")
        self._cipher = AESGCM(key)

    def wrap(self, secret: bytes, *row: str) -> bytes:
        """Encrypt a secret for the row that `row` names."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, _identity(row))

    def unwrap(self, wrapped: bytes, *row: str) -> bytes:
        """Decrypt the secret of the row that `row` names."""
        nonce, ciphertext = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, ciphertext, _identity(row))
        except (InvalidTag, ValueError) as error:
            raise BadMasterKey(
                "the master key does not open this key store: give the one it was made with"
            ) from error


def _identity(row: tuple[str, ...]) -> bytes:
    return json.dumps(["flg-wrap", *row], separators=(",", ":")).encode()
