"""A published model's copy, made by S3 itself, under its version's name, with the metadata that clients look for."""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from gateway.errors import BlobCorrupt, GatewayError
from gateway.storage.chunks import NoSuchBlob
from gateway.storage.s3_client import S3

log = logging.getLogger(__name__)
COPY_BYTES = 256 << 20  # S3 copies up to 5 GiB at once, but not within the time that we wait for an answer


def model_metadata(version: str, checksum: str, at: datetime) -> dict[str, str]:
    """What the object says of itself."""
    return {
        "version": version,
        "timestamp": at.isoformat().replace("+00:00", "Z"),
        "checksum": checksum,
    }


def is_same_model(found: Mapping[str, Any], metadata: Mapping[str, str]) -> bool:
    """Whether an object that has the name already is this model, from an earlier attempt."""
    told = {name.lower(): value for name, value in found.get("Metadata", {}).items()}
    if all(told.get(name) == metadata[name] for name in ("version", "checksum")):
        return True
    log.error("S3 has another object under the name of model version %s", metadata["version"])
    return False


def copy_object(
    s3: S3, source: str, target: str, size_bytes: int, extra: Mapping[str, Any], checksum: str
) -> None:
    """Copy within the bucket, without the bytes coming here.

    Raises:
        BlobCorrupt: S3 says that the copied bytes have another SHA-256 than this (hex).
    """
    whence = {"Bucket": s3.bucket, "Key": source}
    if size_bytes > COPY_BYTES:
        _copy_in_parts(s3, whence, target, size_bytes, extra)
        return
    answer = s3.ask(
        "copy_object",
        Key=target,
        CopySource=whence,
        MetadataDirective="REPLACE",
        ChecksumAlgorithm="SHA256",
        **extra,
    )
    wanted = b64encode(bytes.fromhex(checksum)).decode()
    if answer["CopyObjectResult"].get("ChecksumSHA256", wanted) != wanted:
        s3.ask("delete_object", Key=target)
        raise BlobCorrupt("a model in S3 is not the one that was published")


def _copy_in_parts(
    s3: S3, whence: Mapping[str, str], target: str, size_bytes: int, extra: Mapping[str, Any]
) -> None:
    made = s3.ask("create_multipart_upload", Key=target, ChecksumAlgorithm="SHA256", **extra)
    which = {"Key": target, "UploadId": made["UploadId"]}
    try:
        parts = []
        for number, start in enumerate(range(0, size_bytes, COPY_BYTES), start=1):
            end = min(start + COPY_BYTES, size_bytes) - 1
            wanted: dict[str, Any] = {"PartNumber": number, "CopySourceRange": f"bytes={start}-{end}"}
            told = s3.ask("upload_part_copy", **which, CopySource=whence, **wanted)["CopyPartResult"]
            said = {name: told[name] for name in ("ETag", "ChecksumSHA256") if name in told}
            parts.append({"PartNumber": number, **said})
        s3.ask("complete_multipart_upload", **which, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(GatewayError, NoSuchBlob):
            s3.ask("abort_multipart_upload", attempts=1, **which)
        raise
