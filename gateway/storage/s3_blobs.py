"""Blobs in an S3 bucket: sealed ones below `blobs/`, each model version below `models/` once it is published.

A prefix belongs to one gateway. Nothing below it that has no name of ours is ever listed, and so never deleted.
"""

from __future__ import annotations

import re
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from gateway.config import Config
from gateway.errors import BlobCorrupt, BlobsAway, ConfigError, StorageFull
from gateway.storage.chunks import (
    CHUNK_BYTES,
    MODEL_NAME,
    ClearReader,
    Incoming,
    NoSuchBlob,
    SealedReader,
    StoredBlob,
)
from gateway.storage.file_blobs import is_full
from gateway.storage.s3_client import S3
from gateway.storage.s3_copy import copy_object, is_same_model, model_metadata
from gateway.storage.s3_upload import Upload

DEFAULT_BUCKET = "fl-models"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9!_.*'()-]+/)*")
_SEALED = re.compile(r"[0-9a-f]{4,64}")
_FETCH_BYTES = 8 << 20
_USABLE_FOR_S = 3.0
_ALIGNED_CHUNKS = 4
_DELETES_AT_ONCE = 8
MODEL_TYPE = "application/octet-stream"


def open_s3_blobs(config: Config) -> S3Blobs:
    """The store that `FLG_BLOB_URL` and the settings `s3_*` name; nothing is asked of it yet.

    Raises:
        ConfigError: a setting is wrong.
    """
    rest = config.blob_url.partition(":")[2].removeprefix("//")
    bucket, _, prefix = rest.partition("/")
    bucket, prefix = bucket or DEFAULT_BUCKET, f"{prefix.strip('/')}/".lstrip("/")
    if not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise ConfigError("FLG_BLOB_URL must have the form s3://BUCKET/PREFIX (lower case, no spaces)")
    if bool(config.s3_access_key_id) != bool(config.s3_secret_access_key):
        raise ConfigError("FLG_S3_ACCESS_KEY_ID and FLG_S3_SECRET_ACCESS_KEY go together")
    encryption = _encryption(config)
    return S3Blobs(S3(config, bucket), prefix, encryption)


def _encryption(config: Config) -> dict[str, str]:
    if config.s3_encryption not in ("", "AES256", "aws:kms"):
        raise ConfigError("FLG_S3_ENCRYPTION must be empty, AES256 or aws:kms")
    if config.s3_kms_key_id and config.s3_encryption != "aws:kms":
        raise ConfigError("FLG_S3_KMS_KEY_ID needs FLG_S3_ENCRYPTION=aws:kms")
    asked = {"ServerSideEncryption": config.s3_encryption, "SSEKMSKeyId": config.s3_kms_key_id}
    return {name: value for name, value in asked.items() if value}


class S3Blobs:
    """Blobs below a prefix of a bucket.

    Args:
        s3: the bucket.
        prefix: empty, or what every key begins with, with a slash at its end.
        encryption: what the server is asked to encrypt with.
    """

    files_models = True

    def __init__(self, s3: S3, prefix: str, encryption: dict[str, str]) -> None:
        self._s3, self._prefix, self._encryption = s3, prefix, encryption
        self._probed: tuple[float, bool] | None = None
        self._has_versions: bool | None = None

    def incoming(self, blob_id: str, key: bytes | None = None) -> Incoming:
        """Start a blob; its data key belongs to it alone, so that chunk numbers serve as nonces."""
        return Incoming(Upload(self._s3, self._key(blob_id), self._encryption), key)

    def reader(self, blob_id: str, key: bytes, *, hold: bool = True) -> SealedReader:
        """A reader of a sealed blob: one ranged GET a chunk."""
        name = self._key(blob_id)
        return SealedReader(lambda at, n: self._s3.read(name, at, n), self.size(blob_id), key, hold=hold)

    def clear_reader(self, blob_id: str) -> ClearReader:
        """A reader of a blob that is kept in clear: one ranged GET a chunk, the last few of them are held."""
        size_bytes = self.size(blob_id)
        aligned = _Aligned(self._s3, self._key(blob_id), size_bytes)
        return ClearReader(aligned.fetch, size_bytes)

    @contextmanager
    def as_file(self, blob_id: str) -> Iterator[Path]:
        """The stored bytes in a temporary file, which goes with the block."""
        size_bytes, name = self.size(blob_id), self._key(blob_id)
        with tempfile.NamedTemporaryFile(prefix="flg-blob-") as file:
            try:
                for start in range(0, size_bytes, _FETCH_BYTES):
                    file.write(self._s3.read(name, start, min(_FETCH_BYTES, size_bytes - start)))
                file.flush()
            except OSError as error:
                if is_full(error):
                    raise StorageFull("There is no room for a temporary copy of the blob") from error
                raise
            yield Path(file.name)

    def local_path(self, blob_id: str) -> Path | None:  # noqa: ARG002
        """None: it lies in no file of this machine."""
        return None

    def presigned_url(self, blob_id: str, *, expires_s: int, version: str) -> str | None:
        """A URL that gives the model's bytes, under the file name of its version, until it expires."""
        shown = {
            "ResponseContentType": MODEL_TYPE,
            "ResponseContentDisposition": f'attachment; filename="{version}.safetensors"',
        }
        return self._s3.presigned_url(expires_s, Key=self._key(blob_id), **shown)

    def file_model(self, blob_id: str, version: str, checksum: str, at: datetime) -> str | None:
        """Copy a published model to `models/v{version}.bin`; that name, or None while other bytes have it.

        Raises:
            BlobCorrupt: the bytes in S3 are not those that were published.
        """
        name, metadata = f"models/v{version}.bin", model_metadata(version, checksum, at)
        with suppress(NoSuchBlob):
            found = self._s3.ask("head_object", Key=self._key(name))
            return name if is_same_model(found, metadata) else None
        size_bytes = self.size(blob_id)
        extra = {"Metadata": metadata, "ContentType": MODEL_TYPE, **self._encryption}
        copy_object(self._s3, self._key(blob_id), self._key(name), size_bytes, extra, checksum)
        return name

    def insist_room(self, size_bytes: int) -> None:
        """A bucket has room until it refuses."""

    def size(self, blob_id: str) -> int:
        """How many bytes are stored."""
        return int(self._s3.ask("head_object", Key=self._key(blob_id))["ContentLength"])

    def delete(self, blob_id: str) -> bool:
        """Remove the blob with all its versions; says whether it was there, which S3 itself does not tell."""
        try:
            self.size(blob_id)
            was_there = True
        except NoSuchBlob:
            was_there = False
        key = self._key(blob_id)
        if self._keeps_versions():
            for version in list(self._versions(key)):
                self._s3.ask("delete_object", Key=key, VersionId=version)
        elif was_there:
            self._s3.ask("delete_object", Key=key)
        return was_there

    def delete_many(self, blob_ids: Sequence[str]) -> int:
        """Remove blobs, several at a time; says how many were there."""
        with ThreadPoolExecutor(_DELETES_AT_ONCE) as pool:
            return sum(pool.map(self.delete, blob_ids))

    def stored(self) -> Iterator[StoredBlob]:
        """Every kept blob, a page of a thousand at a time; the age is by the server's own clock."""
        for folder in ("blobs/", "models/v"):
            asked: dict[str, Any] = {"Prefix": self._prefix + folder}
            while True:
                page = self._s3.ask("list_objects_v2", **asked)
                now = _server_time(page)
                for found in page.get("Contents", ()):
                    name = self._name(found["Key"])
                    if name is not None:
                        yield StoredBlob(name, int(found["Size"]), _age_s(found["LastModified"], now))
                if not page.get("IsTruncated"):
                    break
                asked["ContinuationToken"] = page["NextContinuationToken"]

    def names(self) -> Iterator[str]:
        """The ids of all kept blobs."""
        return (blob.name for blob in self.stored())

    def modified_at(self, blob_id: str) -> float:
        """When the blob was written, in seconds since the epoch; infinity if it is gone."""
        try:
            found = self._s3.ask("head_object", Key=self._key(blob_id))
        except NoSuchBlob:
            return float("inf")
        return float(found["LastModified"].timestamp())

    def usable(self) -> bool:
        """Whether the bucket answers; asked anew after a few seconds."""
        probed = self._probed
        if probed is None or time.monotonic() - probed[0] > _USABLE_FOR_S:
            try:
                self._s3.probe()
                good = True
            except (BlobsAway, StorageFull):
                good = False
            self._probed = probed = (time.monotonic(), good)
        return probed[1]

    def sweep_incoming(self, *, older_than_s: float, now_s: float | None = None) -> int:
        """Abort the multipart uploads to which no part came for so long; returns how many.

        A server that cannot list them keeps them: what then removes them is a lifecycle rule of the bucket.
        """
        try:
            return sum(self._sweep_page(page, older_than_s, now_s) for page in self._upload_pages())
        except BlobsAway as error:
            if error.is_lasting:
                return 0
            raise

    def close(self) -> None:
        """Give the connections back."""
        self._s3.close()

    def _keeps_versions(self) -> bool:
        """Whether the bucket keeps what is deleted; one that cannot say, or may not be asked, keeps none or only ours.

        What such a bucket keeps all the same is encrypted under keys that an erasure destroys.
        """
        if self._has_versions is None:
            try:
                self._has_versions = bool(self._s3.ask("get_bucket_versioning").get("Status"))
            except BlobsAway as error:
                if not error.is_lasting:  # an outage: who deletes tries again, and leaves no version behind
                    raise
                self._has_versions = False
        return self._has_versions

    def _versions(self, key: str) -> Iterator[str]:
        """Every version of an object, and every mark that it was deleted."""
        asked: dict[str, Any] = {"Prefix": key}
        while True:
            page = self._s3.ask("list_object_versions", **asked)
            for found in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                if found["Key"] == key:
                    yield found["VersionId"]
            if not page.get("IsTruncated"):
                return
            asked |= {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextVersionIdMarker"):
                asked |= {"VersionIdMarker": page["NextVersionIdMarker"]}

    def _sweep_page(self, page: dict[str, Any], older_than_s: float, now_s: float | None) -> int:
        now, swept = _server_time(page) if now_s is None else datetime.fromtimestamp(now_s, UTC), 0
        for upload in page.get("Uploads", ()):
            if self._name(upload["Key"]) is None or not self._is_stale(upload, now, older_than_s):
                continue
            which = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
            with suppress(NoSuchBlob):  # it ended this very moment
                self._s3.ask("abort_multipart_upload", **which)
                swept += 1
        return swept

    def _upload_pages(self) -> Iterator[dict[str, Any]]:
        asked: dict[str, Any] = {"Prefix": self._prefix}
        while True:
            page = self._s3.ask("list_multipart_uploads", **asked)
            yield page
            if not page.get("IsTruncated"):
                return
            asked |= {
                "KeyMarker": page["NextKeyMarker"],
                "UploadIdMarker": page.get("NextUploadIdMarker", ""),
            }

    def _is_stale(self, upload: dict[str, Any], now: datetime, older_than_s: float) -> bool:
        def is_old(at: datetime) -> bool:
            return _age_s(at, now) >= older_than_s

        if not is_old(upload["Initiated"]):
            return False
        asked: dict[str, Any] = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
        with suppress(NoSuchBlob):
            while True:  # a long upload goes on as long as parts come
                page = self._s3.ask("list_parts", **asked)
                if not all(is_old(part["LastModified"]) for part in page.get("Parts", ())):
                    return False
                if not page.get("IsTruncated"):
                    return True
                asked["PartNumberMarker"] = page["NextPartNumberMarker"]
        return False

    def _key(self, blob_id: str) -> str:
        return f"{self._prefix}{blob_id}" if "/" in blob_id else f"{self._prefix}blobs/{blob_id}"

    def _name(self, key: str) -> str | None:
        """The blob of this key; None for what is not ours."""
        rest = key.removeprefix(self._prefix)
        if MODEL_NAME.fullmatch(rest):
            return rest
        name = rest.removeprefix("blobs/")
        return name if name != rest and _SEALED.fullmatch(name) else None


class _Aligned:
    """Reads of any range of an object, made of whole chunks; the last few are held, for threads that read on."""

    def __init__(self, s3: S3, key: str, size_bytes: int) -> None:
        self._s3, self._key, self._size_bytes = s3, key, size_bytes
        self._held: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def fetch(self, offset: int, length: int) -> bytes:
        """The range, shorter where the object ends."""
        length = max(0, min(length, self._size_bytes - offset))
        parts = []
        while length > 0:
            number, start = divmod(offset, CHUNK_BYTES)
            part = self._chunk(number)[start : start + length]
            if not part:
                raise BlobCorrupt("a model's object is shorter than it was")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def _chunk(self, number: int) -> bytes:
        found = self._held.get(number)
        if found is None:
            found = self._s3.read(self._key, number * CHUNK_BYTES, CHUNK_BYTES)
            with self._lock:
                self._held[number] = found
                while len(self._held) > _ALIGNED_CHUNKS:
                    del self._held[next(iter(self._held))]
        return found


def _age_s(at: datetime, now: datetime) -> float:
    return max(0.0, (now - at).total_seconds())  # HTTP tells the time in whole seconds


def _server_time(answer: dict[str, Any]) -> datetime:
    stated = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(stated) if stated else datetime.now(UTC)
