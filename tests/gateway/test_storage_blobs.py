"""Blobs: whole or absent, readable at any offset, and unreadable once changed, cut or swapped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.storage.blobs import CHUNK_BYTES, BlobCorrupt, FileBlobs, open_blobs

KEY = bytes(range(32))
STORED_CHUNK = CHUNK_BYTES + 16


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    """An empty store."""
    return FileBlobs(tmp_path / "blobs")


def _kept(blobs: FileBlobs, content: bytes, *, blob_id: str = "ab12", piece: int = 300_000) -> Path:
    blob = blobs.incoming(blob_id, KEY)
    for start in range(0, len(content), piece):
        blob.write(content[start : start + piece])
    blob.keep()
    return blobs.path(blob_id)


@given(offset=st.integers(0, 3 * CHUNK_BYTES), length=st.integers(0, CHUNK_BYTES + 9))
def test_any_range_can_be_read(tmp_path_factory: pytest.TempPathFactory, offset: int, length: int) -> None:
    """RULES 17: chunks with number and last-flag, so that a block can be read alone."""
    blobs = FileBlobs(tmp_path_factory.mktemp("blobs"))
    content = os.urandom(2 * CHUNK_BYTES + 77)
    _kept(blobs, content)

    with blobs.reader("ab12", KEY) as reader:
        if offset + length > len(content):
            with pytest.raises(BlobCorrupt):
                reader.read_at(offset, length)
        else:
            assert reader.read_at(offset, length) == content[offset : offset + length]


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES])
def test_every_size_comes_back(blobs: FileBlobs, size: int) -> None:
    """Also at the chunks' borders."""
    content = os.urandom(size)
    _kept(blobs, content)

    with blobs.reader("ab12", KEY) as reader:
        assert (reader.size_bytes, reader.read_at(0, size)) == (size, content)


def test_the_file_does_not_hold_the_content(blobs: FileBlobs) -> None:
    """Updates are encrypted from the first byte on disk."""
    path = _kept(blobs, b"canary" * 1000)

    assert b"canary" not in path.read_bytes()


@pytest.mark.parametrize("harm", ["flip", "cut a chunk", "cut a byte", "swap", "append"])
def test_a_harmed_blob_is_not_read(blobs: FileBlobs, harm: str) -> None:
    """Neither a change nor a cut nor a swap goes unseen."""
    path = _kept(blobs, os.urandom(3 * CHUNK_BYTES))
    stored = bytearray(path.read_bytes())
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
    path.write_bytes(stored)

    with blobs.reader("ab12", KEY) as reader, pytest.raises(BlobCorrupt):
        reader.read_at(0, reader.size_bytes)


def test_another_key_opens_nothing(blobs: FileBlobs) -> None:
    """A blob's data key belongs to it alone."""
    _kept(blobs, b"content")

    with blobs.reader("ab12", bytes(32)) as reader, pytest.raises(BlobCorrupt):
        reader.read_at(0, 7)


def test_a_discarded_blob_leaves_nothing(blobs: FileBlobs, tmp_path: Path) -> None:
    """RULES 17: until the verdict a blob is an unnamed temporary, removed on refusal."""
    blob = blobs.incoming("ab12", KEY)
    blob.write(b"x" * 3 * CHUNK_BYTES)
    blob.discard()
    blob.discard()

    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list(blobs.names()) == []


def test_what_a_killed_upload_left_is_swept(blobs: FileBlobs) -> None:
    """A process that dies leaves a temporary file, and nothing that has a name."""
    blob = blobs.incoming("ab12", KEY)
    blob.write(b"x" * 3 * CHUNK_BYTES)

    young = blobs.sweep_incoming(older_than_s=3600)
    old = blobs.sweep_incoming(older_than_s=0)
    blob.discard()

    assert (young, old) == (0, 1)


@pytest.mark.parametrize("url", ["", "blobs", "ftp:x", "file:"])
def test_a_wrong_url_says_what_to_write(url: str) -> None:
    """Errors are part of the interface."""
    with pytest.raises(ConfigError, match="file:DIR"):
        open_blobs(url)
