"""Cosignatures: what a witness signs of another's checkpoint, and when. C2SP tlog-cosignature v1, with Ed25519.

A cosignature says: at this time, this was the largest tree that I had seen of this log, and it continues all
that I saw before. Whoever has one knows that the log's operator showed the witness no other history.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from audit.checkpoint import checked_name, key_id, parse_note, read_vkey, signature_line, write_vkey
from audit.errors import BadNote, BadSignature

COSIGNATURE = b"\x04"
_TIMESTAMP = struct.Struct(">Q")
_SIGNATURE_BYTES = 64


class CosignatureSigner:
    """Cosigns as one witness; its key must sign nothing else."""

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = checked_name(name)
        self._key = key
        self._public = key.public_key().public_bytes_raw()

    @property
    def vkey(self) -> str:
        """The verifier key that logs and auditors need."""
        return write_vkey(self.name, COSIGNATURE, self._public)

    def cosign(self, checkpoint_text: str, at: datetime) -> str:
        """The signature line on a checkpoint's text (without its signatures), as of this time."""
        if not checkpoint_text.endswith("\n"):
            raise BadNote("the text of a checkpoint ends with a newline")
        seconds = int(at.timestamp())
        signature = self._key.sign(_message(checkpoint_text, seconds))
        signed_by = key_id(self.name, COSIGNATURE, self._public)
        return signature_line(self.name, signed_by, _TIMESTAMP.pack(seconds) + signature)


class CosignatureVerifier:
    """Verifies the cosignatures of one witness; `public` tells two witnesses apart, whatever their names."""

    def __init__(self, name: str, public: bytes) -> None:
        self.name = checked_name(name)
        self.public = public
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self._key_id = key_id(name, COSIGNATURE, public)

    @classmethod
    def parse(cls, vkey: str) -> CosignatureVerifier:
        """The verifier of a key text (algorithm 4); raises BadKey."""
        return cls(*read_vkey(vkey, COSIGNATURE))

    @property
    def vkey(self) -> str:
        """The key text."""
        return write_vkey(self.name, COSIGNATURE, self.public)

    @property
    def key_name(self) -> str:
        """The name with the key's id, as short as that can be told: `name+hash`."""
        return f"{self.name}+{self._key_id.hex()}"

    def find(self, note: str) -> datetime | None:
        """When this witness cosigned the note, the latest time if it did so twice; None if it did not.

        Raises:
            BadNote: the text is no signed note.
            BadSignature: a signature in this key's name is not its own.
        """
        parsed = parse_note(note)
        return max(
            (
                self._time_of(line.signature, parsed.text)
                for line in parsed.signatures
                if (line.name, line.key_id) == (self.name, self._key_id)
            ),
            default=None,
        )

    def pick(self, checkpoint_text: str, lines: str) -> str:
        """This witness's line among those that it answered to a checkpoint; lines of other keys are dropped.

        Raises:
            BadNote: the lines are no signature lines.
            BadSignature: none is this witness's cosignature of that text.
        """
        for line in parse_note(f"{checkpoint_text}\n{lines}").signatures:
            if (line.name, line.key_id) == (self.name, self._key_id):
                self._time_of(line.signature, checkpoint_text)
                return signature_line(line.name, line.key_id, line.signature)
        raise BadSignature(f"there is no cosignature of the key {self.key_name}")

    def _time_of(self, signature: bytes, text: str) -> datetime:
        if len(signature) != _TIMESTAMP.size + _SIGNATURE_BYTES:
            raise BadSignature(f"a cosignature of {self.key_name} has not a timestamp and 64 bytes")
        (seconds,) = _TIMESTAMP.unpack_from(signature)
        try:
            self._key.verify(signature[_TIMESTAMP.size :], _message(text, seconds))
            return datetime.fromtimestamp(seconds, UTC)
        except InvalidSignature:
            raise BadSignature(
                f"a cosignature of {self.key_name} does not verify: the text or the key is wrong"
            ) from None
        except (OverflowError, ValueError, OSError):
            raise BadSignature(f"a cosignature of {self.key_name} is of no time that there is") from None


def _message(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()
