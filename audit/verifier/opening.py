"""Reading an audit bundle that may be hostile: sizes are bounded, nothing is extracted or trusted."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
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
WITNESSED = "witnessed"
MAX_ROTATIONS = 90

_ROTATION = re.compile(r"rotations/[0-9]{4}")
_MAX_MEMBERS = 100
_MAX_TEXT_BYTES = 1_000_000
_MAX_ROTATION_BYTES = 50_000
_READ_BYTES = 1 << 18
_MAX_READ_BYTES = 1 << 20
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
    """A bundle's checkpoints and key as texts, and its entries as lines."""

    checkpoint: str
    vkey: str | None
    witnessed: str | None
    """The newest checkpoint that a witness cosigned, if it is an older one."""
    rotations: Mapping[str, str]
    """By name, the checkpoints that cover the announcements of new keys."""
    archive: ZipFile

    def lines(self) -> Iterator[bytes]:
        """Each line with its newline, cut two bytes behind the longest that may be; raises BadBundle."""
        with _guarded(), _open(self.archive, ENTRIES) as stream:
            while line := stream.readline(MAX_ENTRY_BYTES + 2):
                yield line


@contextmanager
def open_bundle(path: Path) -> Iterator[OpenBundle]:
    """Open a bundle; raises BadBundle if it is none, OSError if there is no such file."""
    with _File(path) as file:
        with _guarded():
            archive = ZipFile(file)
        with archive:
            _check_members(archive.infolist())
            yield OpenBundle(
                checkpoint=_text(archive, CHECKPOINT),
                vkey=_text(archive, VKEY) if VKEY in archive.namelist() else None,
                witnessed=_text(archive, WITNESSED) if WITNESSED in archive.namelist() else None,
                rotations=_rotations(archive),
                archive=archive,
            )


class _File(io.FileIO):
    """A file of which little is read at once: `zipfile` takes the whole list of members, however long, into memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As ever, but what no bundle needs is refused."""
        if size is not None and size > _MAX_READ_BYTES:
            raise BadBundle("the bundle has more members than a bundle has")
        return super().read(-1 if size is None else size)


def rotation_name(number: int) -> str:
    """The member of the checkpoint that covers the announcement of this number, from 1."""
    return f"rotations/{number:04}"


def _rotations(archive: ZipFile) -> dict[str, str]:
    names = sorted(name for name in archive.namelist() if _ROTATION.fullmatch(name))
    return {name: _text(archive, name, _MAX_ROTATION_BYTES) for name in names}


def _check_members(members: list[ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(names) > _MAX_MEMBERS:
        raise BadBundle("the bundle has more members than a bundle has")
    if len(set(map(_extracted, names))) != len(names):
        raise BadBundle("the bundle has two members of one name, so that readers may see different ones")
    for name in (CHECKPOINT, ENTRIES):
        if name not in names:
            raise BadBundle(f"the bundle's member {name!r} is missing")
    for member in members:
        if member.flag_bits & _ENCRYPTED or member.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
            raise BadBundle("a member of the bundle is encrypted or compressed in an unknown way")


def _extracted(name: str) -> str:
    """Where a member lands when it is unpacked, also by careless tools and where `README` and `readme` are one file."""
    parts = name.replace("\\", "/").casefold().split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))


def _text(archive: ZipFile, name: str, most_bytes: int = _MAX_TEXT_BYTES) -> str:
    with _guarded(), _open(archive, name) as stream:
        data = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
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
