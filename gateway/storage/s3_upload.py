"""A blob on its way into S3: parts of 5 MiB, each with a SHA-256 that S3 checks; nothing shows before the end."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from gateway.errors import BlobsAway, GatewayError
from gateway.storage.chunks import NoSuchBlob
from gateway.storage.s3_client import S3

PART_BYTES = 5 << 20  # the least that S3 takes; 10,000 of them make 48 GiB


class Upload:
    """One object: a single request where it fits into a part, else a multipart upload.

    Args:
        s3: the bucket.
        key: the object's name.
        extra: encryption, as `put_object` and `create_multipart_upload` take it.
    """

    def __init__(self, s3: S3, key: str, extra: Mapping[str, Any]) -> None:
        self._s3, self._key, self._extra = s3, key, dict(extra)
        self._part, self._used, self._sent_bytes = bytearray(PART_BYTES), 0, 0
        self._digests: list[bytes] = []
        self._parts: list[dict[str, Any]] = []
        self._upload_id: str | None = None

    def put(self, data: bytes) -> None:
        """Take the next bytes; a part goes out as soon as more than a part is here."""
        view = memoryview(data)
        while view:
            if self._used == PART_BYTES:
                self._send_part()
            taken = view[: PART_BYTES - self._used]
            self._part[self._used : self._used + len(taken)] = taken
            self._used += len(taken)
            view = view[len(taken) :]

    def finish(self) -> None:
        """Give the object its name."""
        del self._part[self._used :]
        if self._upload_id is None:
            self._put_whole()
        else:
            self._send_part()
            self._complete(self._upload_id)
        self._upload_id, self._part = None, bytearray()

    def abort(self) -> None:
        """Forget the parts; where S3 is away, the sweep does it later."""
        upload_id, self._upload_id, self._part = self._upload_id, None, bytearray()
        if upload_id is not None:
            with suppress(GatewayError, NoSuchBlob):
                self._s3.ask("abort_multipart_upload", attempts=1, Key=self._key, UploadId=upload_id)

    def _put_whole(self) -> None:
        digest = sha256(self._part).digest()
        told = self._ask("put_object", Body=self._part, ChecksumSHA256=_base64(digest), **self._extra)
        self._insist(told, _base64(digest))

    def _send_part(self) -> None:
        if self._upload_id is None:
            made = self._ask("create_multipart_upload", ChecksumAlgorithm="SHA256", **self._extra)
            self._upload_id = made["UploadId"]
        digest, number = sha256(self._part).digest(), len(self._parts) + 1
        checksum = {"ChecksumSHA256": _base64(digest)}
        told = self._ask(
            "upload_part", UploadId=self._upload_id, PartNumber=number, Body=self._part, **checksum
        )
        self._digests.append(digest)
        self._parts.append({"PartNumber": number, "ETag": told["ETag"], **checksum})
        self._sent_bytes += len(self._part)
        self._used = 0

    def _complete(self, upload_id: str) -> None:
        """S3 checks the parts' digests once more; their digest, and the number of parts, is the object's."""
        parts = {"Parts": self._parts}
        try:
            told = self._s3.ask(
                "complete_multipart_upload", Key=self._key, UploadId=upload_id, MultipartUpload=parts
            )
        except NoSuchBlob:  # a first attempt may have been carried out, and its answer lost
            told = self._ask("head_object")
            if told["ContentLength"] != self._sent_bytes:
                raise BlobsAway("S3: the object is not the one that was sent") from None
        composite = sha256(b"".join(self._digests)).digest()
        self._insist(told, f"{_base64(composite)}-{len(self._parts)}")

    def _insist(self, told: Mapping[str, Any], checksum: str) -> None:
        """Compare what S3 says it keeps, where it says so."""
        if told.get("ChecksumSHA256", checksum) != checksum:
            self._ask("delete_object")
            raise BlobsAway("S3: it keeps other bytes than it was sent")

    def _ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            return self._s3.ask(operation, Key=self._key, **arguments)
        except NoSuchBlob:
            raise BlobsAway("S3: the upload is gone") from None
        except BlobsAway:
            self._upload_id = None  # to abort would take as long again: the sweep does it
            raise


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()
