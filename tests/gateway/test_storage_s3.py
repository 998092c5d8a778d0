"""S3: what the server checks is sent, what it harms is found, and a server that is away never holds a thread."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from blob_stores import Servers, Shelf, shelf
from services import s3

from gateway.config import Config
from gateway.errors import BlobsAway, ConfigError, StorageFull
from gateway.storage import s3_client, s3_copy
from gateway.storage.blobs import BlobCorrupt, BlobStore, NoSuchBlob, open_blobs
from gateway.storage.s3_upload import PART_BYTES

KEY = bytes(range(32))
MIB = 1 << 20
NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.fixture
def checking(s3_servers: Servers, tmp_path: Path) -> Iterator[Shelf]:
    """An empty store on the server that checks digests and fails on command."""
    with shelf("checking", s3_servers, tmp_path) as made:
        yield made


@pytest.fixture
def strict(s3_servers: Servers, tmp_path: Path) -> Iterator[Shelf]:
    """An empty store on the server that checks signatures."""
    with shelf("s3rver", s3_servers, tmp_path) as made:
        yield made


def _keep(store: BlobStore, content: bytes, *, blob_id: str = "ab12", key: bytes | None = KEY) -> None:
    with store.incoming(blob_id, key) as blob:
        for start in range(0, len(content), MIB):
            blob.write(content[start : start + MIB])
        blob.keep()


def _other(shelf: Shelf, **settings: str) -> BlobStore:
    return open_blobs(Config(**{**shelf.settings, **settings}))


# Integrity


def test_a_large_blob_goes_in_parts_that_each_carry_their_digest(checking: Shelf) -> None:
    """The server compares every part, and all of them together at the end, with a SHA-256 of ours."""
    content = os.urandom(2 * PART_BYTES + 77)
    _keep(checking.store, content, key=None)

    seen = [one for one in checking.server.order()["seen"] if one["key"] == checking.key("ab12")]
    parts = [one["headers"] for one in seen if one["operation"] == "UploadPart"]
    pieces = [content[:PART_BYTES], content[PART_BYTES : 2 * PART_BYTES], content[2 * PART_BYTES :]]
    assert [one["x-amz-checksum-sha256"] for one in parts] == [_digest(piece) for piece in pieces]
    assert [one["operation"] for one in seen if "Multipart" in one["operation"]] == [
        "CreateMultipartUpload",
        "CompleteMultipartUpload",
    ]
    assert checking.raw("ab12") == content


def test_a_small_blob_is_one_request(checking: Shelf) -> None:
    """A fleet's small updates must not take three requests each."""
    _keep(checking.store, b"content")

    seen = [one for one in checking.server.order()["seen"] if one["key"] == checking.key("ab12")]
    assert [one["operation"] for one in seen] == ["PutObject"]
    assert seen[0]["headers"]["x-amz-checksum-sha256"] == _digest(checking.raw("ab12"))


def _digest(raw: bytes) -> str:
    return b64encode(sha256(raw).digest()).decode()


@pytest.mark.parametrize(("operation", "size"), [("PutObject", 100), ("UploadPart", 12 * MIB)])
def test_a_body_that_is_harmed_on_its_way_is_sent_again(checking: Shelf, operation: str, size: int) -> None:
    """The server refuses it by its digest; the second one is whole."""
    content = os.urandom(size)
    checking.server.order(fail="harm", only=operation, times=1)

    _keep(checking.store, content, key=None)

    assert checking.raw("ab12") == content


def test_a_body_that_is_always_harmed_is_given_up_and_leaves_nothing(checking: Shelf) -> None:
    """503: nothing half-written, and the client comes again."""
    checking.server.order(fail="harm", only="PutObject", times=99)

    with pytest.raises(BlobsAway):
        _keep(checking.store, b"content")

    assert list(checking.store.names()) == []


@pytest.mark.parametrize("size", [100, 3 * MIB])
def test_a_byte_that_is_harmed_when_read_is_found(checking: Shelf, size: int) -> None:
    """Sealed blobs by AES-GCM, models by their published SHA-256."""
    content = os.urandom(size)
    _keep(checking.store, content)
    _keep(checking.store, content, blob_id="cd34", key=None)

    checking.server.order(fail="corrupt", only="GetObject", times=1)
    with checking.store.reader("ab12", KEY) as reader, pytest.raises(BlobCorrupt):
        reader.read_at(0, size)
    checking.server.order(fail="corrupt", only="GetObject", times=1)
    with checking.store.clear_reader("cd34") as reader, pytest.raises(BlobCorrupt):
        reader.insist(sha256(content).hexdigest())


def test_a_completion_whose_answer_is_lost_is_not_a_failure(checking: Shelf) -> None:
    """The second attempt hears that there is no such upload: the object is there, in its full length."""
    content = os.urandom(12 * MIB)
    checking.server.order(fail="lose answer", only="CompleteMultipartUpload", times=1)

    _keep(checking.store, content)

    with checking.store.reader("ab12", KEY) as reader:
        assert reader.read_at(0, len(content)) == content


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({"s3_encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"s3_encryption": "aws:kms", "s3_kms_key_id": "key-1"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "key-1",
            },
        ),
    ],
)
def test_every_object_asks_for_the_encryption_that_is_set(
    checking: Shelf, settings: dict[str, str], headers: dict[str, str]
) -> None:
    """Small and large ones, and copies: a bucket policy may refuse what does not."""
    checking.server.order(encryption=headers["x-amz-server-side-encryption"])
    store, content = _other(checking, **settings), os.urandom(12 * MIB)

    _keep(store, b"small", blob_id="ab12")
    _keep(store, content, blob_id="cd34", key=None)
    name = store.file_model("cd34", "1.0.0", sha256(content).hexdigest(), NOON)
    store.close()

    seen = checking.server.order()["seen"]
    makers = [one["headers"] for one in seen if one["operation"] in _MAKERS]
    assert name == "models/v1.0.0.bin"
    assert len(makers) == 3
    assert all(headers.items() <= one.items() for one in makers)
    with pytest.raises(BlobsAway, match="FLG_S3_ACCESS_KEY_ID"):  # without it, this bucket refuses
        _keep(checking.store, b"content")


_MAKERS = ("PutObject", "PutObjectCopy", "CreateMultipartUpload")


# Servers that are slow, away, full, or not ours


@pytest.mark.parametrize("fault", ["500", "SlowDown"])
def test_a_fault_that_passes_is_waited_for(checking: Shelf, fault: str) -> None:
    """S3 tells its clients to come again."""
    checking.server.order(fail=fault, times=2)

    _keep(checking.store, b"content")

    with checking.store.reader("ab12", KEY) as reader:
        checking.server.order(fail=fault, times=2)
        assert reader.read_at(0, 7) == b"content"


@pytest.mark.parametrize(
    ("fault", "told", "status"), [("500", BlobsAway, 503), ("QuotaExceeded", StorageFull, 507)]
)
@pytest.mark.parametrize("size", [100, 12 * MIB])
def test_a_fault_that_lasts_is_told_and_leaves_nothing(
    checking: Shelf, fault: str, told: type[Exception], status: int, size: int
) -> None:
    """503 with Retry-After, or 507; and once it is over, blobs are taken again."""
    only = "PutObject" if size == 100 else "UploadPart"
    checking.server.order(fail=fault, only=only, times=99)
    with pytest.raises(told) as caught:
        _keep(checking.store, os.urandom(size))
    checking.server.order(fail="", times=0)

    assert caught.value.status == status
    assert (status == 503) is ("Retry-After" in caught.value.headers)
    assert list(checking.store.names()) == []
    assert checking.leftovers() == (status == 503 and size > 100)  # the sweep's: to abort would wait as long
    assert checking.store.sweep_incoming(older_than_s=0) == (status == 503 and size > 100)
    _keep(checking.store, b"content")


def test_a_server_that_takes_connections_and_says_nothing_is_given_up(
    s3_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped S3 costs a request at most 20 seconds, a probe three; then everything goes on."""
    assert s3_client._PATIENCE_S + s3_client._READ_S < 20
    assert s3_client._PATIENCE_S + s3_client._CONNECT_S < 20
    monkeypatch.setattr(s3_client, "_READ_S", 1)
    monkeypatch.setattr(s3_client, "_PROBE_S", 1)
    with s3.running("checking") as server, _closing(server) as store:
        _keep(store, b"content")
        blob = store.incoming("cd34", KEY)
        blob.write(b"x" * 12 * MIB)
        server.pause()

        took_s = [_away_after(ask) for ask in (blob.keep, lambda: store.size("ab12"))]
        began_s = time.monotonic()
        usable = [store.usable() for _ in range(20)]
        probes_s = time.monotonic() - began_s
        server.resume()

        assert max(took_s) < 12
        assert (any(usable), probes_s < 10) == (False, True)
        blob.discard()
        _keep(store, b"content", blob_id="cd34")
        with store.reader("ab12", KEY) as reader:
            assert reader.read_at(0, 7) == b"content"


@pytest.mark.parametrize("kind", ["s3rver", "checking"])
def test_a_server_that_was_killed_is_told_at_once_and_used_again_when_it_is_back(kind: str) -> None:
    """Refused connections are tried again for a moment only; what was kept before is there afterwards."""
    with s3.running(kind) as server, _closing(server) as store:
        _keep(store, b"content")
        server.stop()
        took_s = _away_after(lambda: _keep(store, b"content", blob_id="cd34"))
        server.start()

        assert took_s < 5
        with store.reader("ab12", KEY) as reader:
            assert reader.read_at(0, 7) == b"content"
        assert list(store.names()) == ["ab12"]


def _closing(server: s3.S3Server) -> ExitStack:
    class Store(ExitStack):
        def __enter__(self) -> BlobStore:  # type: ignore[override]
            store = open_blobs(Config(**server.settings()))
            self.callback(store.close)
            return store

    return Store()


def _away_after(ask: object) -> float:
    began_s = time.monotonic()
    with pytest.raises(BlobsAway):
        ask()  # type: ignore[operator]
    return time.monotonic() - began_s


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"s3_secret_access_key": "another"}, "FLG_S3_SECRET_ACCESS_KEY"),
        ({"s3_access_key_id": "another"}, "FLG_S3_ACCESS_KEY_ID"),
        ({"blob_url": "s3://another"}, "FLG_BLOB_URL"),
        ({"s3_endpoint_url": "http://127.0.0.1:1"}, "FLG_S3_ENDPOINT_URL"),
    ],
)
def test_a_refusal_names_the_setting_to_look_at(
    strict: Shelf, settings: dict[str, str], named: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And neither the answer to a client nor the log repeats a key."""
    store = _other(strict, **settings)

    with pytest.raises(BlobsAway, match=named) as caught:
        _keep(store, b"content")
    with pytest.raises(BlobsAway):  # a missing bucket is no missing blob
        store.size("ab12")
    store.close()

    assert "FLG_" not in caught.value.detail
    assert named in caplog.text
    assert s3.SECRET not in caplog.text
    assert s3.KEY_ID not in caplog.text


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"blob_url": "s3://UPPER"}, "FLG_BLOB_URL"),
        ({"blob_url": "s3://bucket/a b"}, "FLG_BLOB_URL"),
        ({"blob_url": "s3:", "s3_access_key_id": "alone"}, "FLG_S3_SECRET_ACCESS_KEY"),
        ({"blob_url": "s3:", "s3_encryption": "rot13"}, "FLG_S3_ENCRYPTION"),
        ({"blob_url": "s3:", "s3_kms_key_id": "key"}, "FLG_S3_ENCRYPTION"),
    ],
)
def test_a_wrong_setting_is_refused_at_the_start(settings: dict[str, str], named: str) -> None:
    """Errors are part of the interface."""
    with pytest.raises(ConfigError, match=named):
        open_blobs(Config(**settings))


def test_the_bucket_is_fl_models_unless_another_is_named(checking: Shelf) -> None:
    """The specification's default."""
    store = _other(checking, blob_url="s3:")
    _keep(store, b"content", blob_id="dd44")
    found = store.stored()

    assert "dd44" in {blob.name for blob in found}
    assert checking.server.client().head_object(Bucket="fl-models", Key="blobs/dd44")["ContentLength"] == 23
    store.delete("dd44")
    store.close()


# Listing and sweeping


def test_listings_longer_than_a_page_are_read_to_their_end(checking: Shelf) -> None:
    """S3 tells a thousand keys at a time."""
    checking.server.order(page=3)
    names = [f"{number:04x}" for number in range(8)]
    for name in names:
        _keep(checking.store, b"", blob_id=name)
    uploads = [checking.store.incoming(f"f{number:03x}", None) for number in range(5)]
    for upload in uploads:
        upload.write(b"x" * 6 * MIB)

    assert list(checking.store.names()) == names
    assert checking.store.sweep_incoming(older_than_s=0) == 5
    assert checking.leftovers() == 0


def test_what_is_not_ours_is_never_listed(checking: Shelf) -> None:
    """An operator may have objects of another kind beside ours: the janitor must not see them."""
    client = checking.server.client()
    for name in (
        "blobs/readme.txt",
        "models/v1.bin",
        "models/v1.0.0.bin.bak",
        "models/vgg.bin",
        "other/ab12",
    ):
        client.put_object(
            Bucket=s3.BUCKET, Key=checking.key("models/x")[:-8] + name, Body=b"", ChecksumAlgorithm="SHA256"
        )
    _keep(checking.store, b"content")

    assert list(checking.store.names()) == ["ab12"]


def test_a_long_upload_is_not_swept_while_its_parts_come(checking: Shelf) -> None:
    """What counts is the last part, not the beginning."""
    blob = checking.store.incoming("ab12", KEY)
    blob.write(b"x" * 12 * MIB)
    meta = next((checking.server.directory / "data" / "uploads").glob("*/meta.json"))
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "at": "2026-01-01T00:00:00+00:00"}))

    assert checking.store.sweep_incoming(older_than_s=3600) == 0
    blob.keep()
    assert list(checking.store.names()) == ["ab12"]


def test_ages_are_told_by_the_server_s_clock(checking: Shelf) -> None:
    """A gateway whose clock is wrong must not remove what is young."""
    _keep(checking.store, b"content")
    checking.server.order(age_s=7200.0)

    (found,) = checking.store.stored()

    assert 7190 < found.age_s < 7260


# Models


def test_a_published_model_gets_its_version_s_name_and_metadata(checking: Shelf) -> None:
    """The specification's section 3.2: `models/v{version}.bin` with `version, timestamp, checksum`."""
    content = os.urandom(3 * MIB)
    checksum = sha256(content).hexdigest()
    _keep(checking.store, content, key=None)

    names = [checking.store.file_model("ab12", "1.4.0", checksum, NOON) for _ in range(2)]

    seen = [one["operation"] for one in checking.server.order()["seen"]]
    found = checking.server.client().head_object(Bucket=s3.BUCKET, Key=checking.key("models/v1.4.0.bin"))
    assert names == ["models/v1.4.0.bin"] * 2
    assert seen.count("PutObjectCopy") == 1
    assert found["Metadata"] == {
        "version": "1.4.0",
        "timestamp": "2026-11-24T12:00:00Z",
        "checksum": checksum,
    }
    with checking.store.clear_reader("models/v1.4.0.bin") as reader:
        reader.insist(checksum)


def test_a_very_large_model_is_copied_in_parts(checking: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 copies at most 5 GiB in one request, and slowly: each of ours copies so much that it answers in time."""
    monkeypatch.setattr(s3_copy, "COPY_BYTES", 5 * MIB)
    content = os.urandom(12 * MIB)
    checksum = sha256(content).hexdigest()
    _keep(checking.store, content, key=None)

    assert checking.store.file_model("ab12", "1.4.0", checksum, NOON) == "models/v1.4.0.bin"

    seen = [one["operation"] for one in checking.server.order()["seen"]]
    assert (seen.count("UploadPartCopy"), seen.count("PutObjectCopy")) == (3, 0)
    assert checking.raw("models/v1.4.0.bin") == content
    assert checking.leftovers() == 0


def test_another_object_under_the_version_s_name_is_left_alone(checking: Shelf) -> None:
    """It may be another gateway's, or one that a backup has yet to name: the model keeps its first name."""
    _keep(checking.store, b"theirs", blob_id="models/v1.4.0.bin", key=None)
    _keep(checking.store, b"ours", key=None)

    name = checking.store.file_model("ab12", "1.4.0", sha256(b"ours").hexdigest(), NOON)

    assert name is None
    assert checking.raw("models/v1.4.0.bin") == b"theirs"


def test_a_model_that_s3_harmed_is_not_filed(checking: Shelf) -> None:
    """S3 tells the copy's SHA-256: it must be the published one."""
    _keep(checking.store, b"ours", key=None)
    checking.spoil("ab12", b"urs!")

    with pytest.raises(BlobCorrupt):
        checking.store.file_model("ab12", "1.4.0", sha256(b"ours").hexdigest(), NOON)

    assert list(checking.store.names()) == ["ab12"]


def test_a_model_whose_first_object_is_gone_is_told(checking: Shelf) -> None:
    """And no empty object takes its name."""
    with pytest.raises(NoSuchBlob):
        checking.store.file_model("ab12", "1.4.0", "0" * 64, NOON)

    assert list(checking.store.names()) == []


def test_a_link_gives_the_bytes_to_whoever_has_it_until_it_expires(strict: Shelf) -> None:
    """Downloads may go past the gateway; without the signature, the same address is refused."""
    _keep(strict.store, b"model", key=None)
    url = strict.store.presigned_url("ab12", expires_s=60, version="1.4.0")
    expired = strict.store.presigned_url("ab12", expires_s=1, version="1.4.0")

    given = httpx.get(url)
    time.sleep(1.5)

    assert (given.status_code, given.content) == (200, b"model")
    assert given.headers["Content-Disposition"] == 'attachment; filename="1.4.0.safetensors"'
    assert httpx.get(expired).status_code == 403
    assert httpx.get(url.partition("&X-Amz-Signature")[0]).status_code in (400, 403)


# Memory


def test_an_upload_takes_less_than_8_mib_however_long_it_is(checking: Shelf) -> None:
    """The body is never held as a whole: one part of 5 MiB, and a chunk or two."""
    piece = os.urandom(MIB)
    _keep(checking.store, piece)  # what is loaded once is not counted
    tracemalloc.start()
    try:
        blob = checking.store.incoming("cd34", KEY)
        for _ in range(40):
            blob.write(piece)
        blob.keep()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak_bytes < 8 * MIB, f"{peak_bytes / MIB:.1f} MiB"


def test_a_store_can_be_opened_without_any_server(checking: Shelf) -> None:
    """A gateway starts while S3 is away, and waits for it."""
    settings = {**checking.settings, "s3_endpoint_url": "http://127.0.0.1:1"}
    store = open_blobs(replace(Config(), **settings))

    assert not store.usable()
    store.close()
