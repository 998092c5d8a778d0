"""Reading an audit bundle that may be hostile: sizes are bounded, nothing is extracted or trusted."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from audit.entry import MAX_ENTRY_BYTES
from audit.errors import BadBundle

CHECKPOINT = "checkpoint"
ENTRIES = "entries.jsonl"
VKEY = "keys/log.vkey"
README = "README.txt"

_MAX_MEMBERS = 100
_MAX_TEXT_BYTES = 1_000_000
_READ_BYTES = 1 << 18
_ENCRYPTED = 0x1
# OSError: a damaged offset makes zipfile seek before the file's beginning.
_DAMAGE = (
    BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,
    OverflowError,
    IndexError,
)


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A bundle's checkpoint and key as texts, and its entries as lines."""

    checkpoint: str
    vkey: str | None
    archive: ZipFile

    def lines(self) -> Iterator[bytes]:
        """Each line with its newline, cut two bytes behind the longest that may be; raises BadBundle."""
        with _guarded(), _open(self.archive, ENTRIES) as stream:
            while line := stream.readline(MAX_ENTRY_BYTES + 2):
                yield line


@contextmanager
def open_bundle(path: Path) -> Iterator[OpenBundle]:
    """Open a bundle; raises BadBundle if it is none, OSError if there is no such file."""
    with path.open("rb") as file:
        with _guarded():
            archive = ZipFile(file)
        with archive:
            _check_members(archive.infolist())
            vkey = _text(archive, VKEY) if VKEY in archive.namelist() else None
            yield OpenBundle(_text(archive, CHECKPOINT), vkey, archive)


def _check_members(members: list[ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > _MAX_MEMBERS:
        raise BadBundle("the bundle has more members than a bundle has")
    if len(set(names)) != len(names):
        raise BadBundle("the bundle has two members of one name, so that readers may see different ones")
    for name in (CHECKPOINT, ENTRIES):
        if name not in names:
            raise BadBundle(f"the bundle's member {name!r} is missing")
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadBundle("a member of the bundle is encrypted or compressed in an unknown way")


def _text(archive: ZipFile, name: str) -> str:
    with _guarded(), _open(archive, name) as stream:
        data = stream.read(_MAX_TEXT_BYTES + 1)
    if len(data) > _MAX_TEXT_BYTES:
        raise BadBundle(f"the bundle's member {name!r} is too long")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise BadBundle(f"the bundle's member {name!r} is not UTF-8") from None


def _open(archive: ZipFile, name: str) -> IO[bytes]:
    """A member's bytes without ZIP's own checksum: hashes judge the content, and name the bad entry."""
    member = archive.getinfo(name)
    if hasattr(member, "CRC"):
        del member.CRC
    return io.BufferedReader(cast(io.RawIOBase, archive.open(member)), _READ_BYTES)


@contextmanager
def _guarded() -> Iterator[None]:
    """What a damaged archive raises in many ways becomes one error."""
    try:
        yield
    except BadBundle:
        raise
    except _DAMAGE as error:
        raise BadBundle(f"the bundle is not a sound ZIP file ({type(error).__name__})") from None
