"""Hostile bundles get a clear negative finding, bounded in memory, never a traceback."""

from __future__ import annotations

import io
import json
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_STORED, ZipFile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from logbook import SIGNER, checkpoint, entries, lines, zipped

from audit.entry import Entry
from audit.merkle import leaf_hash
from audit.verify import verify_bundle

CHAIN = entries(3)
NOTE = checkpoint(CHAIN)
GOOD = lines(CHAIN)


def sound_bytes(compression: int = ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with ZipFile(made, "w", compression) as archive:
        archive.writestr("checkpoint", NOTE)
        archive.writestr("entries.jsonl", b"".join(GOOD))
        archive.writestr("keys/log.vkey", SIGNER.vkey)
    return made.getvalue()


Lines = list[bytes]
HOSTILE_LINES: dict[str, tuple[Lines, int]] = {
    "junk": ([b"\xff\xfe\x00junk\n", *GOOD[1:]], 0),
    "bad UTF-8 inside": ([GOOD[0], GOOD[1].replace(b"rounds", b"round\xff"), GOOD[2]], 1),
    "an empty line": ([GOOD[0], b"\n", *GOOD[1:]], 1),
    "Windows line ends": ([line.replace(b"\n", b"\r\n") for line in GOOD], 0),
    "no last newline": ([*GOOD[:2], GOOD[2].rstrip(b"\n")], 2),
    "half a line": ([*GOOD[:2], GOOD[2][:50]], 2),
    "spaces": ([GOOD[0].replace(b'":', b'": ', 1), *GOOD[1:]], 0),
    "deep nesting": ([GOOD[0], b'{"a":' * 10_000 + b"\n"], 1),
    "a float": ([GOOD[0].replace(b'"seq":0', b'"seq":0.0'), *GOOD[1:]], 0),
    "a short prev": ([GOOD[0].replace(b'"prev":"' + b"0" * 64, b'"prev":"' + b"0" * 62), *GOOD[1:]], 0),
    "a long prev": ([GOOD[0].replace(b'"prev":"' + b"0" * 64, b'"prev":"' + b"0" * 66), *GOOD[1:]], 0),
    "a doubled member": ([GOOD[0].replace(b'"seq":0', b'"seq":0,"seq":0'), *GOOD[1:]], 0),
    "a huge number": ([GOOD[0].replace(b'"seq":0', b'"seq":' + b"9" * 5000), *GOOD[1:]], 0),
    "too long a line": ([GOOD[0], b'"' + b"x" * 65_534 + b'"\n'], 1),
    "a list": ([GOOD[0], b"[]\n"], 1),
    "NUL bytes": ([bytes(100_000)], 0),
}


@pytest.mark.parametrize(("content", "first_bad"), HOSTILE_LINES.values(), ids=HOSTILE_LINES.keys())
def test_a_line_that_is_no_entry_is_named(tmp_path: Path, content: Lines, first_bad: int) -> None:
    """Every line is an entry's canonical bytes and a newline."""
    verdict = verify_bundle(zipped(tmp_path / "b.zip", content, NOTE), vkey=SIGNER.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, first_bad)


def changed(seq: int, **members: object) -> Entry:
    """An entry of the good log with other members, spelled without our own checks."""
    told = {**CHAIN[seq].members, **members}
    spelled = json.dumps(told, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return Entry(told, spelled.encode())  # type: ignore[arg-type]


@pytest.mark.parametrize("prev", [CHAIN[0].leaf().hex(), "1" * 64], ids=["well chained", "badly chained"])
def test_an_entry_nested_deeper_than_the_log_allows_is_named(tmp_path: Path, prev: str) -> None:
    """What the writer refuses the verifier refuses, before it looks at the entry's place or at a receipt of it."""
    deep: list[object] = []
    for _ in range(100):
        deep = [deep]
    content = lines([CHAIN[0], changed(1, prev=prev, details={"deep": deep}), CHAIN[2]])

    verdict = verify_bundle(zipped(tmp_path / "b.zip", content, NOTE), vkey=SIGNER.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, 1)
    assert "nested deeper than 64 levels" in (verdict.problem or "")


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_times_at_the_ends_of_the_calendar_are_compared(tmp_path: Path, year: str) -> None:
    """A minute before the first time that there is would be none."""
    first, second = (f"{year}-01-01T00:00:{second}.000000Z" for second in ("30", "10"))
    one = changed(0, time=first)
    chain = [one, changed(1, time=second, prev=one.leaf().hex())]

    verdict = verify_bundle(zipped(tmp_path / "b.zip", lines(chain), checkpoint(chain)), vkey=SIGNER.vkey)

    assert verdict.ok, verdict.text()


def test_a_list_of_members_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    """`zipfile` would make an object of each, before anybody could count them."""
    bundle = tmp_path / "b.zip"
    data = sound_bytes()
    end = data.rfind(b"PK\x05\x06")
    start = data.find(b"PK\x01\x02")
    listed = data[start:end] * 20_000
    sizes = struct.pack("<HHLL", 60_000, 60_000, len(listed), start)
    bundle.write_bytes(data[:start] + listed + data[end : end + 8] + sizes + b"\0\0")

    tracemalloc.start()
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert not verdict.ok
    assert "more members than a bundle has" in (verdict.problem or "")
    assert peak < 1_000_000


def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A zip bomb of one line: 300 MB of zeros in 300 kB."""
    bundle = tmp_path / "b.zip"
    with ZipFile(bundle, "w", ZIP_DEFLATED) as archive:
        archive.writestr("checkpoint", NOTE)
        with archive.open("entries.jsonl", "w", force_zip64=True) as stream:
            stream.write(GOOD[0])
            for _ in range(300):
                stream.write(b"0" * 1_000_000)

    tracemalloc.start()
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (verdict.ok, verdict.first_bad_seq) == (False, 1)
    assert "longer than 65535 bytes" in (verdict.problem or "")
    assert peak < 10_000_000


def test_a_long_log_is_checked_in_little_memory(tmp_path: Path) -> None:
    """The verifier streams: memory grows with the logarithm of the log."""
    chain = entries(5000)
    bundle = zipped(tmp_path / "b.zip", lines(chain), checkpoint(chain))
    del chain

    tracemalloc.start()
    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert verdict.ok
    assert peak < 4_000_000  # the entries alone are more
    assert bundle.stat().st_size > 0


def without(name: str) -> bytes:
    made = io.BytesIO()
    with ZipFile(io.BytesIO(sound_bytes())) as good, ZipFile(made, "w") as archive:
        for member in good.infolist():
            if member.filename != name:
                archive.writestr(member, good.read(member))
    return made.getvalue()


def with_member(name: str, data: bytes, compression: int = ZIP_STORED) -> bytes:
    made = io.BytesIO(without(name) if name not in ("keys/log.vkey", "twice") else sound_bytes())
    with warnings.catch_warnings(), ZipFile(made, "a", compression) as archive:
        warnings.simplefilter("ignore")
        archive.writestr("entries.jsonl" if name == "twice" else name, data)
    return made.getvalue()


def crowded() -> bytes:
    made = io.BytesIO(sound_bytes())
    with ZipFile(made, "a") as archive:
        for number in range(200):
            archive.writestr(f"extra/{number}", b"")
    return made.getvalue()


def encrypted() -> bytes:
    data = bytearray(sound_bytes())
    place = data.rfind(b"PK\x01\x02")
    data[place + 8] |= 1
    return bytes(data)


HOSTILE_ARCHIVES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "no ZIP": lambda: b"no zip at all",
    "half a ZIP": lambda: sound_bytes()[:-30],
    "no checkpoint": lambda: without("checkpoint"),
    "no entries": lambda: without("entries.jsonl"),
    "entries twice": lambda: with_member("twice", b"".join(GOOD)),
    "a checkpoint of junk": lambda: with_member("checkpoint", b"\xff\xfe"),
    "an endless checkpoint": lambda: with_member("checkpoint", b"x" * 3_000_000, ZIP_DEFLATED),
    "entries in bzip2": lambda: with_member("entries.jsonl", b"".join(GOOD), ZIP_BZIP2),
    "too many members": crowded,
    "an encrypted member": encrypted,
}


@pytest.mark.parametrize("make", HOSTILE_ARCHIVES.values(), ids=HOSTILE_ARCHIVES.keys())
def test_a_file_that_is_no_bundle_is_refused(tmp_path: Path, make: Callable[[], bytes]) -> None:
    """Missing, doubled, malformed or oversized members: a finding, not an error."""
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(make())

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert not verdict.ok
    assert verdict.problem


@pytest.mark.parametrize(
    "vkey", [None, "nonsense", "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]
)
def test_a_bundle_with_a_bad_key_of_its_own_is_refused(tmp_path: Path, vkey: str | None) -> None:
    """Without `--vkey` the bundle's key is needed; with it, the bundle's does not matter."""
    bundle = zipped(tmp_path / "b.zip", GOOD, NOTE, vkey)

    assert not verify_bundle(bundle).ok
    assert verify_bundle(bundle, vkey=SIGNER.vkey).ok


def test_a_root_that_is_no_hash_is_refused(tmp_path: Path) -> None:
    """A signed text is a checkpoint or it is refused: 32 bytes of root."""
    note = SIGNER.sign_text("example.com/log\n3\nAAAA\n")

    verdict = verify_bundle(zipped(tmp_path / "b.zip", GOOD, note), vkey=SIGNER.vkey)

    assert not verdict.ok
    assert "32 bytes" in (verdict.problem or "")


def test_a_checkpoint_of_more_entries_than_there_can_be_is_refused(tmp_path: Path) -> None:
    """A signed size costs nothing until its entries are there."""
    note = SIGNER.sign(10**17, leaf_hash(b""))

    verdict = verify_bundle(zipped(tmp_path / "b.zip", GOOD, note), vkey=SIGNER.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, 3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@example(ZIP_STORED, [(0.9986717638828526, 25)], 1.0)  # an offset before the file's beginning
@given(
    st.sampled_from([ZIP_STORED, ZIP_DEFLATED]),
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_a_damaged_archive_never_makes_the_verifier_stumble(
    tmp_path: Path, compression: int, damages: list[tuple[float, int]], end: float
) -> None:
    """Whatever bytes are damaged or cut off, there is a verdict; and a good one only for the true entries."""
    data = bytearray(sound_bytes(compression))
    for position, value in damages:
        data[min(int(position * len(data)), len(data) - 1)] = value
    if end < 0.3:
        data = data[: int(end / 0.3 * len(data))]
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(bytes(data))

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert verdict.ok == (verdict.problem is None)


@pytest.mark.parametrize("seq", [0, 1, 2])
def test_a_byte_flipped_in_the_archive_itself_names_its_entry(tmp_path: Path, seq: int) -> None:
    """ZIP's checksum would only say that something is wrong: the hashes say where."""
    data = bytearray(sound_bytes(ZIP_STORED))
    position = data.find(GOOD[seq][:200]) + 150
    data[position] ^= 1
    bundle = tmp_path / "b.zip"
    bundle.write_bytes(bytes(data))

    verdict = verify_bundle(bundle, vkey=SIGNER.vkey)

    assert (verdict.ok, verdict.first_bad_seq) == (False, seq)
