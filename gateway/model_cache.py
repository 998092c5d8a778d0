"""Models at hand: rows and bytes that were asked for lately, so that they are not fetched again for every client.

A cache is never believed: bytes count only if they hash to the checksum in the row, and a row is read again after
ten seconds. What is dropped, lost or away is fetched from the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Engine

from audit.reading import reading
from gateway.caching.memory import Recent, SingleFlight
from gateway.config import Config
from gateway.errors import BlobCorrupt, ConfigError
from gateway.rounds.lineage import ModelVersion, find_version
from gateway.storage.blobs import CHUNK_BYTES, BlobStore

if TYPE_CHECKING:
    from gateway.caching.shared import SharedModels

ROWS = 128
ROW_AGE_S = 10.0
_MODELS = 2  # the one that a round starts from, and the one it makes
T = TypeVar("T")


class Download(StrEnum):
    """How model bytes go out."""

    PROXY = "proxy"  # by the gateway
    ACCEL = "accel"  # by the nginx before it, from the same file
    REDIRECT = "redirect"  # by the S3 store, to whom the gateway gives a link


@dataclass(frozen=True, slots=True)
class _Loaded:
    data: bytes
    is_new: bool  # not from Redis


class ModelCache:
    """Rows and bytes of models, from memory, then from Redis if there is one, then from database and blob store.

    Args:
        engine: the main database.
        blobs: where the models lie.
        largest_bytes: a larger model is never kept; memory holds bytes of at most two of these.
        download: how they go out.
        shared: the Redis of all processes.
        now_s: tells the age of rows.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        *,
        largest_bytes: int,
        download: Download = Download.PROXY,
        shared: SharedModels | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine, self._blobs, self._shared = engine, blobs, shared
        self._largest_bytes = largest_bytes
        self.download = download
        self._rows: Recent[ModelVersion] = Recent(ROWS, max_age_s=ROW_AGE_S, now_s=now_s)
        self._bytes: Recent[bytes] = Recent(_MODELS * largest_bytes, weigh=len)
        self._loading: SingleFlight[_Loaded] = SingleFlight()

    def get_model_metadata(self, version: str) -> ModelVersion:
        """The version's row, as it was within the last ten seconds.

        Raises:
            NotFound: there is no such version.
        """
        return self._rows.get(version) or self._row(version)

    def get_global_model(self, version: str) -> bytes | None:
        """The model's bytes; None if it is too large to be held in memory: read it from the blob store.

        Raises:
            NotFound: there is no such version.
            FileNotFoundError: its blob is gone.
            BlobCorrupt: its blob is not what was published.
        """
        return self.with_row(version, self.bytes_of)

    def with_row(self, version: str, use: Callable[[ModelVersion], T]) -> T:
        """What `use` makes of the row; if the blob that it names is gone, once more with the row as it is now."""
        found = self.get_model_metadata(version)
        try:
            return use(found)
        except FileNotFoundError:
            self._rows.forget(version)
            again = self._row(version)
            if again.blob_id == found.blob_id:
                raise
        return use(again)

    def bytes_of(self, found: ModelVersion) -> bytes | None:
        """As `get_global_model`, of a row that is known."""
        if found.size_bytes > self._largest_bytes:
            return None
        held = self._bytes.get(_name(found))
        if held is not None:
            return held
        loaded, is_loader = self._loading.run(_name(found), lambda: self._load(found))
        if is_loader and loaded.is_new and self._shared is not None:
            self._shared.store(found.version, loaded.data)  # those who wait have their bytes already
        return loaded.data

    def forget(self, version: str) -> None:
        """Fetch the version anew when it is next asked for."""
        held = self._rows.get(version)
        self._rows.forget(version)
        if held is not None:
            self._bytes.forget(_name(held))
        if self._shared is not None:
            self._shared.drop(version)

    def state(self) -> str:
        """`healthy`, or `degraded` while Redis does not answer: slower, not wrong."""
        return "healthy" if self._shared is None or self._shared.answers() else "degraded"

    def close(self) -> None:
        """Give the connections back."""
        if self._shared is not None:
            self._shared.close()

    def _row(self, version: str) -> ModelVersion:
        mark = self._rows.mark()
        with reading(self._engine) as conn:
            found = find_version(conn, version)
        self._rows.put(version, found, mark)
        return found

    def _load(self, found: ModelVersion) -> _Loaded:
        held = self._bytes.get(_name(found))  # another thread may have loaded it just now
        if held is not None:
            return _Loaded(held, is_new=False)
        mark = self._bytes.mark()
        data = self._shared.fetch(found.version, found.checksum, found.size_bytes) if self._shared else None
        loaded = _Loaded(data or self._read(found), is_new=data is None)
        self._bytes.put(_name(found), loaded.data, mark)
        return loaded

    def _read(self, found: ModelVersion) -> bytes:
        with self._blobs.clear_reader(found.blob_id) as reader:
            if reader.size_bytes != found.size_bytes:  # memory holds what was published, and no more
                raise BlobCorrupt("a model has not the length that was published")
            starts = range(0, reader.size_bytes, CHUNK_BYTES)
            data = b"".join(reader.read_at(at, min(CHUNK_BYTES, reader.size_bytes - at)) for at in starts)
        if sha256(data).hexdigest() != found.checksum:
            raise BlobCorrupt("a model's bytes are not those that were published")
        return data


def open_models(config: Config, engine: Engine, blobs: BlobStore, origin: str) -> ModelCache:
    """The cache that the settings ask for; nothing is connected before it is used.

    Raises:
        ConfigError: `FLG_CACHE_URL` is no URL of a Redis, or `FLG_MODEL_DOWNLOAD` no way out.
    """
    if config.model_download not in list(Download):
        raise ConfigError(f"FLG_MODEL_DOWNLOAD must be one of {', '.join(Download)}")
    shared, download = None, Download(config.model_download)
    if config.cache_url:
        from gateway.caching.shared import Breaker, SharedModels  # a command without a cache need not load it

        shared = SharedModels(config.cache_url, f"fl-gateway:{origin}", config.cache_ttl_s, Breaker())
    return ModelCache(engine, blobs, largest_bytes=config.cache_model_bytes, download=download, shared=shared)


def get_model_metadata(version: str) -> ModelVersion:
    """`ModelCache.get_model_metadata` of the application that answers this request."""
    return _models().get_model_metadata(version)


def get_global_model(version: str) -> bytes | None:
    """`ModelCache.get_global_model` of the application that answers this request."""
    return _models().get_global_model(version)


def _models() -> ModelCache:
    from gateway.services import current_services  # it opens this room

    return current_services().models


def _name(found: ModelVersion) -> str:
    """What bytes are kept under: a restored database may have another model under the same version."""
    return f"{found.version} {found.checksum}"
