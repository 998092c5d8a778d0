"""What every store of personal data offers, so that export and erasure reach all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from compliance.errors import BadPackage


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file of an export package: rows (written as JSON lines) or raw chunks, read while it is written.

    Args:
        path: where it lies in the package, such as `updates/updates.jsonl`.
        article: under which article the person gets it, such as `Art. 15`.
    """

    path: str
    article: str
    rows: Iterable[Mapping[str, Any]] | None = None
    chunks: Iterable[bytes] | None = None

    def __post_init__(self) -> None:
        parts = self.path.split("/")
        if not all(parts) or "\\" in self.path or any(part in {".", ".."} for part in parts):
            raise BadPackage(self.path, "a path in a package is relative and has no `..`")
        if (self.rows is None) == (self.chunks is None):
            raise BadPackage(self.path, "a file has either rows or chunks")


@dataclass(frozen=True, slots=True)
class ErasedCount:
    """What one run of an erasure removed from a place."""

    rows: int = 0
    blobs: int = 0


class Place(Protocol):
    """A store of personal data."""

    @property
    def name(self) -> str:
        """What the receipt calls it."""

    def export(self, subject: str) -> Iterator[ExportFile]:
        """Everything of the person that lies here."""

    def erase(self, subject: str) -> ErasedCount:
        """Erase what is still here; safe to repeat.

        Raises:
            NotNow: something must stay until a frozen cohort is released (RULES 5).
        """

    def count(self, subject: str) -> int:
        """How much of the person an erasure would have to remove."""
