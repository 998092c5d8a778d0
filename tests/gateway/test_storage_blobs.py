"""Blobs, on every store: whole or absent, readable at any offset, and unreadable once changed, cut or swapped."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from blob_stores import KINDS, Servers, Shelf, shelf
from hypothesis import given, settings
from hypothesis import strategies as st
from services.s3 import BUCKET

from gateway.config import Config
from gateway.errors import BlobsAway, ConfigError, StorageFull
from gateway.storage import file_blobs
from gateway.storage.blobs import CHUNK_BYTES, BlobCorrupt, FileBlobs, NoSuchBlob, open_blobs
from gateway.storage.chunks import plain_size

ROOT = Path(__file__).resolve().parents[2]
KEY = bytes(range(32))
STORED_CHUNK = CHUNK_BYTES + 16
SIZES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 12 * CHUNK_BYTES + 5]


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, s3_servers: Servers, tmp_path: Path) -> Iterator[Shelf]:
    """An empty store: the test runs on each kind."""
    with shelf(request.param, s3_servers, tmp_path / "blobs") as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def written(
    request: pytest.FixtureRequest, s3_servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Shelf, bytes]]:
    """A store with one blob of three chunks, and what is in it."""
    content = os.urandom(2 * CHUNK_BYTES + 77)
    with shelf(request.param, s3_servers, tmp_path_factory.mktemp("blobs")) as made:
        _keep(made, content)
        yield made, content


def _keep(blobs: Shelf, content: bytes, *, blob_id: str = "ab12", key: bytes | None = KEY) -> None:
    with blobs.store.incoming(blob_id, key) as blob:
        for start in range(0, len(content), 300_000):
            blob.write(content[start : start + 300_000])
        blob.keep()


@settings(max_examples=30)
@given(offset=st.integers(0, 3 * CHUNK_BYTES), length=st.integers(0, CHUNK_BYTES + 9))
def test_any_range_can_be_read(written: tuple[Shelf, bytes], offset: int, length: int) -> None:
    """RULES 17: chunks with number and last-flag, so that a block can be read alone."""
    blobs, content = written

    with blobs.store.reader("ab12", KEY, hold=False) as reader:
        if offset + length > len(content):
            with pytest.raises(BlobCorrupt):
                reader.read_at(offset, length)
        else:
            assert reader.read_at(offset, length) == content[offset : offset + length]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_comes_back(blobs: Shelf, size: int) -> None:
    """Also at the borders of chunks, and of an upload's parts."""
    content = os.urandom(size)
    _keep(blobs, content)

    with blobs.store.reader("ab12", KEY) as reader:
        assert (reader.size_bytes, reader.read_at(0, size)) == (size, content)
    assert plain_size(blobs.store.size("ab12")) == size


@pytest.mark.parametrize("size", [0, 5, CHUNK_BYTES + 1, 6 * CHUNK_BYTES + 3])
def test_what_is_kept_in_clear_comes_back_and_can_be_compared(blobs: Shelf, size: int) -> None:
    """Models are stored in clear; what is built on one compares it with its published SHA-256 first."""
    content = os.urandom(size)
    _keep(blobs, content, key=None)

    with blobs.store.clear_reader("ab12") as reader:
        whole, past = reader.read_at(0, size), reader.read_at(size, 10)
        middle = reader.read_at(size // 2, 1000)
        reader.insist(sha256(content).hexdigest())
        with pytest.raises(BlobCorrupt):
            reader.insist("0" * 64)
    assert (whole, past, middle) == (content, b"", content[size // 2 : size // 2 + 1000])
    assert blobs.raw("ab12") == content


def test_what_is_stored_does_not_hold_the_content(blobs: Shelf) -> None:
    """Updates are encrypted from the first byte that leaves the process."""
    _keep(blobs, b"canary" * 1000)

    assert b"canary" not in blobs.raw("ab12")


@pytest.mark.parametrize("harm", ["flip", "cut a chunk", "cut a byte", "swap", "append"])
def test_a_harmed_blob_is_not_read(blobs: Shelf, harm: str) -> None:
    """Neither a change nor a cut nor a swap goes unseen."""
    _keep(blobs, os.urandom(3 * CHUNK_BYTES))
    stored = bytearray(blobs.raw("ab12"))
    if harm == "flip":
        stored[5] ^= 1
    elif harm == "cut a chunk":
        del stored[2 * STORED_CHUNK :]
    elif harm == "cut a byte":
        del stored[-1:]
    elif harm == "swap":
        stored[:STORED_CHUNK], stored[STORED_CHUNK : 2 * STORED_CHUNK] = (
            stored[STORED_CHUNK : 2 * STORED_CHUNK],
            stored[:STORED_CHUNK],
        )
    else:
        stored += b"\0" * 40
    blobs.spoil("ab12", bytes(stored))

    with blobs.store.reader("ab12", KEY) as reader, pytest.raises(BlobCorrupt):
        reader.read_at(0, reader.size_bytes)


def test_another_key_opens_nothing(blobs: Shelf) -> None:
    """A blob's data key belongs to it alone."""
    _keep(blobs, b"content")

    with blobs.store.reader("ab12", bytes(32)) as reader, pytest.raises(BlobCorrupt):
        reader.read_at(0, 7)


@pytest.mark.parametrize("size", [3, 12 * CHUNK_BYTES])
def test_nothing_has_a_name_before_it_is_kept_and_nothing_is_left_of_what_is_discarded(
    blobs: Shelf, size: int
) -> None:
    """RULES 17: until the verdict a blob is an unnamed temporary, removed on refusal."""
    blob = blobs.store.incoming("ab12", KEY)
    blob.write(b"x" * size)
    before = list(blobs.store.names())
    blob.discard()
    blob.discard()

    assert before == list(blobs.store.names()) == []
    if blobs.server is None or blobs.server.kind != "s3rver":  # it can neither list nor abort uploads
        assert blobs.leftovers() == 0


def test_to_discard_after_keeping_changes_nothing(blobs: Shelf) -> None:
    """`with blob:` discards at its end, whatever happened in it."""
    _keep(blobs, b"content")

    with blobs.store.reader("ab12", KEY) as reader:
        assert reader.read_at(0, 7) == b"content"


def test_the_same_blob_once_more_replaces_it_as_a_whole(blobs: Shelf) -> None:
    """A release that was killed writes its model once more under the same name."""
    _keep(blobs, b"old" * CHUNK_BYTES, key=None)
    _keep(blobs, b"new", key=None)

    assert blobs.raw("ab12") == b"new"
    assert list(blobs.store.names()) == ["ab12"]


def test_what_is_missing_is_told_from_a_store_that_is_away(blobs: Shelf) -> None:
    """A missing blob ends its round; a store that is away is waited for."""
    asked = [
        lambda: blobs.store.size("ab12"),
        lambda: blobs.store.reader("ab12", KEY),
        lambda: blobs.store.clear_reader("ab12"),
        lambda: blobs.store.as_file("ab12").__enter__(),
    ]

    for ask in asked:
        with pytest.raises(NoSuchBlob):
            ask()
    assert blobs.store.modified_at("ab12") == float("inf")


def test_a_blob_is_removed_once(blobs: Shelf) -> None:
    """An erasure's receipt counts what was there."""
    _keep(blobs, b"content")

    assert [blobs.store.delete("ab12"), blobs.store.delete("ab12")] == [True, False]
    assert list(blobs.store.names()) == []


def test_the_listing_tells_name_size_and_age(blobs: Shelf) -> None:
    """The janitor goes by the age, `doctor --blobs` by the size; neither asks for each blob."""
    for number in range(3):
        _keep(blobs, b"x" * number, blob_id=f"{number}{number}ff", key=None)

    found = sorted(blobs.store.stored(), key=lambda blob: blob.name)

    assert [(blob.name, blob.size_bytes) for blob in found] == [("00ff", 0), ("11ff", 1), ("22ff", 2)]
    assert all(0 <= blob.age_s < 60 for blob in found)


def test_a_blob_can_be_had_as_a_file(blobs: Shelf) -> None:
    """The evaluation hook reads a file; a copy goes with the block."""
    content = os.urandom(9 * CHUNK_BYTES)
    _keep(blobs, content, key=None)

    with blobs.store.as_file("ab12") as path:
        read = path.read_bytes()

    assert read == content
    assert path.exists() is (blobs.server is None)


def test_what_a_killed_upload_left_is_swept(blobs: Shelf) -> None:
    """A process that dies leaves a temporary file, or parts, and nothing that has a name."""
    if blobs.server is not None and blobs.server.kind == "s3rver":
        assert blobs.store.sweep_incoming(older_than_s=0) == 0  # it cannot list uploads, and that is no error
        return
    blob = blobs.store.incoming("ab12", KEY)
    blob.write(b"x" * 12 * CHUNK_BYTES)

    young = blobs.store.sweep_incoming(older_than_s=3600)
    old = blobs.store.sweep_incoming(older_than_s=0)

    assert (young, old, blobs.leftovers()) == (0, 1, 0)
    blob.discard()


def test_a_store_says_that_it_is_usable(blobs: Shelf) -> None:
    """`/health` asks."""
    assert blobs.store.usable()


@pytest.mark.parametrize("url", ["", "blobs", "ftp:x", "file:"])
def test_a_wrong_url_says_what_to_write(url: str) -> None:
    """Errors are part of the interface."""
    with pytest.raises(ConfigError, match=r"file:DIR or s3://BUCKET/PREFIX"):
        open_blobs(Config(blob_url=url))


# A directory's own troubles


def test_a_model_of_a_restored_s3_backup_keeps_its_name_in_a_directory(tmp_path: Path) -> None:
    """A backup of one store is restored into another kind."""
    store = FileBlobs(tmp_path / "blobs")
    with store.incoming("models/v1.2.0.bin") as blob:
        blob.write(b"model")
        blob.keep()

    with store.clear_reader("models/v1.2.0.bin") as reader:
        assert reader.read_at(0, 5) == b"model"
    assert list(store.names()) == ["models/v1.2.0.bin"]
    assert store.delete("models/v1.2.0.bin")


def test_a_directory_that_vanished_is_away_and_lost_no_blob(tmp_path: Path) -> None:
    """An unmounted disk must not end rounds as if their updates were gone."""
    store = FileBlobs(tmp_path / "blobs")
    blob = store.incoming("ab12", KEY)
    shutil.rmtree(tmp_path / "blobs")

    asked = [
        lambda: store.reader("ab12", KEY),
        lambda: store.delete("ab12"),
        lambda: store.incoming("cd34", KEY),
        lambda: list(store.names()),
        lambda: store.sweep_incoming(older_than_s=0),
        blob.keep,
    ]
    for ask in asked:
        with pytest.raises(BlobsAway):
            ask()
    assert not store.usable()


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, BlobsAway),
        (errno.EROFS, BlobsAway),
        (errno.EACCES, BlobsAway),
    ],
)
def test_no_room_is_507_and_a_broken_disk_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, told: type[Exception]
) -> None:
    """A full disk is told as such; anything else is waited for, and the client comes again."""
    store = FileBlobs(tmp_path / "blobs")
    blob = store.incoming("ab12", KEY)
    blob.write(b"content")

    def fails(_: Path) -> None:
        raise OSError(number, "no")

    monkeypatch.setattr(file_blobs, "sync_directory", fails)
    with pytest.raises(told) as caught:
        blob.keep()

    assert caught.value.status == (507 if told is StorageFull else 503)
    assert list((tmp_path / "blobs" / "incoming").iterdir()) == []


def test_a_new_fan_out_folder_is_on_the_disk_before_its_blob_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure after the answer must not take the folder, and with it an acknowledged update."""
    store, synced = FileBlobs(tmp_path / "blobs"), []
    monkeypatch.setattr(file_blobs, "sync_directory", lambda path: synced.append(path.name))

    for blob_id in ("ab12", "ab34"):
        with store.incoming(blob_id) as blob:
            blob.keep()

    assert synced == ["blobs", "ab", "ab"]


_ON_A_SMALL_DISK = """
import json, subprocess, sys
from pathlib import Path
from gateway.errors import StorageFull
from gateway.storage.blobs import FileBlobs

folder = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
store = FileBlobs(folder / "blobs")

def attempt(blob_id, size):
    try:
        with store.incoming(blob_id, bytes(32)) as blob:
            for _ in range(size >> 20):
                blob.write(bytes(1 << 20))
            blob.keep()
    except StorageFull:
        return "full"
    return "kept"

def announced(size):
    try:
        store.insist_room(size)
    except StorageFull:
        return "full"
    return "room"

told = [attempt("aa00", 20 << 20), len(list((folder / "blobs" / "incoming").iterdir())), list(store.names())]
(folder / "filler").write_bytes(bytes(7 << 20))
told += [attempt("bb00", 4 << 20), announced(4 << 20)]
(folder / "filler").unlink()
told += [attempt("bb00", 4 << 20), announced(1 << 20), announced(4 << 20), list(store.names())]
print(json.dumps(told))
"""


def test_a_full_disk_keeps_nothing_half_and_takes_blobs_again_once_there_is_room(tmp_path: Path) -> None:
    """A small tmpfs, mounted in a namespace of the child's own: 507, nothing half-written, recovery."""
    alone = ["--user", "--map-root-user"] if os.geteuid() else []
    command = ["unshare", "--mount", *alone, sys.executable, "-c", _ON_A_SMALL_DISK, str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stderr
    refused, left, names, *then = json.loads(done.stdout)
    assert (refused, left, names) == ("full", 0, [])
    assert then == ["full", "full", "kept", "room", "full", ["bb00"]]


def test_many_blobs_go_at_once_and_others_stay(blobs: Shelf) -> None:
    """What an erasure removes; those that are gone already are not counted."""
    for blob_id in ("ab01", "ab02", "cd03"):
        _keep(blobs, b"x", blob_id=blob_id)

    assert blobs.store.delete_many(["ab01", "ab02", "ef04"]) == 2

    assert sorted(blobs.store.names()) == ["cd03"]
    assert blobs.store.delete_many([]) == 0


def test_a_bucket_that_does_not_say_now_whether_it_keeps_versions_is_asked_again(
    s3_servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion in an outage must not leave the versions behind and call itself done."""
    with shelf("moto", s3_servers, tmp_path) as blobs:
        assert blobs.server is not None
        _keep(blobs, b"first", blob_id="ab12")
        s3 = blobs.store._s3  # type: ignore[attr-defined]
        ask = s3.ask

        def in_an_outage(operation: str, **asked: object) -> object:
            if operation == "get_bucket_versioning":
                raise BlobsAway("S3: it answers 503")
            return ask(operation, **asked)

        with monkeypatch.context() as outage:
            outage.setattr(s3, "ask", in_an_outage)
            with pytest.raises(BlobsAway):
                blobs.store.delete("ab12")

        assert blobs.store.delete("ab12") is True


def test_a_bucket_that_keeps_versions_keeps_none_of_what_is_deleted(
    s3_servers: Servers, tmp_path: Path
) -> None:
    """Issue: an erasure removes blobs with all versions, also those that an earlier deletion only marked."""
    with shelf("moto", s3_servers, tmp_path) as blobs:
        assert blobs.server is not None
        client, bucket = blobs.server.client(), {"Bucket": BUCKET}
        client.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Enabled"})
        try:
            for blob_id in ("ab12", "ab123"):
                _keep(blobs, b"first", blob_id=blob_id)
                _keep(blobs, b"second", blob_id=blob_id)
            client.delete_object(**bucket, Key=blobs.key("ab12"))

            assert blobs.store.delete("ab12") is False
            assert blobs.store.delete_many(["ab123"]) == 1

            left = client.list_object_versions(**bucket, Prefix=blobs.key("ab12"))
            assert not left.get("Versions")
            assert not left.get("DeleteMarkers")
        finally:
            client.put_bucket_versioning(**bucket, VersioningConfiguration={"Status": "Suspended"})
