"""The signed list of what a package holds: with it anybody finds a file that was changed, added or left out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"


@dataclass(frozen=True, slots=True)
class PackedFile:
    """One line of the manifest; `rows` is null for files that are no table."""

    path: str
    bytes: int
    sha256: str
    rows: int | None
    article: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a package holds."""

    kid: str
    files: tuple[PackedFile, ...]

    def encoded(self) -> bytes:
        """The bytes that are signed."""
        facts = {"kid": self.kid, "files": [asdict(file) for file in self.files]}
        return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """Hex SHA-256 of the signed bytes, as the audit entry of the export names it."""
        return sha256(self.encoded()).hexdigest()
