"""The export package: a ZIP for a person to read, with a signed manifest for anybody to check (Art. 15, 20).

It is a stream in an order that depends on its paths alone: memory does not grow with what a person has here.
"""

from __future__ import annotations

import base64
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import IO, Any, Protocol, cast

from compliance.errors import BadPackage
from compliance.keyring.keys import SigningKey
from compliance.packages.columns import ExportColumn, schema_of
from compliance.packages.folders import members_of
from compliance.packages.manifest import MANIFEST, SIGNATURE, Manifest, PackedFile
from compliance.packages.readme import Line, readme_html
from compliance.packages.rows import Told
from compliance.packages.scratch import Scratch
from compliance.places import ExportFile, ExportFolder, ExportPart, ExportTable

NOTICE = "article-15.json"
_PORTABLE = "Art. 20"
_NOTICE_TITLE = "Why your data is kept, on which basis, how long, who gets it, and your rights"


class Writable(Protocol):
    """Where a package goes: it is only ever written forward."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""


def write_package(
    out: Writable,
    parts: Iterable[ExportPart],
    *,
    notice: Mapping[str, Any],
    key: SigningKey,
    at: datetime,
    is_portable: bool = False,
) -> Manifest:
    """Write the package of one person.

    Args:
        out: where the ZIP goes.
        parts: what the places hold; their order does not matter: that of the package depends on the paths alone.
        notice: the information that Art. 15(1) asks for, written as `article-15.json`.
        key: signs the manifest.
        at: the time that every file in the ZIP bears.
        is_portable: write only what the person may take along (Art. 20).
    """
    found = list(parts)
    tables = sorted(_tables(found), key=lambda table: table.category)
    others = [part for part in found if not isinstance(part, ExportTable)]
    with ExitStack() as scratch, zipfile.ZipFile(_forward(out), "w", zipfile.ZIP_DEFLATED) as package:
        packer = _Packer(package, at, scratch)
        if is_portable:
            packer.add_portable([table for table in tables if table.portable])
            packer.add_others([part for part in others if _is_portable(part)])
        else:
            packer.add(NOTICE, [_pretty(notice)], "Art. 15(1)", _NOTICE_TITLE)
            packer.add_whole(tables)
            packer.add_others(others)
        readme = readme_html(packer.lines, at, is_portable=is_portable)
        packer.add("README.html", [readme.encode()], "Art. 12(1)", "This page")
        manifest = Manifest(key.kid, tuple(packer.packed))
        signature = base64.b64encode(key.private.sign(manifest.encoded()))
        packer.add(MANIFEST, [manifest.encoded()], "", "")
        packer.add(SIGNATURE, [signature], "", "")
    return manifest


class _Packer:
    """Adds files to a ZIP, and remembers what the manifest and the page say of them."""

    def __init__(self, package: zipfile.ZipFile, at: datetime, scratch: ExitStack) -> None:
        self._package = package
        self._at = at
        self._scratch = scratch
        self._names: set[str] = set()
        self.packed: list[PackedFile] = []
        self.lines: list[Line] = []

    def add_whole(self, tables: Sequence[ExportTable]) -> None:
        """Every table as JSON and CSV, then the portable parts, then the schemas."""
        portable: list[tuple[ExportTable, Scratch, int]] = []
        for table in sorted(tables, key=lambda table: table.json_path):
            as_csv = self._new_scratch() if table.path is None else None
            to_take = self._new_scratch() if table.portable else None
            told = Told(table, csv=as_csv, portable=to_take)
            self._add_rows(table.json_path, told, table.article, table.title)
            if as_csv is not None:
                path = f"data/{table.category}.csv"
                self._add(path, as_csv.read(), table.article, rows=told.count)
            if to_take is not None:
                portable.append((table, to_take, told.count))
        for table, to_take, count in portable:
            path = f"portability/{table.category}.json"
            self._add(path, to_take.read(), _PORTABLE, rows=count)
            self._tell(path, _PORTABLE, f"{table.title}: the part that you may take along", count)
        for table in tables:
            self._add_schema(table.category, table, table.columns)
        self._add_portable_schemas(tables)

    def add_portable(self, tables: Sequence[ExportTable]) -> None:
        """The portable part of each table, and its schema."""
        for table in tables:
            path = f"portability/{table.category}.json"
            only = replace(table, columns=table.portable, rows=_cut(table), path=path)
            self._add_rows(path, Told(only, csv=None, portable=None), _PORTABLE, table.title)
        self._add_portable_schemas(tables)

    def add_others(self, parts: Sequence[ExportFile | ExportFolder]) -> None:
        """Files that are no tables, and folders."""
        for part in sorted(parts, key=lambda part: part.path):
            if isinstance(part, ExportFile):
                self.add(part.path, part.chunks, part.article, part.title)
            else:
                self._add_folder(part)

    def add(self, path: str, chunks: Iterable[bytes], article: str, title: str) -> None:
        """One file that is no table."""
        self._add(path, chunks, article, rows=None)
        self._tell(path, article, title, None)

    def _add_folder(self, folder: ExportFolder) -> None:
        before = len(self.packed)
        for member in members_of(folder, self._at):
            self._add(member.path, member.chunks, folder.article, rows=None)
        if count := len(self.packed) - before:
            self._tell(f"{folder.path}/", folder.article, f"{folder.title} ({count} files)", None)

    def _add_rows(self, path: str, told: Told, article: str, title: str) -> None:
        packed = self._write(path, told.json())
        self.packed.append(PackedFile(path, *packed, told.count, article))
        self._tell(path, article, title, told.count)

    def _add_portable_schemas(self, tables: Sequence[ExportTable]) -> None:
        for table in tables:
            if table.portable:
                self._add_schema(f"portability-{table.category}", table, table.portable)

    def _add_schema(self, name: str, table: ExportTable, columns: Sequence[ExportColumn]) -> None:
        schema = _pretty(schema_of(name, table.title, columns))
        self._add(f"schemas/{name}.schema.json", [schema], "Art. 12(1)", rows=None)

    def _add(self, path: str, chunks: Iterable[bytes], article: str, *, rows: int | None) -> None:
        self.packed.append(PackedFile(path, *self._write(path, chunks), rows, article))

    def _tell(self, path: str, article: str, title: str, rows: int | None) -> None:
        self.lines.append(Line(path, title, rows, article))

    def _write(self, path: str, chunks: Iterable[bytes]) -> tuple[int, str]:
        if path in self._names:
            raise BadPackage(path, "two places export a file of this name")
        self._names.add(path)
        info = zipfile.ZipInfo(path, self._at.astimezone(UTC).timetuple()[:6])
        info.compress_type = zipfile.ZIP_DEFLATED
        info.external_attr = 0o600 << 16
        digest, size = sha256(), 0
        with self._package.open(info, "w", force_zip64=True) as target:
            for chunk in chunks:
                target.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return size, digest.hexdigest()

    def _new_scratch(self) -> Scratch:
        made = Scratch()
        self._scratch.callback(made.close)
        return made


class _Forward:
    """A file that zipfile can only write to, so that it never seeks back."""

    def __init__(self, out: Writable) -> None:
        self._out = out

    def write(self, data: Any) -> int:
        self._out.write(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""


def _forward(out: Writable) -> IO[bytes]:
    return cast("IO[bytes]", _Forward(out))


def _tables(parts: Iterable[ExportPart]) -> list[ExportTable]:
    return [part for part in parts if isinstance(part, ExportTable)]


def _is_portable(part: ExportFile | ExportFolder) -> bool:
    return isinstance(part, ExportFolder) and part.is_portable


def _cut(table: ExportTable) -> Iterable[dict[str, Any]]:
    names = [column.name for column in table.portable]
    return ({name: row[name] for name in names} for row in table.rows)


def _pretty(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).encode()
