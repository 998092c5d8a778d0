"""The blob stores that one test runs on in turn: a directory, and three S3 servers of different makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from services import s3

from gateway.config import Config
from gateway.storage.blobs import BlobStore, open_blobs

KINDS = ("file", *s3.KINDS)
Servers = Callable[[str], s3.S3Server]


@contextmanager
def servers() -> Iterator[Servers]:
    """S3 servers by kind, each started when it is first asked for."""
    started: dict[str, s3.S3Server] = {}
    with ExitStack() as stack:

        def get(kind: str) -> s3.S3Server:
            if kind not in started:
                started[kind] = stack.enter_context(s3.running(kind))
            return started[kind]

        yield get


@dataclass(frozen=True, slots=True)
class Shelf:
    """A store with nothing in it, and a look behind its back."""

    store: BlobStore
    settings: dict[str, str]
    folder: Path | None
    server: s3.S3Server | None

    def raw(self, blob_id: str) -> bytes:
        """What is stored."""
        if self.server is None:
            return self.store.local_path(blob_id).read_bytes()
        found = self.server.client().get_object(Bucket=s3.BUCKET, Key=self.key(blob_id))
        return bytes(found["Body"].read())

    def spoil(self, blob_id: str, raw: bytes) -> None:
        """Put other bytes there."""
        if self.server is None:
            self.store.local_path(blob_id).write_bytes(raw)
        else:
            self.server.client().put_object(
                Bucket=s3.BUCKET, Key=self.key(blob_id), Body=raw, ChecksumAlgorithm="SHA256"
            )

    def key(self, blob_id: str) -> str:
        """The object's key."""
        prefix = self.settings["blob_url"].removeprefix(f"s3://{s3.BUCKET}/")
        return f"{prefix}/{blob_id}" if "/" in blob_id else f"{prefix}/blobs/{blob_id}"

    def leftovers(self) -> int:
        """How many uploads there are that were neither kept nor discarded."""
        if self.server is None:
            return len(list((self.folder / "incoming").iterdir()))
        found = self.server.client().list_multipart_uploads(Bucket=s3.BUCKET).get("Uploads", [])
        return sum(upload["Key"].startswith(self.key("models/").partition("models/")[0]) for upload in found)


@contextmanager
def shelf(kind: str, get: Servers, folder: Path) -> Iterator[Shelf]:
    """An empty store of that kind."""
    server = None if kind == "file" else get(kind)
    settings = {"blob_url": f"file:{folder}"} if server is None else server.settings(uuid4().hex)
    store = open_blobs(Config(**settings))
    try:
        yield Shelf(store, settings, None if server else folder, server)
    finally:
        store.close()
        if kind == "checking":
            server.order(fail="", only="", times=0, page=1000, encryption="", age_s=0.0, seen=[])
