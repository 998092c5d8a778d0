"""Every byte that a gateway keeps, store by store, and the search for a word in it that sees through encodings.

A word is also looked for as base64, hex, UTF-16 and as its own plain SHA-256: whoever knows a name can test a guess
against a hash that no key protects.
"""

from __future__ import annotations

import sqlite3
import subprocess
import zipfile
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path

from living.home import Home
from services.postgresql import program
from sqlalchemy import make_url

Named = tuple[str, bytes]


def forms(word: str | bytes) -> list[bytes]:
    """A word, or bytes, as they may stand in a file."""
    raw, wide = (word.encode(), [word.encode("utf-16-le")]) if isinstance(word, str) else (word, [])
    plain = [raw, raw.hex().encode(), raw.hex().upper().encode(), *wide]
    return [*plain, *_base64_forms(raw), sha256(raw).hexdigest().encode(), sha256(raw).digest()]


def stores_with(home: Home, words: Iterable[str | bytes], *, more: Iterable[Named] = ()) -> list[str]:
    """The names of the stores in which one of the words stands, in clear or thinly disguised.

    Args:
        home: the gateway's stores.
        words: what to look for.
        more: what is kept elsewhere, by name.
    """
    return _having((*_stores(home), *more), words)


def files_with(folder: Path, words: Iterable[str | bytes]) -> list[str]:
    """The files of a folder in which one of the words stands."""
    return _having(_files(folder), words)


def _having(stores: Iterable[Named], words: Iterable[str | bytes]) -> list[str]:
    wanted = {form for word in words for form in forms(word)}
    return [name for name, data in stores if any(form in data for form in wanted)]


def _stores(home: Home) -> Iterator[Named]:
    """Files, with what is packed in archives; dumps of every database; what other servers keep."""
    yield from _files(home.directory)
    for path in home.directory.rglob("*.db"):
        yield f"dump of {path.name}", _sqlite_dump(path)
    if home.server is not None:
        yield from _files(home.server.directory / "data")
        yield "tables as text", b"\n".join(home.tables_as_text())
        yield "pg_dump", _postgresql_dump(home.database_url)
    for number, data in enumerate(home.kept_elsewhere()):
        yield f"kept elsewhere {number}", data


def _files(folder: Path) -> Iterator[Named]:
    for path in folder.rglob("*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:  # a server removed it meanwhile
            continue
        yield str(path.relative_to(folder)), data
        if data.startswith(b"PK\x03\x04"):
            with zipfile.ZipFile(path) as archive:
                yield from ((f"{path.name}!{name}", archive.read(name)) for name in archive.namelist())


def _sqlite_dump(path: Path) -> bytes:
    conn = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return "\n".join(conn.iterdump()).encode()
    finally:
        conn.close()


def _postgresql_dump(url: str) -> bytes:
    at = make_url(url)
    where = ["-h", str(at.host), "-p", str(at.port), "-U", str(at.username), str(at.database)]
    return subprocess.run([program("pg_dump"), *where], capture_output=True, check=True, timeout=60).stdout


def _base64_forms(raw: bytes) -> list[bytes]:
    """The part of the base64 text that is the same whatever stands before and after, for each alignment."""
    found = []
    for before, cut in ((0, 0), (1, 2), (2, 3)):
        whole = (before + len(raw)) // 3 * 4
        text = b64encode(bytes(before) + raw)[cut:whole]
        found += [text, text.translate(bytes.maketrans(b"+/", b"-_"))]
    return found
