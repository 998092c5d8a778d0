"""A backup that was changed, cut or made by somebody hostile is refused whole, before a row of it is written."""

from __future__ import annotations

import base64
import json
import struct
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from living.home import Home
from living.restores import Past, put_back, run
from sqlalchemy import func, select

from audit.reading import reading
from audit.tables import audit_checkpoints
from compliance.keyring.tables import subject_keys
from gateway.backup.archive import BLOB_BYTES, BLOB_LIST, MANIFEST, Kind, open_archive
from gateway.backup.errors import BadBackup
from gateway.backup.reading import rows_of
from gateway.backup.restoring import check
from gateway.backup.rows import decode, emptied_tables, encode

Change = Callable[[dict[str, bytes]], None]


def rewritten(data: Path, to: Path, change: Change, **packing: int) -> Path:
    """The backup with its members changed, and an honest ZIP around them."""
    with zipfile.ZipFile(data) as old:
        members = {info.filename: old.read(info) for info in old.infolist()}
        packed = {info.filename: info.compress_type for info in old.infolist()}
    change(members)
    with zipfile.ZipFile(to, "w") as new:
        for name, content in members.items():
            new.writestr(name, content, packing.get(name, packed.get(name, zipfile.ZIP_STORED)))
    return to


def restated(members: dict[str, bytes], **facts: Any) -> None:
    """A manifest that says the truth about changed members."""
    told = json.loads(members[MANIFEST]) | facts
    for name, content in members.items():
        if name != MANIFEST:
            told["members"][name] = {
                "size_bytes": len(content),
                "sha256": sha256(content).hexdigest(),
                "rows": 0 if name == BLOB_BYTES else content.count(b"\n"),
            }
    members[MANIFEST] = json.dumps(told).encode()


def test_a_sound_backup_says_what_is_in_it(past: Past) -> None:
    """Rows of every table, the blobs that they name, the checkpoint in force."""
    manifest = check(past.data, past.keys)

    assert manifest.kind is Kind.DATABASE
    assert manifest.members["tables/rounds.jsonl"].rows == 2
    assert manifest.blobs == 7  # three models, three updates, a package
    assert (manifest.vanished, manifest.missing) == (0, 0)
    assert manifest.checkpoint is not None


@pytest.mark.parametrize(
    "name", ["tables/clients.jsonl", "tables/audit_log.jsonl", BLOB_BYTES, BLOB_LIST, MANIFEST]
)
def test_a_flipped_bit_is_found_in_every_member(past: Past, tmp_path: Path, name: str) -> None:
    """In a table, in the log, in a blob, in the manifest."""
    content = bytearray(past.data.read_bytes())
    content[_middle_of(past.data, name)] ^= 0x10
    (changed := tmp_path / "changed.zip").write_bytes(content)

    with pytest.raises(BadBackup):
        check(changed)


def _middle_of(data: Path, name: str) -> int:
    """The place in the file of the middle of a member's bytes."""
    with zipfile.ZipFile(data) as archive:
        info = archive.getinfo(name)
    start = (
        info.header_offset + 30 + sum(struct.unpack_from("<HH", data.read_bytes(), info.header_offset + 26))
    )
    return start + info.compress_size // 2


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_cut_file_is_no_backup(past: Past, tmp_path: Path, share: float) -> None:
    """As a copy that broke off leaves it."""
    content = past.data.read_bytes()
    (cut := tmp_path / "cut.zip").write_bytes(content[: int(len(content) * share)])

    with pytest.raises(BadBackup):
        check(cut)


def _drop(members: dict[str, bytes]) -> None:
    del members["tables/clients.jsonl"]


def _add(members: dict[str, bytes]) -> None:
    members["../../etc/cron.d/x"] = b"* * * * * root true\n"


def _same_length(members: dict[str, bytes]) -> None:
    name = "tables/clients.jsonl"
    members[name] = members[name].replace(b'"status":"active"', b'"status":"aktive"')


def _row_more(members: dict[str, bytes]) -> None:
    members["tables/tokens.jsonl"] += members["tables/tokens.jsonl"]


def _no_manifest(members: dict[str, bytes]) -> None:
    del members[MANIFEST]


def _other_format(members: dict[str, bytes]) -> None:
    restated(members, format=2)


def _climbing_blob(members: dict[str, bytes]) -> None:
    first, *rest = members[BLOB_LIST].splitlines(keepends=True)
    members[BLOB_LIST] = b"".join(
        [json.dumps(json.loads(first) | {"name": "../../x"}).encode() + b"\n", *rest]
    )
    restated(members)


def _overlapping_blobs(members: dict[str, bytes]) -> None:
    lines = [json.loads(line) | {"offset": 0} for line in members[BLOB_LIST].splitlines()]
    members[BLOB_LIST] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    restated(members)


def _changed_entry(members: dict[str, bytes]) -> None:
    name = "tables/audit_log.jsonl"
    members[name] = members[name].replace(b'\\"outcome\\":\\"success\\"', b'\\"outcome\\":\\"failure\\"', 1)
    restated(members)


def _dropped_entry(members: dict[str, bytes]) -> None:
    name = "tables/audit_log.jsonl"
    members[name] = b"".join(members[name].splitlines(keepends=True)[:-1])
    restated(members)


def _column_less(members: dict[str, bytes]) -> None:
    name = "tables/clients.jsonl"
    members[name] = members[name].replace(b'"status":"active",', b"", 1)
    restated(members)


def _kind_of_value(members: dict[str, bytes]) -> None:
    name = "tables/rounds.jsonl"
    members[name] = members[name].replace(b'"planned_clients":2', b'"planned_clients":"2"', 1)
    restated(members)


@pytest.mark.parametrize(
    "change",
    [
        _drop,
        _add,
        _same_length,
        _row_more,
        _no_manifest,
        _other_format,
        _climbing_blob,
        _overlapping_blobs,
        _changed_entry,
        _dropped_entry,
        _column_less,
        _kind_of_value,
    ],
)
def test_a_file_that_somebody_put_together_is_refused(past: Past, tmp_path: Path, change: Change) -> None:
    """Also where the manifest agrees with what was changed: the log is signed, and names lead nowhere."""
    changed = rewritten(past.data, tmp_path / "changed.zip", change)

    with pytest.raises(BadBackup):
        check(changed)


def test_a_zip_bomb_does_not_swell(past: Past, tmp_path: Path) -> None:
    """Blobs are never packed, and a line has an end."""

    def bomb(members: dict[str, bytes]) -> None:
        members[BLOB_BYTES] = bytes(100 << 20)
        restated(members)

    packed = rewritten(past.data, tmp_path / "bomb.zip", bomb, **{BLOB_BYTES: zipfile.ZIP_DEFLATED})

    assert packed.stat().st_size < 2 << 20
    with pytest.raises(BadBackup, match="packed"):
        check(packed)


def test_data_and_keys_are_not_taken_for_each_other(past: Past) -> None:
    """They are apart (RULES 1)."""
    with pytest.raises(BadBackup, match="of the keys"), open_archive(past.keys, Kind.DATABASE):
        pass


def test_no_secret_is_in_a_backup(past: Past) -> None:
    """Promise 8: no key with the data, no master key with the keys, the state in neither."""
    with past.home.stores() as services, reading(services.keystore_engine) as conn:
        master = bytes.fromhex(services.config.master_key)
        wrapped = [base64.b64encode(key) for key in conn.scalars(select(subject_keys.c.wrapped))]
    data, keys = unpacked(past.data), unpacked(past.keys)

    assert [key for key in wrapped if key not in keys] == []
    assert [key for key in wrapped if key in data] == []
    assert not [secret for secret in (master, master.hex().encode()) if secret in data + keys]
    assert past.data.stat().st_mode & 0o777 == 0o600


def test_a_damaged_backup_leaves_the_database_empty(past: Past, elsewhere: Home, tmp_path: Path) -> None:
    """Everything is checked before anything is written; the exit status is 1."""
    damaged = rewritten(past.data, tmp_path / "damaged.zip", _changed_entry)

    with pytest.raises(BadBackup):
        put_back(elsewhere, damaged, keys=past.keys, without_state=True)
    told = run(elsewhere, "restore", str(damaged), "--without-state", status=1)

    assert "breaks at seq" in told["told"]
    assert rows_in(elsewhere) == 0
    assert not elsewhere.blob_names()


def rows_in(home: Home) -> int:
    """How many rows the database has."""
    with home.stores() as services, reading(services.engine) as conn:
        counts = [select(func.count()).select_from(table) for table in emptied_tables()]
        return sum(int(conn.scalar(count) or 0) for count in counts)


def unpacked(path: Path) -> bytes:
    """Everything in a backup."""
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_a_packed_manifest_is_not_unpacked(past: Past, tmp_path: Path) -> None:
    """LZMA asks for as much memory as the file wishes, before a byte is out."""
    changed = rewritten(past.data, tmp_path / "changed.zip", lambda _: None, **{MANIFEST: zipfile.ZIP_LZMA})
    content = bytearray(changed.read_bytes())
    content[_middle_of(changed, MANIFEST)] ^= 0xFF  # what is unpacked all the same, fails in LZMA's own way
    changed.write_bytes(content)

    with pytest.raises(BadBackup, match="packed"):
        check(changed)


@pytest.mark.parametrize("fact", ["origin", "checkpoint", "created_at", "schema"])
def test_a_manifest_of_wrong_types_is_no_backup(past: Past, tmp_path: Path, fact: str) -> None:
    """A list where a text belongs is told as damage, not as a fault of the program."""
    changed = rewritten(
        past.data, tmp_path / "changed.zip", lambda members: restated(members, **{fact: ["x"]})
    )

    with pytest.raises(BadBackup, match="manifest"):
        check(changed)


def test_a_checkpoint_of_a_version_that_knew_no_peaks_is_read(past: Past) -> None:
    """What is derived is in no backup: the line is that of an older version, and it is taken."""
    with open_archive(past.data, Kind.DATABASE) as archive:
        rows = list(rows_of(archive, audit_checkpoints))

    assert rows
    assert all(row.keys() == {"size", "root", "note", "created_at"} for row in rows)
    assert all(decode(audit_checkpoints, encode(audit_checkpoints, row)) == row for row in rows)
