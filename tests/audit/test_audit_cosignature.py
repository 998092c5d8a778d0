"""Cosignatures: C2SP tlog-cosignature v1 against real ones of public witnesses, and what must not pass."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from logbook import SIGNER

from audit.checkpoint import NoteVerifier, parse_note
from audit.cosignature import CosignatureSigner, CosignatureVerifier
from audit.errors import BadKey, BadNote, BadSignature

NAME = "witness.example/w1"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
WITNESS = CosignatureSigner(NAME, KEY)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)

# A checkpoint of a public CT log as it was cosigned on 23 May 2026, and the keys that the witnesses publish.
REAL_TEXT = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=
"""
REAL_LOG = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REAL_NOTE = f"""\
{REAL_TEXT}
— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""  # noqa: E501
REAL_TIME = datetime.fromtimestamp(0x6A122120, UTC)
REAL_WITNESSES = (
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
)
ABSENT = "rgdd.se/poc-witness+db03732e+BCjJKlo6BU0xfIb8LutqerIFTWIXEA0L5n3tW3QyPFgG"


@pytest.mark.parametrize("vkey", REAL_WITNESSES)
def test_real_cosignatures_of_public_witnesses_verify(vkey: str) -> None:
    """C2SP tlog-cosignature: four independent implementations signed what we compute."""
    verifier = CosignatureVerifier.parse(vkey)

    assert verifier.find(REAL_NOTE) == REAL_TIME
    assert verifier.vkey == vkey
    assert NoteVerifier.parse(REAL_LOG).open(REAL_NOTE).size == 1432088532


@pytest.mark.parametrize("vkey", REAL_WITNESSES)
@pytest.mark.parametrize("changed", ["1432088533", "arche2025h2"])
def test_a_real_cosignature_holds_for_no_other_text(vkey: str, changed: str) -> None:
    """Another size, another log: refused, and not merely unknown."""
    note = REAL_NOTE.replace("1432088532", changed) if changed.isdigit() else changed + REAL_NOTE[11:]

    with pytest.raises(BadSignature, match="does not verify"):
        CosignatureVerifier.parse(vkey).find(note)


def test_a_note_without_the_witness_has_no_time() -> None:
    """Contract: None tells that this key did not cosign; others' lines are ignored."""
    assert CosignatureVerifier.parse(ABSENT).find(REAL_NOTE) is None


def test_what_is_signed_is_what_the_specification_shows() -> None:
    """C2SP tlog-cosignature, "Ed25519 signed message", byte by byte."""
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    line = WITNESS.cosign(text, datetime.fromtimestamp(1679315147, UTC))
    message = b"cosignature/v1\ntime 1679315147\n" + text.encode()

    dash, name, encoded = line.split(" ")
    data = b64decode(encoded)

    assert (dash, name, line[-1]) == ("—", NAME, "\n")
    assert data[:4] == bytes.fromhex(WITNESS.vkey.split("+")[1])
    assert data[4:12] == (1679315147).to_bytes(8, "big")
    KEY.public_key().verify(data[12:], message)


@given(
    size=st.integers(0, 10**18 - 1), root=st.binary(min_size=32, max_size=32), second=st.integers(0, 2**33)
)
def test_each_cosignature_is_found_with_its_time(size: int, root: bytes, second: int) -> None:
    """Whatever the tree and the time."""
    at = datetime.fromtimestamp(second, UTC)
    note = SIGNER.sign(size, root)

    note += WITNESS.cosign(parse_note(note).text, at)

    assert CosignatureVerifier.parse(WITNESS.vkey).find(note) == at
    assert NoteVerifier.parse(SIGNER.vkey).open(note).root == root


def test_the_latest_of_two_cosignatures_counts() -> None:
    """A witness that cosigned the same tree again says that it was still the newest then."""
    note = SIGNER.sign(1, bytes(32))
    text = parse_note(note).text
    note += WITNESS.cosign(text, NOON) + WITNESS.cosign(text, NOON.replace(hour=11))

    assert CosignatureVerifier.parse(WITNESS.vkey).find(note) == NOON


def _data(at: datetime = NOON) -> bytes:
    line = WITNESS.cosign(parse_note(SIGNER.sign(1, bytes(32))).text, at)
    return b64decode(line.split(" ")[2])


def _line(data: bytes) -> str:
    return f"— {NAME} {b64encode(data).decode()}\n"


@pytest.mark.parametrize(
    "data",
    [
        _data()[:-1],
        _data() + b"\0",
        _data()[:12],
        _data()[:4] + _data()[12:],
        _data()[:11] + b"\0" + _data()[12:],
        _data()[:4] + b"\xff" * 8 + _data()[12:],
        _data()[:-1] + bytes([_data()[-1] ^ 1]),
    ],
    ids=["short", "long", "no signature", "no time", "another time", "beyond all time", "another signature"],
)
def test_a_wrong_cosignature_in_the_witness_s_name_is_an_error(data: bytes) -> None:
    """It is never taken for "did not cosign"."""
    verifier = CosignatureVerifier.parse(WITNESS.vkey)

    with pytest.raises(BadSignature):
        verifier.find(SIGNER.sign(1, bytes(32)) + _line(data))
    with pytest.raises(BadSignature):
        verifier.pick(parse_note(SIGNER.sign(1, bytes(32))).text, _line(data))


def test_a_time_that_no_calendar_has_is_refused_although_it_is_signed() -> None:
    """C2SP: at most 2^63 - 1; a witness that signs nonsense is told so, without a traceback."""
    text = parse_note(SIGNER.sign(1, bytes(32))).text
    seconds = 2**63 - 1
    signature = KEY.sign(f"cosignature/v1\ntime {seconds}\n{text}".encode())
    line = _line(_data()[:4] + seconds.to_bytes(8, "big") + signature)

    with pytest.raises(BadSignature, match="no time"):
        CosignatureVerifier.parse(WITNESS.vkey).find(SIGNER.sign(1, bytes(32)) + line)


def test_only_the_witness_s_own_line_is_picked_from_its_answer() -> None:
    """C2SP tlog-witness: the client ignores cosignatures of unknown keys."""
    text = parse_note(SIGNER.sign(1, bytes(32))).text
    other = CosignatureSigner(NAME, Ed25519PrivateKey.generate()).cosign(text, NOON)
    mine = WITNESS.cosign(text, NOON)
    verifier = CosignatureVerifier.parse(WITNESS.vkey)

    assert verifier.pick(text, other + mine) == mine
    with pytest.raises(BadSignature, match="there is no cosignature"):
        verifier.pick(text, other)
    for answer in ("", "hello\n", mine[:-1]):
        with pytest.raises(BadNote):
            verifier.pick(text, answer)


@pytest.mark.parametrize(
    "vkey",
    [
        SIGNER.vkey,
        "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
        "bananas.sigstore.dev+12344556",
        "rekor.sigstore.dev+12345678+THIS_IS_NOT_BASE64!",
        "rekor.sigstore.dev+12345678+AwEB",
        WITNESS.vkey.replace("+", "+0", 1),
        WITNESS.vkey.replace("w1", "w2"),
        WITNESS.vkey[:-4],
        "",
    ],
)
def test_a_key_of_another_kind_is_no_witness(vkey: str) -> None:
    """Only algorithm 4; the transparency-dev test vectors of keys that are none, and near misses."""
    with pytest.raises(BadKey):
        CosignatureVerifier.parse(vkey)


def test_a_cosignature_is_no_signature_of_a_log() -> None:
    """The algorithm byte is part of the key id: one key as log and as witness gives lines that differ."""
    note = SIGNER.sign(1, bytes(32))
    text = parse_note(note).text
    line = CosignatureSigner(SIGNER.origin, KEY).cosign(text, NOON)

    with pytest.raises(BadSignature, match="bears no signature"):
        NoteVerifier.of(SIGNER.origin, KEY.public_key().public_bytes_raw()).open(f"{text}\n{line}")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_a_witness_has_a_name_that_a_note_can_carry(name: str) -> None:
    """C2SP signed-note: neither spaces nor plus signs."""
    with pytest.raises(BadKey):
        CosignatureSigner(name, KEY)


def test_only_a_whole_text_is_cosigned() -> None:
    """The final newline is part of what is signed."""
    with pytest.raises(BadNote):
        WITNESS.cosign("example.com/log\n1\nroot", NOON)
