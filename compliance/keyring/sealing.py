"""Seals what belongs to a person under that person's key; without the key no copy can be read (RULES 15-17).

AES-256-GCM with the value's place as associated data; lengths are padded and tell little.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import os
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from audit.canonical import JsonValue
from audit.entry import Sealed
from audit.errors import KeyDestroyed
from audit.events import Retention
from compliance.errors import CannotOpen
from compliance.keyring.epoch_cache import EpochCache
from compliance.keyring.keystore import KeyStore

_NONCE_BYTES = 12
_LENGTH_BYTES = 4
PAD_BYTES = 32


class SubjectSealer:
    """Seals and opens values with the key store's keys; implements `audit.draft.Sealer`."""

    def __init__(self, keystore: KeyStore) -> None:
        self._keystore = keystore
        self._ciphers: EpochCache[str, AESGCM] = EpochCache(keystore.state.epoch)

    def seal(
        self, subject: str, retention: Retention, context: str, value: JsonValue, at: datetime
    ) -> Sealed:
        """Encrypt a JSON value for the place that `context` names."""
        key = self._keystore.key_for(subject, retention, at)
        cipher = self._ciphers.get(key.key_id, lambda: AESGCM(derive(key.secret, b"flg-seal")))
        return _sealed(cipher, key.key_id, context, value)

    def seal_under(self, key_id: str, context: str, value: JsonValue) -> Sealed:
        """Encrypt under a key that is there already, also of a person who gets no new one. Raises KeyDestroyed."""
        cipher = self._ciphers.get(key_id, lambda: AESGCM(derive(self._secret(key_id), b"flg-seal")))
        return _sealed(cipher, key_id, context, value)

    def open(self, sealed: Sealed, context: str) -> JsonValue:
        """Decrypt a value that was sealed for this place.

        Raises:
            KeyDestroyed: the key is gone; the person was erased, or the time to keep the value is over.
            CannotOpen: the value was sealed for another place, or changed since.
        """
        cipher = self._ciphers.get(sealed.key, lambda: AESGCM(derive(self._secret(sealed.key), b"flg-seal")))
        try:
            ciphertext = base64.b64decode(sealed.enc, validate=True)
            padded = cipher.decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], context.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise CannotOpen("the value was sealed for another place, or changed since") from error
        return unpad(padded)

    def hmac(self, subject: str, retention: Retention, data: bytes, at: datetime) -> tuple[str, str]:
        """The id of the subject's key and the hex HMAC of the data under it: no reader can test a guess."""
        key = self._keystore.key_for(subject, retention, at)
        return key.key_id, _mac(key.secret, data)

    def hmac_under(self, key_id: str, data: bytes) -> str:
        """The hex HMAC under a key that is named by its id. Raises KeyDestroyed."""
        return _mac(self._secret(key_id), data)

    def blob_key(self, key_id: str, blob_id: str) -> bytes:
        """The data key of one blob (RULES 17). Raises KeyDestroyed."""
        return derive(self._secret(key_id), b"flg-blob|" + blob_id.encode())

    def new_blob_key(
        self, subject: str, retention: Retention, blob_id: str, at: datetime
    ) -> tuple[str, bytes]:
        """The id of the subject's key and the data key for a blob to be written."""
        key = self._keystore.key_for(subject, retention, at)
        return key.key_id, derive(key.secret, b"flg-blob|" + blob_id.encode())

    def seal_column(
        self,
        subject: str,
        retention: Retention,
        table: str,
        column: str,
        row_id: str,
        value: JsonValue,
        at: datetime,
    ) -> dict[str, str]:
        """Encrypt a value for one column of one row, as the JSON that the column holds (RULES 16)."""
        return self.seal(subject, retention, column_context(table, column, row_id), value, at).public()

    def open_column(self, stored: Mapping[str, Any], table: str, column: str, row_id: str) -> JsonValue:
        """Decrypt what `seal_column` made for that very place. Raises KeyDestroyed, CannotOpen."""
        sealed = Sealed.read(dict(stored))
        if sealed is None:
            raise CannotOpen("the column holds no sealed value")
        return self.open(sealed, column_context(table, column, row_id))

    def _secret(self, key_id: str) -> bytes:
        key = self._keystore.find(key_id)
        if key is None:
            raise KeyDestroyed("the key is gone: the person was erased, or the time to keep this is over")
        return key.secret


def _sealed(cipher: AESGCM, key_id: str, context: str, value: JsonValue) -> Sealed:
    nonce = os.urandom(_NONCE_BYTES)
    ciphertext = nonce + cipher.encrypt(nonce, pad(value), context.encode())
    return Sealed(base64.b64encode(ciphertext).decode(), key_id)


def column_context(table: str, column: str, row_id: str) -> str:
    """The associated data of a sealed column."""
    return f"{table}.{column}.{row_id}"


def derive(secret: bytes, label: bytes) -> bytes:
    """A key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=label).derive(secret)


def pad(value: JsonValue) -> bytes:
    """The JSON text behind its length, filled with zeros to a multiple of 32 bytes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    framed = len(text).to_bytes(_LENGTH_BYTES, "big") + text
    return framed + bytes(-len(framed) % PAD_BYTES)


def unpad(padded: bytes) -> JsonValue:
    """The value that `pad` framed."""
    length = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    value: JsonValue = json.loads(padded[_LENGTH_BYTES : _LENGTH_BYTES + length])
    return value


def _mac(secret: bytes, data: bytes) -> str:
    return hmac.new(derive(secret, b"flg-hmac"), data, sha256).hexdigest()
