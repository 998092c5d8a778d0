"""What every store of personal data offers, so that export and erasure reach all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from compliance.errors import BadPackage
from compliance.packages.columns import ExportColumn


@dataclass(frozen=True, slots=True)
class ExportTable:
    """Rows of one kind, read once while the package is written: as JSON, as CSV, and the portable part (Art. 20).

    Args:
        category: what the rows are; names its files, such as `data/clients.json` and `data/clients.csv`.
        article: under which article the person gets it, such as `Art. 15`.
        title: what the rows are, for people.
        columns: the members that every row has.
        rows: the rows.
        path: where its JSON lies if not in `data/`; such a table has no CSV.
    """

    category: str
    article: str
    title: str
    columns: Sequence[ExportColumn]
    rows: Iterable[Mapping[str, Any]]
    path: str | None = None

    def __post_init__(self) -> None:
        check_path(self.json_path)

    @property
    def json_path(self) -> str:
        """Where its rows lie as JSON."""
        return self.path or f"data/{self.category}.json"

    @property
    def portable(self) -> tuple[ExportColumn, ...]:
        """The columns that the person may take along."""
        return tuple(column for column in self.columns if column.is_portable)


@dataclass(frozen=True, slots=True)
class ExportFile:
    """One file that is no table, such as a signed note; its chunks are read while the package is written."""

    path: str
    article: str
    title: str
    chunks: Iterable[bytes]

    def __post_init__(self) -> None:
        check_path(self.path)


@dataclass(frozen=True, slots=True)
class FolderFile:
    """One of many files of a kind."""

    name: str
    size_bytes: int
    chunks: Iterable[bytes]


@dataclass(frozen=True, slots=True)
class ExportFolder:
    """Any number of files of one kind: the first of them lie one by one, the others in archives.

    Args:
        path: the folder, such as `updates`.
        article: under which article the person gets them.
        title: what they are, for people.
        files: the files, opened one after the other; no two have the same name.
        is_portable: whether the person may take them along (Art. 20).
    """

    path: str
    article: str
    title: str
    files: Iterable[FolderFile]
    is_portable: bool = False

    def __post_init__(self) -> None:
        check_path(self.path)


ExportPart: TypeAlias = ExportTable | ExportFile | ExportFolder


def check_path(path: str) -> None:
    """Refuse a path that an unpacking tool could follow out of its folder. Raises BadPackage."""
    parts = path.split("/")
    if not all(parts) or "\\" in path or any(part in {".", ".."} for part in parts):
        raise BadPackage(path, "a path in a package is relative and has no `..`")


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

    def export(self, subject: str) -> Iterator[ExportPart]:
        """Everything of the person that lies here."""

    def erase(self, subject: str) -> ErasedCount:
        """Erase what is still here; safe to repeat.

        Raises:
            NotNow: something must stay until a frozen cohort is released (RULES 5).
        """

    def count(self, subject: str) -> int:
        """How much of the person an erasure would have to remove."""
