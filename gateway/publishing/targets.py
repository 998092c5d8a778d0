"""Where tiles are published: a folder that any web server can serve, or a bucket; each object whole or absent."""

from __future__ import annotations

import errno
import os
import re
from base64 import b64encode
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from audit.tiles import CHECKPOINT
from audit.tiles.publish import Target
from gateway.config import Config
from gateway.errors import ConfigError
from gateway.storage.chunks import NoSuchBlob
from gateway.storage.durable import replace_file, sync_directory

TILE_TYPE = "application/octet-stream"
CHECKPOINT_TYPE = "text/plain; charset=utf-8"
FOREVER = "max-age=31536000, immutable"
NEVER = "no-cache"
_FORM = "FLG_TLOG_PUBLISH must have the form file:DIR or s3://BUCKET/PREFIX (lower case, no spaces)"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"(?:[A-Za-z0-9!_.*'()-]+/)*")
_MOST_BYTES = 32 << 20  # above 256 entries of 65,535 bytes each
_ASIDE = ".incoming"


class OpenTarget(Target, Protocol):
    """A target as the gateway holds it."""

    def check(self) -> None:
        """Raise what `write` would, as far as that can be told without one."""

    def prepare(self) -> None:
        """Make it ready to be written to, by the one who leads."""

    def close(self) -> None:
        """Give back what is held open."""


def open_target(config: Config) -> OpenTarget | None:
    """The target that `FLG_TLOG_PUBLISH` names, None if it is empty; nothing is asked of it or made yet.

    Raises:
        ConfigError: it is of neither form.
    """
    scheme, _, rest = config.tlog_publish.partition(":")
    if not config.tlog_publish:
        return None
    if scheme == "file" and rest:
        return FolderTarget(Path(rest))
    parts = urlsplit(config.tlog_publish)
    bucket, prefix = parts.netloc, f"{parts.path.strip('/')}/".lstrip("/")
    if scheme != "s3" or not _BUCKET.fullmatch(bucket) or not _PREFIX.fullmatch(prefix):
        raise ConfigError(_FORM)
    if parts.query or parts.fragment:
        raise ConfigError(_FORM)
    return BucketTarget(config, bucket, prefix)


def check_target(config: Config) -> None:
    """Raise ConfigError unless `FLG_TLOG_PUBLISH` is empty or of a form that there is."""
    target = open_target(config)
    if target is not None:
        target.close()


class FolderTarget:
    """Files below a folder, readable by everybody: a web server serves them as they are."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def check(self) -> None:
        """Raise PermissionError unless the folder can be written, or made."""
        place = next(one for one in (self._folder, *self._folder.absolute().parents) if one.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "the folder of FLG_TLOG_PUBLISH cannot be written")

    def prepare(self) -> None:
        """Make the folder; remove what a killed publisher was writing."""
        aside = self._folder / _ASIDE
        self._make(aside)
        for left in aside.iterdir():
            left.unlink(missing_ok=True)

    def read(self, path: str) -> bytes | None:
        """The file's bytes."""
        with suppress(FileNotFoundError):
            return (self._folder / path).read_bytes()
        return None

    def write(self, path: str, content: bytes) -> None:
        """Write it aside, fsync, rename."""
        file = self._folder / path
        self._make(file.parent)
        replace_file(file, content, mode=0o644, aside_in=self._folder / _ASIDE)

    def close(self) -> None:
        """Nothing is held."""

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        if folder != self._folder:
            self._make(folder.parent)
        folder.mkdir(exist_ok=True, parents=folder == self._folder)
        folder.chmod(0o755)  # whatever the umask
        sync_directory(folder.parent)


class BucketTarget:
    """Objects below a prefix of a bucket; the bucket's owner says who may read them.

    Args:
        config: the settings `s3_*`.
        bucket: the bucket, which may be another than that of the blobs.
        prefix: empty, or what every key begins with, with a slash at its end.
    """

    def __init__(self, config: Config, bucket: str, prefix: str) -> None:
        from gateway.storage.s3_client import S3  # boto3 takes its time to load

        self._s3 = S3(config, bucket, setting="FLG_TLOG_PUBLISH")
        self._prefix = prefix

    def check(self) -> None:
        """Raise BlobsAway unless the bucket answers."""
        self._s3.probe()

    def prepare(self) -> None:
        """Raise BlobsAway unless the bucket answers."""
        self._s3.probe()

    def read(self, path: str) -> bytes | None:
        """The object's bytes."""
        with suppress(NoSuchBlob):
            return self._s3.read(self._prefix + path, 0, _MOST_BYTES)
        return None

    def write(self, path: str, content: bytes) -> None:
        """One PUT, whose digest the server compares."""
        is_checkpoint = path == CHECKPOINT
        self._s3.ask(
            "put_object",
            Key=self._prefix + path,
            Body=content,
            ContentType=CHECKPOINT_TYPE if is_checkpoint else TILE_TYPE,
            CacheControl=NEVER if is_checkpoint else FOREVER,  # `public` would share what took rights to read
            ChecksumSHA256=b64encode(sha256(content).digest()).decode(),
        )

    def close(self) -> None:
        """Give the connections back."""
        self._s3.close()
