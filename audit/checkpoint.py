"""Checkpoints: what the log's key signs. C2SP signed-note and tlog-checkpoint, with Ed25519."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from audit.errors import BadKey, BadNote, BadSignature
from audit.merkle import HASH_BYTES

ED25519 = b"\x01"
_DASH = "— "
_MAX_NOTE_CHARACTERS = 1_000_000
_MAX_SIGNATURES = 100
_SIZE = re.compile(r"0|[1-9][0-9]{0,17}")
_KEY_ID = re.compile(r"[0-9a-f]{8}")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")


@dataclass(frozen=True, slots=True)
class SignedTree:
    """The tree that a checkpoint speaks of."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature line of a note: who claims to have signed, and what."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A signed note, taken apart; nothing in it is verified."""

    text: str
    signatures: tuple[Signature, ...]


class NoteKey(Protocol):
    """A private Ed25519 key, wherever it is: in memory (cryptography's own), or in a KMS that signs itself."""

    def public_key(self) -> Ed25519PublicKey:
        """The public half."""

    def sign(self, data: bytes, /) -> bytes:
        """The signature of these bytes, 64 bytes."""


class LogSigner(Protocol):
    """Whatever signs the checkpoints of one log with the keys that are in force."""

    @property
    def origin(self) -> str:
        """The log's name, which is also the name of its keys."""

    @property
    def vkey(self) -> str:
        """The verifier key of the newest key."""

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys of all keys that sign now, the newest first."""

    def sign(self, size: int, root: bytes) -> str:
        """The checkpoint of a tree, with a signature line of each key, the newest first."""


class NoteSigner:
    """Signs checkpoints of one log; the keys' name is the log's origin.

    Args:
        origin: the log's name.
        key: the newest key.
        older: the keys that still sign beside it, the newer first.
    """

    def __init__(self, origin: str, key: NoteKey, *older: NoteKey) -> None:
        self.origin = checked_name(origin)
        self._keys = [(one, one.public_key().public_bytes_raw()) for one in (key, *older)]

    @property
    def vkey(self) -> str:
        """The verifier key that auditors need, `name+hash+base64`."""
        return self.vkeys[0]

    @property
    def vkeys(self) -> tuple[str, ...]:
        """The verifier keys of all keys, the newest first."""
        return tuple(write_vkey(self.origin, ED25519, public) for _, public in self._keys)

    def sign(self, size: int, root: bytes) -> str:
        """The checkpoint of a tree, as a signed note."""
        text = checkpoint_text(SignedTree(self.origin, size, root))
        return self.sign_text(text)

    def sign_text(self, text: str) -> str:
        """A signed note of any text that ends with a newline, with one line of each key, the newest first."""
        data = _note_bytes(text)
        if not text.endswith("\n"):
            raise BadNote("the text of a note ends with a newline")
        lines = [
            signature_line(self.origin, key_id(self.origin, ED25519, public), key.sign(data))
            for key, public in self._keys
        ]
        return f"{text}\n{''.join(lines)}"


class NoteVerifier:
    """Verifies notes with one public key."""

    def __init__(self, name: str, key: Ed25519PublicKey) -> None:
        self.name = checked_name(name)
        self._key = key
        self._public = key.public_bytes(Encoding.Raw, PublicFormat.Raw)  # as auditors' older versions can
        self._key_id = key_id(name, ED25519, self._public)

    @classmethod
    def of(cls, name: str, public: bytes) -> NoteVerifier:
        """The verifier of a log's name and its raw public key."""
        return cls(name, Ed25519PublicKey.from_public_bytes(public))

    @classmethod
    def parse(cls, vkey: str) -> NoteVerifier:
        """The verifier of a key text; raises BadKey."""
        return cls.of(*read_vkey(vkey, ED25519))

    @property
    def vkey(self) -> str:
        """The key text."""
        return write_vkey(self.name, ED25519, self._public)

    def named(self, name: str) -> NoteVerifier:
        """The same key under another log's name: a gateway signs with one key before and after a succession."""
        return NoteVerifier(name, self._key)

    def verify(self, note: str) -> str:
        """The text of a note that this key signed; raises BadNote or BadSignature.

        Signatures of other keys are ignored, as witnesses add theirs; a bad one of this key is not.
        """
        parsed = parse_note(note)
        mine = [line for line in parsed.signatures if (line.name, line.key_id) == (self.name, self._key_id)]
        if not mine:
            raise BadSignature(f"the note bears no signature of the key {self.name}+{self._key_id.hex()}")
        for line in mine:
            self._verify_one(line.signature, parsed.text.encode())
        return parsed.text

    def open(self, note: str) -> SignedTree:
        """The tree of a checkpoint that this key signed for the log of its own name."""
        tree = parse_checkpoint(self.verify(note))
        if tree.origin != self.name:
            raise BadNote("the checkpoint speaks of another log than its key")
        return tree

    def _verify_one(self, signature: bytes, data: bytes) -> None:
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            raise BadSignature("the note's signature does not verify: the text or the key is wrong") from None


def read_vkey(vkey: str, algorithm: bytes) -> tuple[str, bytes]:
    """The name and the raw public key in a key text (C2SP signed-note) of this algorithm; raises BadKey."""
    parts = vkey.strip().split("+", 2)
    if len(parts) != 3:
        raise BadKey("a verifier key reads name+hash+base64")
    name, claimed, encoded = parts
    public = _decode(encoded)
    if public is None or len(public) != 1 + HASH_BYTES or public[:1] != algorithm:
        raise BadKey(f"the verifier key is not an Ed25519 key (algorithm {algorithm[0]}, 32 bytes, base64)")
    if not _is_name(name):
        raise BadKey("the name of a verifier key has neither spaces nor plus signs")
    if not _KEY_ID.fullmatch(claimed) or bytes.fromhex(claimed) != key_id(name, algorithm, public[1:]):
        raise BadKey("the hash in the verifier key is not that of its name and key")
    return name, public[1:]


def write_vkey(name: str, algorithm: bytes, public: bytes) -> str:
    """The key text of a raw public key."""
    return f"{name}+{key_id(name, algorithm, public).hex()}+{_encode(algorithm + public)}"


def signature_line(name: str, key_id: bytes, signature: bytes) -> str:
    """One signature line of a note."""
    return f"{_DASH}{name} {_encode(key_id + signature)}\n"


def key_id(name: str, algorithm: bytes, public: bytes) -> bytes:
    """What tells keys of one name apart in a note: four bytes of a hash."""
    return sha256(name.encode() + b"\n" + algorithm + public).digest()[:4]


def parse_note(note: str) -> Note:
    """Take a signed note apart; raises BadNote."""
    _note_bytes(note)
    end = note.rfind("\n\n")
    if end < 0 or not note.endswith("\n"):
        raise BadNote("a signed note is a text, an empty line, and signature lines")
    lines = note[end + 2 : -1].split("\n")
    if len(lines) > _MAX_SIGNATURES:
        raise BadNote(f"a note bears at most {_MAX_SIGNATURES} signatures")
    return Note(note[: end + 1], tuple(_parse_signature(line) for line in lines))


def checkpoint_text(tree: SignedTree) -> str:
    """The text that is signed: origin, size and root, a line each."""
    if tree.size < 0 or len(tree.root) != HASH_BYTES:
        raise BadNote("a checkpoint has a size from 0 and a root of 32 bytes")
    return f"{tree.origin}\n{tree.size}\n{_encode(tree.root)}\n"


def parse_checkpoint(text: str) -> SignedTree:
    """The tree that a note's text speaks of; extension lines are allowed and ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines.pop() != "" or not all(lines):
        raise BadNote("a checkpoint has three lines: origin, size, root")
    origin, size, root = lines[:3]
    if not _SIZE.fullmatch(size):
        raise BadNote("the size of a checkpoint is a decimal without leading zeros")
    decoded = _decode(root)
    if decoded is None or len(decoded) != HASH_BYTES:
        raise BadNote("the root of a checkpoint is 32 bytes in base64")
    return SignedTree(origin, int(size), decoded)


def _parse_signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = _decode(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or data is None or len(data) < 5:
        raise BadNote("a signature line reads: em dash, key name, base64")
    return Signature(name, data[:4], data[4:])


def _note_bytes(text: str) -> bytes:
    if len(text) > _MAX_NOTE_CHARACTERS:
        raise BadNote("the note is too long")
    if _CONTROL.search(text):
        raise BadNote("a note holds no control characters but newlines")
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadNote("a note is valid UTF-8") from None


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(letter.isspace() or letter < " " for letter in name)


def checked_name(name: str) -> str:
    """The name, if it can be that of a key; raises BadKey."""
    if not _is_name(name):
        raise BadKey("the name of a key has neither spaces nor plus signs: example.com/log")
    return name


def _encode(data: bytes) -> str:
    return b64encode(data).decode()


def _decode(text: str) -> bytes | None:
    """Strict base64: one spelling for each byte string."""
    try:
        data = b64decode(text, validate=True)
    except (Base64Error, ValueError):
        return None
    return data if _encode(data) == text else None
