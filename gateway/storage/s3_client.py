"""S3 with bounded patience: a passing fault is tried again, a lasting one is told, and no thread hangs.

A server that refuses connections is given up after about a second, one that takes them and says nothing after
15 seconds; both are `BlobsAway`, whose reason names the setting to look at.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import boto3
from botocore.config import Config as ClientConfig
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ReadTimeoutError,
    ResponseStreamingError,
    SSLError,
)

from gateway.config import Config
from gateway.errors import BlobsAway, StorageFull
from gateway.storage.chunks import NoSuchBlob

log = logging.getLogger(__name__)
_CONNECT_S, _READ_S = 5, 15
_PROBE_S = 3
_ATTEMPTS = 3
_PAUSE_S = 0.3
_PATIENCE_S = 4.0  # no further attempt after this time: with a stalled one it makes 20 seconds
_Answer = TypeVar("_Answer")

_FULL = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
_PASSING = {
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "RequestTimeout",
    "Throttling",
    "ThrottlingException",
    "OperationAborted",
    "BadDigest",  # the body was harmed on its way
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
}
_CUT = (EndpointConnectionError, ConnectionClosedError, IncompleteReadError, ResponseStreamingError)
_REASONS = {
    "NoSuchBucket": "there is no such bucket: look at {setting}",
    "InvalidAccessKeyId": "the key is not known: look at FLG_S3_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the signature is wrong: look at FLG_S3_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "the clocks differ: set this machine's clock",
    "PermanentRedirect": "the bucket is elsewhere: look at FLG_S3_REGION and FLG_S3_ENDPOINT_URL",
    "AuthorizationHeaderMalformed": "the bucket is in another region: look at FLG_S3_REGION",
}
_REFUSED = "access is denied: look at the rights of FLG_S3_ACCESS_KEY_ID on the bucket of {setting}"


class S3:
    """One bucket, through a client that threads share.

    Args:
        config: the settings `s3_*`.
        bucket: the bucket.
        setting: the setting that names the bucket, for what is told to the operator.
    """

    def __init__(self, config: Config, bucket: str, *, setting: str = "FLG_BLOB_URL") -> None:
        self.bucket, self._setting = bucket, setting
        self._client = _client(config, _CONNECT_S, _READ_S)
        self._prober = _client(config, _PROBE_S, _PROBE_S)

    def ask(self, operation: str, *, attempts: int = _ATTEMPTS, **arguments: Any) -> dict[str, Any]:
        """The answer to one operation on the bucket.

        Raises:
            NoSuchBlob: there is no such object.
            StorageFull: the quota is used up.
            BlobsAway: it does not answer, or refuses.
        """
        call = getattr(self._client, operation)
        try:
            return self._patiently(lambda: dict(call(Bucket=self.bucket, **arguments)), attempts)
        except NoSuchBlob:
            self.probe()  # HEAD says 404 also where the bucket is gone
            raise

    def read(self, key: str, offset: int, length: int) -> bytes:
        """That range of an object; shorter where the object ends."""
        wanted = f"bytes={offset}-{offset + length - 1}"

        def get() -> bytes:
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)
            with answer["Body"] as body:
                return bytes(body.read())

        return self._patiently(get, _ATTEMPTS)

    def probe(self) -> None:
        """Raise `BlobsAway` unless the bucket answers, within a few seconds."""
        try:
            self._prober.head_bucket(Bucket=self.bucket)
        except (ClientError, BotoCoreError) as error:
            told = _told(error, self._setting)
            gone = BlobsAway(_REASONS["NoSuchBucket"].format(setting=self._setting))
            raise (gone if isinstance(told, NoSuchBlob) else told) from None

    def presigned_url(self, expires_s: int, **arguments: Any) -> str:
        """A URL to GET an object without a key of one's own."""
        arguments = {"Bucket": self.bucket, **arguments}
        return str(self._client.generate_presigned_url("get_object", Params=arguments, ExpiresIn=expires_s))

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()
        self._prober.close()

    def _patiently(self, work: Callable[[], _Answer], attempts: int) -> _Answer:
        began_s, attempt = time.monotonic(), 1
        while True:
            try:
                return work()
            except (ClientError, BotoCoreError) as error:
                over = attempt >= attempts or time.monotonic() - began_s > _PATIENCE_S
                if over or not _may_pass(error):
                    raise _told(error, self._setting) from None  # boto3's own error holds the key id
            time.sleep(_PAUSE_S * 2**attempt * random.uniform(0.5, 1.0))  # noqa: S311 - spreads the callers
            attempt += 1


@cache
def _session() -> Any:
    """One for the process: it holds the description of S3, which takes its time to read."""
    return boto3.session.Session()


def _client(config: Config, connect_s: int, read_s: int) -> Any:
    kind = ClientConfig(
        signature_version="s3v4",
        connect_timeout=connect_s,
        read_timeout=read_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        max_pool_connections=config.web_threads + config.poll_threads + config.engine_threads,
        request_checksum_calculation="when_required",  # ours are SHA-256, made once
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if config.s3_endpoint_url else "auto"},
    )
    return _session().client(
        "s3",
        region_name=config.s3_region,
        endpoint_url=config.s3_endpoint_url or None,
        aws_access_key_id=config.s3_access_key_id or None,
        aws_secret_access_key=config.s3_secret_access_key or None,
        config=kind,
    )


def _code(error: ClientError) -> tuple[str, int]:
    told = error.response
    status = int(told.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return str(told.get("Error", {}).get("Code", status)), status


def _may_pass(error: ClientError | BotoCoreError) -> bool:
    if isinstance(error, ClientError):
        code, status = _code(error)
        return code in _PASSING or (status >= 500 and status not in (501, 507))
    return isinstance(error, _CUT)


def _told(error: ClientError | BotoCoreError, setting: str) -> Exception:
    """The error in the gateway's words."""
    if isinstance(error, ClientError):
        code, status = _code(error)
        if code in _FULL or status == 507:
            return StorageFull("The bucket's quota is used up")
        if code in ("NoSuchKey", "NoSuchUpload", "404", "NotFound"):
            return NoSuchBlob()
        if code in ("NotImplemented", "MethodNotAllowed"):
            return BlobsAway(f"S3: it has no such operation ({code})", is_lasting=True)
        reason = _REASONS.get(code) or (_REFUSED if status == 403 else f"it answers {code}")
        reason = "the encryption key cannot be used: look at FLG_S3_KMS_KEY_ID" if "KMS" in code else reason
        reason = reason.replace("{setting}", setting)
    else:
        reason = _silence(error)
    log.warning("S3: %s", reason)
    return BlobsAway(f"S3: {reason}", is_lasting=_is_denied(error))


def _is_denied(error: ClientError | BotoCoreError) -> bool:
    return isinstance(error, ClientError) and _code(error)[0] == "AccessDenied"


def _silence(error: BotoCoreError) -> str:
    if isinstance(error, NoCredentialsError):
        return "there are no keys: set FLG_S3_ACCESS_KEY_ID and FLG_S3_SECRET_ACCESS_KEY"
    if isinstance(error, SSLError):
        return "the server's certificate is not trusted: look at FLG_S3_ENDPOINT_URL"
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return "it does not answer in time: look at FLG_S3_ENDPOINT_URL"
    return f"it cannot be reached ({type(error).__name__}): look at FLG_S3_ENDPOINT_URL"
