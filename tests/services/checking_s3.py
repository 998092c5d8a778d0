"""A small S3 server that checks what others pass over, so that integrity is really tested; run as a child process.

It refuses bodies whose SHA-256 is missing or wrong, parts whose ETag or size is wrong, and missing encryption; it
keeps all in a directory, so that it can be killed and started again; and it fails on command (`/_control`).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import threading
import time
import xml.etree.ElementTree as ET
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from uuid import uuid4
from xml.sax.saxutils import escape

LEAST_PART_BYTES = 5 << 20
_SSE = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")
_XMLNS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Refused(Exception):
    """An answer of S3's error form."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


@dataclass(slots=True)
class Orders:
    """What the tests want of the server.

    Args:
        fail: `500`, `SlowDown`, `QuotaExceeded`, `AccessDenied`, `stall`, `harm` (a body on its way), `corrupt`
            (what is read), `lose answer`; empty: nothing.
        times: how often still.
        only: the operation that is meant, such as `UploadPart`; empty: each of them.
        stall_s: how long a stalled answer takes.
        page: keys on one page of a listing.
        encryption: what every new object must ask for.
        bucket: the only bucket that there is.
        age_s: how much older everything looks.
    """

    fail: str = ""
    times: int = 0
    only: str = ""
    stall_s: float = 60.0
    page: int = 1000
    encryption: str = ""
    bucket: str = "fl-models"
    age_s: float = 0.0
    seen: list[dict[str, object]] = field(default_factory=list)


class Checking(ThreadingHTTPServer):
    """The server: a directory of objects and uploads, and its orders."""

    daemon_threads = True

    def __init__(self, port: int, directory: Path, key_id: str) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.objects, self.uploads = directory / "objects", directory / "uploads"
        self.key_id, self.orders, self.lock = key_id, Orders(), threading.Lock()
        for folder in (self.objects, self.uploads):
            folder.mkdir(parents=True, exist_ok=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""

    def due(self, operation: str, *kinds: str) -> str:
        """The failure that is due for this operation, counted down."""
        with self.lock:
            orders = self.orders
            meant = orders.fail in kinds and orders.only in ("", operation) and orders.times > 0
            orders.times -= meant
            return orders.fail if meant else ""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Checking

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # every method comes in here
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if url.path == "/_control":
            self._control()
            return
        _, bucket, key = [*unquote(url.path).split("/", 2), ""][:3]
        self.key, self.operation = key, self._operation(key)
        try:
            self._insist(bucket)
            getattr(self, f"_{_snake(self.operation)}")()
        except Refused as refused:
            said = f"<Error><Code>{refused.code}</Code><Message>no</Message></Error>"
            self._answer(refused.status, said.encode())

    def _control(self) -> None:
        for name, value in json.loads(self.body or b"{}").items():
            setattr(self.server.orders, name, value)
        self._answer(200, json.dumps(asdict(self.server.orders)).encode())

    def _operation(self, key: str) -> str:
        has = self.query.__contains__
        copies = "x-amz-copy-source" in self.headers
        if not key:
            bucket = {"HEAD": "HeadBucket", "PUT": "CreateBucket"}
            listing = "ListMultipartUploads" if has("uploads") else "ListObjects"
            return bucket.get(self.command, listing)
        return {
            "GET": "ListParts" if has("uploadId") else "GetObject",
            "HEAD": "HeadObject",
            "DELETE": "AbortMultipartUpload" if has("uploadId") else "DeleteObject",
            "POST": "CreateMultipartUpload" if has("uploads") else "CompleteMultipartUpload",
            "PUT": ("UploadPart" if has("uploadId") else "PutObject") + ("Copy" if copies else ""),
        }[self.command]

    def _insist(self, bucket: str) -> None:
        """What every request must fulfil: a signature, the bucket, the body's digest; and the failures ordered."""
        orders, headers = self.server.orders, self.headers
        told = {name.lower(): value for name, value in headers.items() if name.lower() != "authorization"}
        orders.seen.append({"operation": self.operation, "key": self.key, "headers": told})
        credential = re.search(r"AWS4-HMAC-SHA256 Credential=([^/]+)/", headers.get("Authorization", ""))
        named = credential[1] if credential else self.query.get("X-Amz-Credential", "").split("/")[0]
        if named != self.server.key_id:
            raise Refused(403, "InvalidAccessKeyId" if named else "AccessDenied")
        if bucket != orders.bucket:
            raise Refused(404, "NoSuchBucket")
        if self.server.due(self.operation, "stall"):
            time.sleep(orders.stall_s)
        due = self.server.due(self.operation, "500", "SlowDown", "QuotaExceeded", "AccessDenied")
        if due:
            status = {"500": 500, "SlowDown": 503}.get(due, 403)
            raise Refused(status, "InternalError" if due == "500" else due)
        if self.server.due(self.operation, "harm"):
            self.body = bytes([self.body[0] ^ 1]) + self.body[1:]
        signed = headers.get("x-amz-content-sha256", "UNSIGNED-PAYLOAD")
        if signed != "UNSIGNED-PAYLOAD" and signed != hashlib.sha256(self.body).hexdigest():
            raise Refused(400, "XAmzContentSHA256Mismatch")
        if self.operation in ("PutObject", "UploadPart"):
            self._insist_digest()
        makes = self.operation in ("PutObject", "PutObjectCopy", "CreateMultipartUpload")
        if makes and headers.get(_SSE[0], "") != orders.encryption:
            raise Refused(403, "AccessDenied")

    def _insist_digest(self) -> None:
        stated = self.headers.get("x-amz-checksum-sha256")
        if stated is None:
            raise Refused(400, "InvalidRequest")
        if stated != _base64(hashlib.sha256(self.body).digest()):
            raise Refused(400, "BadDigest")

    def _head_bucket(self) -> None:
        self._answer(200)

    def _create_bucket(self) -> None:
        self._answer(200)

    def _put_object(self) -> None:
        digest = hashlib.sha256(self.body).digest()
        self._store(self.key, self.body, _base64(digest))
        self._answer(200, headers={"ETag": _etag(self.body), "x-amz-checksum-sha256": _base64(digest)})

    def _put_object_copy(self) -> None:
        raw = self._source()
        digest = _base64(hashlib.sha256(raw).digest())
        self._store(self.key, raw, digest)
        self._told("CopyObjectResult", f"<ETag>{_etag(raw)}</ETag><ChecksumSHA256>{digest}</ChecksumSHA256>")

    def _head_object(self) -> None:
        path, meta = self._found(self.key)
        self._answer(200, headers=self._object_headers(meta), length=path.stat().st_size)

    def _get_object(self) -> None:
        path, meta = self._found(self.key)
        raw, status, headers = path.read_bytes(), 200, self._object_headers(meta)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1, len(raw))
            if start >= len(raw):
                raise Refused(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(raw)}"
            raw, status = raw[start:end], 206
        if self.server.due(self.operation, "corrupt"):
            raw = bytes([raw[0] ^ 1]) + raw[1:]
        self._answer(status, raw, headers=headers)

    def _delete_object(self) -> None:
        for path in (_path(self.server.objects, self.key), _path(self.server.objects, self.key, ".json")):
            path.unlink(missing_ok=True)
        self._answer(204)

    def _list_objects(self) -> None:
        prefix, after = self.query.get("prefix", ""), self.query.get("continuation-token", "")
        names = sorted(unquote(path.stem) for path in self.server.objects.glob("*.json"))
        fitting = [name for name in names if name.startswith(prefix) and name > after]
        shown = fitting[: self.server.orders.page]
        said = "".join(self._listed(name) for name in shown)
        more = len(shown) < len(fitting)
        token = f"<NextContinuationToken>{escape(shown[-1])}</NextContinuationToken>" if more else ""
        self._told("ListBucketResult", f"{said}<IsTruncated>{str(more).lower()}</IsTruncated>{token}")

    def _listed(self, name: str) -> str:
        path, meta = self._found(name)
        at = self._time(str(meta["at"])).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        size = path.stat().st_size
        return f"<Contents><Key>{escape(name)}</Key><LastModified>{at}</LastModified><Size>{size}</Size></Contents>"

    def _create_multipart_upload(self) -> None:
        folder = self.server.uploads / (upload_id := uuid4().hex)
        folder.mkdir()
        if self.headers.get("x-amz-checksum-algorithm") != "SHA256":
            raise Refused(400, "InvalidRequest")
        (folder / "meta.json").write_text(json.dumps({"key": self.key, **self._meta()}))
        self._told("InitiateMultipartUploadResult", f"<UploadId>{upload_id}</UploadId>")

    def _upload_part(self) -> None:
        self._keep_part(self.body)
        digest = _base64(hashlib.sha256(self.body).digest())
        self._answer(200, headers={"ETag": _etag(self.body), "x-amz-checksum-sha256": digest})

    def _upload_part_copy(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["x-amz-copy-source-range"])
        assert wanted is not None
        raw = self._source()[int(wanted[1]) : int(wanted[2]) + 1]
        self._keep_part(raw)
        digest = _base64(hashlib.sha256(raw).digest())
        self._told("CopyPartResult", f"<ETag>{_etag(raw)}</ETag><ChecksumSHA256>{digest}</ChecksumSHA256>")

    def _keep_part(self, raw: bytes) -> None:
        (self._upload() / self.query["partNumber"].zfill(5)).write_bytes(raw)

    def _complete_multipart_upload(self) -> None:
        folder = self._upload()
        stated = [
            {entry.tag.rpartition("}")[2]: entry.text or "" for entry in part}
            for part in ET.fromstring(self.body)  # noqa: S314 - our own client made it
        ]
        raws = [(folder / part["PartNumber"].zfill(5)).read_bytes() for part in stated]
        for place, (part, raw) in enumerate(zip(stated, raws, strict=True)):
            digest = _base64(hashlib.sha256(raw).digest())
            if part["ETag"] != _etag(raw) or part["ChecksumSHA256"] != digest:
                raise Refused(400, "InvalidPart")
            if place < len(raws) - 1 and len(raw) < LEAST_PART_BYTES:
                raise Refused(400, "EntityTooSmall")
        digests = b"".join(hashlib.sha256(raw).digest() for raw in raws)
        composite = f"{_base64(hashlib.sha256(digests).digest())}-{len(raws)}"
        meta = json.loads((folder / "meta.json").read_text())
        self._store(self.key, b"".join(raws), composite, meta)
        shutil.rmtree(folder)
        if self.server.due(self.operation, "lose answer"):
            self.close_connection = True
            self.connection.close()
            return
        said = f"<ETag>&quot;x-{len(raws)}&quot;</ETag><ChecksumSHA256>{composite}</ChecksumSHA256>"
        self._told("CompleteMultipartUploadResult", said)

    def _abort_multipart_upload(self) -> None:
        shutil.rmtree(self._upload())
        self._answer(204)

    def _list_multipart_uploads(self) -> None:
        said, after = [], self.query.get("upload-id-marker", "")
        folders = sorted(folder for folder in self.server.uploads.iterdir() if folder.name > after)
        shown = folders[: self.server.orders.page]
        for folder in shown:
            meta = json.loads((folder / "meta.json").read_text())
            at = self._time(meta["at"]).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            said.append(
                f"<Upload><Key>{escape(meta['key'])}</Key><UploadId>{folder.name}</UploadId>"
                f"<Initiated>{at}</Initiated></Upload>"
            )
        more = len(shown) < len(folders)
        last = shown[-1].name if more else ""
        token = f"<NextKeyMarker>x</NextKeyMarker><NextUploadIdMarker>{last}</NextUploadIdMarker>"
        ends = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token if more else ''}"
        self._told("ListMultipartUploadsResult", "".join(said) + ends)

    def _list_parts(self) -> None:
        said = []
        for path in sorted(self._upload().glob("[0-9]*")):
            at = self._time(datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat())
            stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            said.append(
                f"<Part><PartNumber>{int(path.name)}</PartNumber><LastModified>{stamp}</LastModified></Part>"
            )
        self._told("ListPartsResult", "".join(said) + "<IsTruncated>false</IsTruncated>")

    def _upload(self) -> Path:
        folder = self.server.uploads / self.query["uploadId"]
        if not folder.is_dir():
            raise Refused(404, "NoSuchUpload")
        return folder

    def _source(self) -> bytes:
        source = unquote(self.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]
        return self._found(source)[0].read_bytes()

    def _meta(self) -> dict[str, object]:
        named = {name.lower(): value for name, value in self.headers.items()}
        own = {name: value for name, value in named.items() if name.startswith("x-amz-meta-")}
        sse = {name: named[name] for name in _SSE if name in named}
        return {"at": datetime.now(UTC).isoformat(), "headers": own | sse}

    def _store(self, key: str, raw: bytes, checksum: str, meta: dict[str, object] | None = None) -> None:
        meta = {**(meta or self._meta()), "at": datetime.now(UTC).isoformat(), "checksum": checksum}
        aside = _path(self.server.objects, key, f".{uuid4().hex}")
        aside.write_bytes(raw)
        aside.replace(_path(self.server.objects, key))
        described = _path(self.server.objects, key, ".json")
        aside.write_text(json.dumps(meta))
        aside.replace(described)

    def _found(self, key: str) -> tuple[Path, dict[str, object]]:
        described = _path(self.server.objects, key, ".json")
        if not described.exists():
            raise Refused(404, "NoSuchKey")
        return _path(self.server.objects, key), json.loads(described.read_text())

    def _object_headers(self, meta: dict[str, object]) -> dict[str, str]:
        at = format_datetime(self._time(str(meta["at"])), usegmt=True)
        headers = {"Last-Modified": at, "ETag": '"x"', **dict(meta["headers"])}  # type: ignore[call-overload]
        shown = {"content-type": "Content-Type", "content-disposition": "Content-Disposition"}
        asked = {name: self.query.get(f"response-{name}") for name in shown}
        return headers | {shown[name]: value for name, value in asked.items() if value}

    def _time(self, at: str) -> datetime:
        return datetime.fromtimestamp(datetime.fromisoformat(at).timestamp() - self.server.orders.age_s, UTC)

    def _told(self, root: str, inner: str) -> None:
        self._answer(200, f"<{root} {_XMLNS}>{inner}</{root}>".encode())

    def _answer(
        self,
        status: int,
        body: bytes = b"",
        *,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _path(folder: Path, key: str, end: str = ".raw") -> Path:
    return folder / (quote(key, safe="") + end)


def _base64(digest: bytes) -> str:
    return b64encode(digest).decode()


def _etag(raw: bytes) -> str:
    return f'"{hashlib.md5(raw, usedforsecurity=False).hexdigest()}"'


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


if __name__ == "__main__":
    Checking(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]).serve_forever()
