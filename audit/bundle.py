"""Writing an audit bundle: what the database holds, as it stands, with its checkpoints.

Nothing is repaired, judged or signed here; `audit.verify` judges. Equal content gives equal bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from sqlalchemy import Connection, Engine

from audit.errors import NoCheckpoint
from audit.reading import snapshot
from audit.rotation_notes import rotation_notes
from audit.store import newest_checkpoint, read_entries, tree_size, witnessed_checkpoint
from audit.verifier.opening import CHECKPOINT, ENTRIES, MAX_ROTATIONS, README, VKEY, WITNESSED, rotation_name
from audit.verifier.progress import Progress

_PAGE = 1000
_SETTLE_S = 0.02
_EPOCH = (1980, 1, 1, 0, 0, 0)

_README = """\
An audit bundle of fl-gateway: everything its log holds, for somebody who does not trust the gateway.

  checkpoint      what the log's key signed: name, number of entries, Merkle root, signatures
  entries.jsonl   the entries, one a line, in order; line 1 is seq 0
  keys/log.vkey   the public key; compare it with one that you got from elsewhere
  witnessed       if there: the newest checkpoint that a witness cosigned, where that is an older one
  rotations/0001  and so on, if there: for each change of the log's key the checkpoint that tells of it

With the verifier (Python 3.11 or later, the package `cryptography`, and of fl-gateway the folder `audit/`,
or the one file that `fl-gateway audit verifier -o verify.pyz` writes):

  python verify.pyz BUNDLE.zip --vkey KEY_FROM_ELSEWHERE [--since OLDER_CHECKPOINT] [--receipt R]
                    [--witness KEY_OF_A_WITNESS]

By hand:

  1. A line without its newline is an entry's canonical bytes (RFC 8785); its seq is the line's number
     from 0. Its leaf is the SHA-256 of a zero byte and those bytes:
       (printf '\\000'; sed -n 1p entries.jsonl | tr -d '\\n') | sha256sum
  2. An entry's "prev" is the leaf of the line before it, in hex; the first one's is 64 zeros.
  3. The tree over the leaves is that of RFC 6962: a node is the SHA-256 of a one byte and its two
     children; the left child covers the largest power of two of leaves below the whole. The number of
     leaves is the second line of `checkpoint`, the root in base64 the third.
  4. The signature (Ed25519) covers the first three lines of `checkpoint`, each with its newline. The last
     word of the fifth line is base64 of 4 bytes of key id and 64 of signature; the last part of
     `keys/log.vkey` is base64 of the byte 1 and the 32 of the public key.
  5. A later line is of an older key that still signs, or of a witness. A witness's last word is base64 of
     4 bytes of key id, 8 of a time (seconds since 1970, the highest byte first) and 64 of signature,
     which covers the lines "cosignature/v1" and "time SECONDS", and then those first three.

Values {"enc", "key"} are encrypted under a person's key. They are part of what is hashed, and stay when
that person is erased and the key is destroyed. What this proves, and what not: docs/audit-log.md.
"""


def write_bundle(
    conn: Connection,
    target: Path | BinaryIO,
    vkey: str,
    *,
    quorum: int = 1,
    progress: Progress | None = None,
) -> int:
    """Write a bundle of what this transaction sees; returns the number of entries.

    Args:
        conn: reads one state of the log.
        target: where to.
        vkey: the newest public key of the log.
        quorum: how many witnesses are asked to cosign: `witnessed` is rather one that all of these cosigned.
        progress: hears (done, total) after each page.

    Raises:
        NoCheckpoint: nothing was ever signed.
    """
    published = newest_checkpoint(conn)
    if published is None:
        raise NoCheckpoint(
            "the log has no signed checkpoint yet: run the sequencer (fl-gateway sequence) first"
        )
    witnessed = witnessed_checkpoint(conn, quorum) or witnessed_checkpoint(conn, 1)
    return write_entries(
        target,
        published.note,
        vkey,
        _pages(conn, tree_size(conn), progress),
        witnessed=witnessed.note if witnessed and witnessed.size < published.size else None,
        rotations=rotation_notes(conn)[-MAX_ROTATIONS:],
    )


def write_entries(
    target: Path | IO[bytes],
    note: str,
    vkey: str,
    pages: Iterable[Sequence[bytes]],
    *,
    witnessed: str | None = None,
    rotations: Sequence[str] = (),
) -> int:
    """Write a bundle of these canonical entries, which come in order; returns their number."""
    texts = {README: _README, CHECKPOINT: note, VKEY: f"{vkey}\n"}
    if witnessed is not None:
        texts[WITNESSED] = witnessed
    texts |= {rotation_name(number): told for number, told in enumerate(rotations, start=1)}
    count = 0
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(_member(name), text)
        with archive.open(_member(ENTRIES), "w", force_zip64=True) as stream:
            for page in pages:
                stream.write(b"".join(entry + b"\n" for entry in page))
                count += len(page)
    return count


def export_bundle(
    engine: Engine,
    target: Path | BinaryIO,
    vkey: str,
    *,
    quorum: int = 1,
    progress: Progress | None = None,
    patience_s: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Write a bundle while the sequencer works: wait for a moment in which every entry is signed.

    After `patience_s` the bundle is written all the same, and the verifier names the first unsigned entry.
    """
    for _ in range(int(patience_s / _SETTLE_S)):
        with snapshot(engine) as conn:
            published = newest_checkpoint(conn, cosigned=False)
            if published is not None and published.size >= tree_size(conn):
                return write_bundle(conn, target, vkey, quorum=quorum, progress=progress)
        sleep(_SETTLE_S)
    with snapshot(engine) as conn:
        return write_bundle(conn, target, vkey, quorum=quorum, progress=progress)


def _pages(conn: Connection, total: int, progress: Progress | None) -> Iterator[list[bytes]]:
    after, done = None, 0
    while page := read_entries(conn, after, _PAGE):
        yield [entry.canonical for entry in page]
        after, done = page[-1].seq, done + len(page)
        if progress is not None:
            progress(done, total)


def _member(name: str) -> ZipInfo:
    member = ZipInfo(name, _EPOCH)
    member.compress_type = ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member
