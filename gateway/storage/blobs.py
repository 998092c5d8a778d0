"""Where updates, models and export packages lie: a directory (`file:`) or a bucket (`s3:`), behind one protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from gateway.config import Config
from gateway.errors import BlobCorrupt, ConfigError
from gateway.storage.chunks import CHUNK_BYTES, ClearReader, Incoming, NoSuchBlob, SealedReader, StoredBlob
from gateway.storage.file_blobs import FileBlobs, is_full

__all__ = [
    "CHUNK_BYTES",
    "BlobCorrupt",
    "BlobStore",
    "ClearReader",
    "FileBlobs",
    "Incoming",
    "NoSuchBlob",
    "SealedReader",
    "StoredBlob",
    "is_full",
    "open_blobs",
]


class BlobStore(Protocol):
    """A store of blobs with random names; every blob is whole or absent.

    Every method may raise `BlobsAway` (503: the store does not answer), every writing one `StorageFull` (507).
    A blob that is asked for and is not there is a `NoSuchBlob`, which is a `FileNotFoundError`. `files_models`
    says whether a published model gets the name of its version.
    """

    files_models: bool

    def incoming(self, blob_id: str, key: bytes | None = None) -> Incoming:
        """Start a blob, sealed under its own data key, or in clear without one; nothing has a name yet."""

    def reader(self, blob_id: str, key: bytes, *, hold: bool = True) -> SealedReader:
        """A reader of a sealed blob's plain bytes; with `hold` it keeps the last chunk between reads."""

    def clear_reader(self, blob_id: str) -> ClearReader:
        """A reader of a blob that is kept in clear."""

    def as_file(self, blob_id: str) -> AbstractContextManager[Path]:
        """The stored bytes as a file to read, for as long as the block runs."""

    def local_path(self, blob_id: str) -> Path | None:
        """Where the blob lies in this machine's files; None if it does not."""

    def presigned_url(self, blob_id: str, *, expires_s: int, version: str) -> str | None:
        """A URL that gives the bytes to whoever has it, until it expires; None if the store has no such thing."""

    def file_model(self, blob_id: str, version: str, checksum: str, at: datetime) -> str | None:
        """Copy a published model to the name of its version; that name, or None if the store has no such names."""

    def insist_room(self, size_bytes: int) -> None:
        """Refuse a body that announces more bytes than there is room for, before any of it is read."""

    def size(self, blob_id: str) -> int:
        """How many bytes are stored."""

    def delete(self, blob_id: str) -> bool:
        """Remove the blob with all its versions; says whether it was there."""

    def delete_many(self, blob_ids: Sequence[str]) -> int:
        """Remove blobs; says how many were there."""

    def stored(self) -> Iterator[StoredBlob]:
        """Every kept blob with its size and age."""

    def names(self) -> Iterator[str]:
        """The ids of all kept blobs."""

    def modified_at(self, blob_id: str) -> float:
        """When it was written, in seconds since the epoch; infinity if it is gone."""

    def usable(self) -> bool:
        """Whether blobs can be written now; cheap enough for a probe."""

    def sweep_incoming(self, *, older_than_s: float, now_s: float | None = None) -> int:
        """Remove what cut-off uploads left behind; returns how many."""

    def close(self) -> None:
        """Give back what is held open."""


def open_blobs(config: Config) -> BlobStore:
    """The blob store that `FLG_BLOB_URL` names.

    Raises:
        ConfigError: it is of neither form.
    """
    scheme, _, rest = config.blob_url.partition(":")
    if scheme == "file" and rest:
        return FileBlobs(Path(rest))
    if scheme == "s3":
        from gateway.storage.s3_blobs import open_s3_blobs  # boto3 takes its time to load

        return open_s3_blobs(config)
    raise ConfigError("FLG_BLOB_URL must have the form file:DIR or s3://BUCKET/PREFIX")
