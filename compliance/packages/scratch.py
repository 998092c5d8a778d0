"""Room on disk for what must wait while a package is written: nothing readable lies there, and nothing stays.

The file has no name, and is encrypted under a key that is in this process's memory alone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

_BLOCK_BYTES = 1 << 16


class Scratch:
    """Bytes that are written once, then read once, in order."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `read` or `close` closes it
        self._cipher = Cipher(AES(os.urandom(32)), CTR(os.urandom(16)))
        self._encryptor = self._cipher.encryptor()

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        self._file.write(self._encryptor.update(data))

    def read(self) -> Iterator[bytes]:
        """What was written, block by block; the file is gone afterwards."""
        decryptor = self._cipher.decryptor()
        self._file.seek(0)
        with self._file:
            while block := self._file.read(_BLOCK_BYTES):
                yield decryptor.update(block)

    def close(self) -> None:
        """Give the room back; harmless after `read`."""
        self._file.close()
